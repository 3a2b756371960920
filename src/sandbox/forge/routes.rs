//! The stand-in's endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::actions::{cancel, dispatch, job_log, jobs, open_jobs, run, runs, tasks};
use super::world::{Account, Repo, World};
use super::{Shared, json as body};

pub(super) type App = State<Arc<Shared>>;
/// An answer that ends a handler early.
pub(super) type Refusal = Box<Response>;
pub(super) type Params = Query<BTreeMap<String, String>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    const REPO: &str = "/api/v1/repos/{owner}/{name}";
    let at = |path: &str| format!("{REPO}{path}");
    Router::new()
        .route("/api/forgejo/v1/version", get(forgejo_version))
        .route("/api/v1/version", get(version))
        .route("/api/v1/user", get(user))
        .route(REPO, get(repo))
        .route(&at("/branches/{*branch}"), get(branch))
        .route(&at("/tags/{*tag}"), get(tag))
        .route(&at("/contents/{*path}"), get(contents))
        .route(&at("/raw/{*path}"), get(raw))
        .route(&at("/actions/workflows/{file}/dispatches"), post(dispatch))
        .route(&at("/actions/runs"), get(runs))
        .route(&at("/actions/runs/{id}"), get(run))
        .route(&at("/actions/runs/{id}/jobs"), get(jobs))
        .route(&at("/actions/runs/{id}/cancel"), post(cancel))
        .route(&at("/actions/jobs/{id}/logs"), get(job_log))
        .route(&at("/actions/tasks"), get(tasks))
        .route(&at("/actions/runners/jobs"), get(open_jobs))
        .route(&at("/actions/runners"), get(runners))
        .route(&at("/actions/{kind}"), get(stored))
        .route("/api/v1/orgs/{org}/actions/runners", get(org_runners))
        .route("/api/v1/user/actions/runners", get(user_runners))
        .route("/api/v1/admin/actions/runners", get(admin_runners))
        .route("/api/v1/user/actions/variables", get(user_variables))
        .route("/api/v1/orgs/{org}/actions/{kind}", get(stored_by_org))
        .route("/api/v1/packages/{owner}/container/{name}/{tag}", get(package))
        .route("/api/v1/packages/{owner}/container/{name}/{tag}/files", get(package_files))
        .route("/v2/token", get(registry_token))
        .route("/v2/{owner}/{name}/manifests/{tag}", get(manifest))
        .with_state(shared)
}

/// A refusal in the servers' form.
pub(super) fn refuse(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({"message": message, "url": "/api/swagger"}))).into_response()
}

/// An endpoint that this version does not have.
pub(super) fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

pub(super) fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "The target couldn't be found.")
}

/// Who asks. `None`: nobody.
fn account(world: &World, headers: &HeaderMap) -> Result<Option<Account>, Refusal> {
    let Some(text) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let token = text.strip_prefix("token ").or_else(|| text.strip_prefix("Bearer ")).unwrap_or_default();
    let found = world.accounts.iter().find(|account| account.token == token).cloned();
    match found {
        Some(account) => Ok(Some(account)),
        None => Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "user does not exist [uid: 0, name: ]"))),
    }
}

/// The repository, if whoever asks may see it, and who asks.
pub(super) fn seen(
    world: &World,
    headers: &HeaderMap,
    (owner, name): (&str, &str),
) -> Result<(Repo, Option<Account>), Refusal> {
    let who = account(world, headers)?;
    let full = format!("{owner}/{name}");
    let repo = world.repos.iter().find(|repo| repo.full_name.eq_ignore_ascii_case(&full));
    match repo {
        Some(repo) if !repo.private || who.is_some() => Ok((repo.clone(), who)),
        _ => Err(Box::new(not_found())),
    }
}

pub(super) fn base(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("127.0.0.1");
    format!("http://{host}")
}

/// Turns the refusals inside a handler into answers.
pub(super) fn answer(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(|refusal| *refusal)
}

async fn forgejo_version(State(app): App) -> Response {
    let version = app.world().version;
    if version.is_forgejo() { Json(json!({"version": version.text()})).into_response() } else { unknown() }
}

async fn version(State(app): App) -> Response {
    let version = app.world().version;
    Json(json!({"version": version.text()})).into_response()
}

async fn user(State(app): App, headers: HeaderMap) -> Response {
    answer(account(&app.world(), &headers).map(|who| match who {
        Some(who) => Json(json!({"id": 2, "login": who.login})).into_response(),
        None => refuse(StatusCode::UNAUTHORIZED, "token is required"),
    }))
}

async fn repo(State(app): App, Path((owner, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let world = app.world();
    answer(
        seen(&world, &headers, (&owner, &name))
            .map(|(repo, who)| Json(body::repo(&repo, who.is_some_and(|who| who.write))).into_response()),
    )
}

async fn branch(
    State(app): App,
    Path((owner, name, branch)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| match repo.branches.get(&branch) {
        Some(commit) => Json(json!({"name": branch, "commit": {"id": commit, "message": "x"}})).into_response(),
        None => not_found(),
    }))
}

async fn tag(
    State(app): App,
    Path((owner, name, tag)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| match repo.tags.get(&tag) {
        Some(commit) => Json(json!({"name": tag, "id": commit, "commit": {"sha": commit}})).into_response(),
        None => not_found(),
    }))
}

async fn contents(
    State(app): App,
    Path((owner, name, path)): Path<(String, String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| {
        let known = params.get("ref").is_none_or(|name| repo.commit(name).is_some());
        let Some(entries) = repo.list(&path).filter(|_| known) else { return not_found() };
        let entry = |(name, dir): (String, bool)| {
            json!({"name": name, "path": format!("{path}/{name}"), "type": if dir { "dir" } else { "file" }})
        };
        Json(entries.into_iter().map(entry).collect::<Vec<_>>()).into_response()
    }))
}

/// A file as it is: of a workflow, what matters here is which inputs it declares.
async fn raw(
    State(app): App,
    Path((owner, name, path)): Path<(String, String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| {
        let known = params.get("ref").is_none_or(|name| repo.commit(name).is_some());
        if !known || !repo.files.contains(&path) {
            return not_found();
        }
        let inputs = repo.inputs.iter().map(|input| format!("      {input}:\n        required: false\n"));
        let on = if repo.dispatchable { "workflow_dispatch" } else { "push" };
        let labels = repo.labels.join(", ");
        let jobs = repo.jobs.iter().map(|job| format!("  {job}:\n    runs-on: [{labels}]\n"));
        let (inputs, jobs) = (inputs.collect::<String>(), jobs.collect::<String>());
        format!("on:\n  {on}:\n    inputs:\n{inputs}jobs:\n{jobs}").into_response()
    }))
}

/// A page of names, as lists of secrets and variables give them. A variable's value comes along.
fn named(names: &[String], params: &BTreeMap<String, String>, longest: usize) -> Response {
    let number = |key: &str, usual: usize| params.get(key).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (page, limit) = (number("page", 1).max(1), number("limit", 30).min(longest));
    let row =
        |name: &String| json!({"name": name, "data": format!("value of {name}"), "created_at": "2026-01-01T00:00:00Z"});
    let rows = names.iter().skip((page - 1) * limit).take(limit).map(row);
    Json(rows.collect::<Vec<_>>()).into_response()
}

async fn stored(
    State(app): App,
    Path((owner, name, kind)): Path<(String, String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, who)| {
        if !who.is_some_and(|who| who.owner) {
            return refuse(StatusCode::FORBIDDEN, "user should be the owner of the repo");
        }
        match kind.as_str() {
            "secrets" => named(&repo.secrets, &params, world.longest_page),
            "variables" => named(&repo.variables, &params, world.longest_page),
            _ => unknown(),
        }
    }))
}

async fn stored_by_org(
    State(app): App,
    Path((_org, kind)): Path<(String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(account(&world, &headers).map(|who| {
        let Some((secrets, variables)) = &world.organisation else { return not_found() };
        if !who.is_some_and(|who| who.owner) {
            return refuse(StatusCode::FORBIDDEN, "Must be an organization owner");
        }
        match kind.as_str() {
            "secrets" => named(secrets, &params, world.longest_page),
            "variables" => named(variables, &params, world.longest_page),
            _ => unknown(),
        }
    }))
}

/// The repository's runners, for its owner. With `visible`, Forgejo adds those of the organisation and of the forge.
async fn runners(
    State(app): App,
    Path((owner, name)): Path<(String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(_, who)| {
        if !who.is_some_and(|who| who.owner) {
            return refuse(StatusCode::FORBIDDEN, "user should be the owner of the repo");
        }
        let visible = world.version.is_forgejo() && params.get("visible").is_some_and(|wish| wish == "true");
        let above = world.runners_above.iter().filter(|_| visible).map(|(_, name, status)| (name, status));
        let own = world.runners.iter().map(|(name, status)| (name, status));
        page_of_runners(&world, own.chain(above).collect(), &params)
    }))
}

/// The runners of a level above the repository, for whoever owns it.
fn runners_above(app: &Shared, level: &str, params: &BTreeMap<String, String>, headers: &HeaderMap) -> Response {
    let world = app.world();
    answer(account(&world, headers).map(|who| {
        if !who.is_some_and(|who| who.owner) {
            return refuse(StatusCode::FORBIDDEN, "");
        }
        let rows = world.runners_above.iter().filter(|(of, ..)| of == level);
        page_of_runners(&world, rows.map(|(_, name, status)| (name, status)).collect(), params)
    }))
}

async fn org_runners(State(app): App, Query(params): Params, headers: HeaderMap) -> Response {
    runners_above(&app, "orgs", &params, &headers)
}

async fn user_runners(State(app): App, Query(params): Params, headers: HeaderMap) -> Response {
    runners_above(&app, "user", &params, &headers)
}

async fn admin_runners(State(app): App, Query(params): Params, headers: HeaderMap) -> Response {
    runners_above(&app, "admin", &params, &headers)
}

/// A page of runners: Forgejo's list is bare, Gitea's is not, and each has its own words.
fn page_of_runners(world: &World, rows: Vec<(&String, &String)>, params: &BTreeMap<String, String>) -> Response {
    let version = world.version;
    if !version.has(Some(15), Some(24)) {
        return unknown();
    }
    let number = |key: &str, usual: usize| params.get(key).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (page, limit) = (number("page", 1).max(1), number("limit", 30).min(world.longest_page));
    let total = rows.len();
    let rows = rows.into_iter().enumerate().skip((page - 1) * limit).take(limit);
    if version.is_forgejo() {
        let row = |(id, (name, status)): (usize, (&String, &String))| json!({"id": id, "name": name, "status": status});
        return Json(rows.map(row).collect::<Vec<_>>()).into_response();
    }
    let row = |(id, (name, status)): (usize, (&String, &String))| {
        let online = if status == "offline" { "offline" } else { "online" };
        json!({"id": id, "name": name, "status": online, "busy": status == "active"})
    };
    Json(json!({"total_count": total, "runners": rows.map(row).collect::<Vec<_>>()})).into_response()
}

/// The variables of whoever asks. There is no such list of secrets.
async fn user_variables(State(app): App, Query(params): Params, headers: HeaderMap) -> Response {
    let world = app.world();
    answer(account(&world, &headers).map(|who| match who {
        Some(_) => named(&world.user_variables, &params, world.longest_page),
        None => refuse(StatusCode::UNAUTHORIZED, "token is required"),
    }))
}

fn find_package(
    world: &World,
    headers: &HeaderMap,
    (owner, name, tag): &(String, String, String),
) -> Result<super::Package, Refusal> {
    let who = account(world, headers)?;
    // A missing scope is a 401 here, not a 403.
    if !who.is_some_and(|who| who.packages) {
        return Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "")));
    }
    let same = |package: &&super::Package| {
        package.owner.eq_ignore_ascii_case(owner) && package.name == *name && package.tag == *tag
    };
    world.packages.iter().find(same).cloned().ok_or_else(|| Box::new(not_found()))
}

async fn package(State(app): App, Path(which): Path<(String, String, String)>, headers: HeaderMap) -> Response {
    answer(find_package(&app.world(), &headers, &which).map(|found| Json(body::package(&found)).into_response()))
}

async fn package_files(State(app): App, Path(which): Path<(String, String, String)>, headers: HeaderMap) -> Response {
    answer(find_package(&app.world(), &headers, &which).map(|found| {
        let layer = json!({"id": found.id + 1, "Size": 10, "name": "sha256_layer", "sha256": "0".repeat(64)});
        let manifest = json!({"id": found.id, "Size": 500, "name": "manifest.json", "sha256": found.digest});
        Json(json!([layer, manifest])).into_response()
    }))
}

/// What the registry takes for a token of its own.
const PULLS: &str = "stand-in-pull-";

/// The token flow of the registry: the password counts, whatever the user is called.
async fn registry_token(State(app): App, headers: HeaderMap) -> Response {
    let world = app.world();
    if !world.registry {
        return unknown();
    }
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let pair = text.and_then(|text| BASE64_STANDARD.decode(text.strip_prefix("Basic ")?).ok());
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
    let token = pair.split_once(':').map_or("", |(_, password)| password);
    match world.accounts.iter().find(|account| account.token == token) {
        Some(account) => Json(json!({"token": format!("{PULLS}{}", account.login)})).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// The manifest, to who brings the registry's own token: the forge's is not taken here.
async fn manifest(
    State(app): App,
    Path((owner, name, tag)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let login = text.strip_prefix("Bearer ").and_then(|token| token.strip_prefix(PULLS));
    if !world.accounts.iter().any(|account| Some(account.login.as_str()) == login && account.packages) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"errors": [{"code": "UNAUTHORIZED"}]}))).into_response();
    }
    let same = |package: &&super::Package| package.owner == owner && package.name == name && package.tag == tag;
    let found = world.packages.iter().find(same);
    let by_tag = found.map(|package| world.registry_lies.as_ref().unwrap_or(&package.digest)).cloned();
    let digest = by_tag.or_else(|| tag.strip_prefix("sha256:").map(str::to_owned));
    match digest.filter(|digest| !digest.is_empty() && !world.missing.contains(digest)) {
        Some(digest) => {
            let manifest = match world.indexes.get(&digest) {
                Some(children) => {
                    let child = |child: &String| json!({"digest": format!("sha256:{child}"), "size": 500});
                    let children: Vec<_> = children.iter().map(child).collect();
                    json!({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children})
                }
                None => json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}),
            };
            ([("docker-content-digest", format!("sha256:{digest}"))], Json(manifest)).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({"errors": [{"code": "MANIFEST_UNKNOWN"}]}))).into_response(),
    }
}
