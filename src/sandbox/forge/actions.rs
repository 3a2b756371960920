//! The stand-in's endpoints for runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::routes::{App, Params, Refusal, answer, base, not_found, refuse, seen, unknown};
use super::world::{Account, Repo, Version, World};
use super::{json as body, play};

#[derive(Deserialize)]
pub(super) struct DispatchBody {
    #[serde(rename = "ref", default)]
    git_ref: String,
    #[serde(default)]
    inputs: Option<BTreeMap<String, String>>,
    #[serde(default)]
    return_run_info: bool,
}

pub(super) async fn dispatch(
    State(app): App,
    Path((owner, name, file)): Path<(String, String, String)>,
    Query(params): Params,
    headers: HeaderMap,
    Json(asked): Json<DispatchBody>,
) -> Response {
    let mut world = app.world();
    let (repo, who) = match may_dispatch(&world, &headers, (&owner, &name), &asked.git_ref, &file) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let full = match asked.git_ref.starts_with("refs/") {
        true => asked.git_ref.clone(),
        false if repo.tags.contains_key(&asked.git_ref) => format!("refs/tags/{}", asked.git_ref),
        false => format!("refs/heads/{}", asked.git_ref),
    };
    let given = asked.inputs.unwrap_or_default();
    if let Some(missing) =
        repo.required.iter().find(|key| !given.contains_key(*key)).filter(|_| world.version.is_forgejo())
    {
        return refuse(StatusCode::BAD_REQUEST, &format!("input required for '{missing}'"));
    }
    let id = world.add_run(&repo, &file, &full, "workflow_dispatch", &who.login);
    let version = world.version;
    let Some(run) = world.run_mut(id) else { return not_found() };
    let mut inputs = given;
    inputs.retain(|key, _| repo.inputs.contains(key));
    run.dispatched.inputs = inputs;
    let run = run.dispatched.clone();
    drop(world);
    play(Arc::clone(&app), run.clone());
    let details = params.get("return_run_details").is_some_and(|wish| wish == "true" || wish == "1");
    match version {
        Version::Forgejo(_) if asked.return_run_info && version.has(Some(11), None) => {
            let info = json!({"id": run.id, "run_number": run.number, "jobs": repo.jobs});
            (StatusCode::CREATED, Json(info)).into_response()
        }
        Version::Gitea(_) if details && version.has(None, Some(26)) => {
            let base = base(&headers);
            let info = json!({
                "workflow_run_id": run.id,
                "run_url": format!("{base}/api/v1/repos/{}/actions/runs/{}", run.repo, run.id),
                "html_url": format!("{base}/{}/actions/runs/{}", run.repo, run.id),
            });
            Json(info).into_response()
        }
        Version::Forgejo(_) | Version::Gitea(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Everything that may stand in a dispatch's way, in each server's words.
fn may_dispatch(
    world: &World,
    headers: &HeaderMap,
    repo: (&str, &str),
    git_ref: &str,
    file: &str,
) -> Result<(Repo, Account), Refusal> {
    let (repo, who) = seen(world, headers, repo)?;
    let Some(who) = who else { return Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "token is required"))) };
    match obstacle(world.version, &repo, &who, git_ref, file) {
        Some(refusal) => Err(Box::new(refusal)),
        None => Ok((repo, who)),
    }
}

fn obstacle(version: Version, repo: &Repo, who: &Account, git_ref: &str, file: &str) -> Option<Response> {
    let forgejo = version.is_forgejo();
    // In production the servers say nothing about an error of their own.
    let silent = || refuse(StatusCode::INTERNAL_SERVER_ERROR, "");
    if !who.write {
        let message = "token does not have at least one of required scope(s): [write:repository]";
        return Some(refuse(StatusCode::FORBIDDEN, message));
    }
    if repo.archived {
        return Some(refuse(StatusCode::LOCKED, &format!("{} is archived", repo.full_name)));
    }
    if !repo.actions {
        let old = version == Version::Forgejo(11);
        return Some(if old { refuse(StatusCode::FORBIDDEN, "") } else { not_found() });
    }
    if git_ref.is_empty() {
        return Some(refuse(StatusCode::BAD_REQUEST, "ref is empty"));
    }
    if repo.commit(git_ref).is_none() {
        let known = git_ref.starts_with("refs/") || !forgejo;
        return Some(if known { not_found() } else { silent() });
    }
    if !repo.has_workflow(version, file) {
        return Some(if forgejo { silent() } else { not_found() });
    }
    if !repo.dispatchable && version.has(None, Some(26)) {
        let message = format!("workflow '{file}' has no 'workflow_dispatch' event trigger");
        return Some(refuse(StatusCode::UNPROCESSABLE_ENTITY, &message));
    }
    None
}

/// One page, newest first.
fn paged(mut values: Vec<Value>, params: &BTreeMap<String, String>, longest: usize) -> Response {
    let number = |key: &str, usual: usize| params.get(key).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (page, limit) = (number("page", 1).max(1), number("limit", 30).min(longest));
    let total = values.len();
    let rest = values.split_off(total.min((page - 1) * limit));
    let list: Vec<Value> = rest.into_iter().take(limit).collect();
    Json(json!({"workflow_runs": list, "total_count": total})).into_response()
}

pub(super) async fn runs(
    State(app): App,
    Path((owner, name)): Path<(String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    if !world.version.has(Some(12), Some(25)) {
        return unknown();
    }
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| {
        let base = base(&headers);
        let mine = world.runs.iter().rev().filter(|run| run.dispatched.repo == repo.full_name);
        paged(mine.map(|run| body::run(world.version, &base, run)).collect(), &params, world.longest_page)
    }))
}

pub(super) async fn run(
    State(app): App,
    Path((owner, name, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    if !world.version.has(Some(12), Some(25)) {
        return unknown();
    }
    answer(seen(&world, &headers, (&owner, &name)).map(
        |_| match world.runs.iter().find(|run| run.dispatched.id == id) {
            Some(run) => Json(body::run(world.version, &base(&headers), run)).into_response(),
            None => not_found(),
        },
    ))
}

pub(super) async fn jobs(
    State(app): App,
    Path((owner, name, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    if !world.version.has(Some(16), Some(25)) {
        return unknown();
    }
    answer(seen(&world, &headers, (&owner, &name)).map(|_| {
        let Some(run) = world.runs.iter().find(|run| run.dispatched.id == id) else { return not_found() };
        let jobs = body::jobs(world.version, &base(&headers), run);
        if world.version.is_forgejo() {
            return Json(jobs).into_response();
        }
        Json(json!({"total_count": jobs.len(), "jobs": jobs})).into_response()
    }))
}

pub(super) async fn cancel(
    State(app): App,
    Path((owner, name, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let mut world = app.world();
    if !world.version.has(Some(16), None) {
        return unknown();
    }
    match seen(&world, &headers, (&owner, &name)) {
        Ok((_, Some(who))) if who.write => {}
        Ok(_) => return refuse(StatusCode::FORBIDDEN, ""),
        Err(refusal) => return *refusal,
    }
    match world.run_mut(id) {
        Some(run) => {
            run.end("cancelled");
            StatusCode::NO_CONTENT.into_response()
        }
        None => not_found(),
    }
}

pub(super) async fn job_log(
    State(app): App,
    Path((owner, name, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    if !world.version.has(Some(16), Some(24)) {
        return unknown();
    }
    answer(seen(&world, &headers, (&owner, &name)).map(|_| {
        let run = world.runs.iter().find(|run| run.taken && run.dispatched.task + 5000 == id);
        let Some(run) = run else { return not_found() };
        let stamp = run.started.unwrap_or_default();
        run.log.iter().map(|line| format!("{stamp} {line}\n")).collect::<String>().into_response()
    }))
}

pub(super) async fn tasks(
    State(app): App,
    Path((owner, name)): Path<(String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, _)| {
        let base = base(&headers);
        let mine = world.runs.iter().rev().filter(|run| run.dispatched.repo == repo.full_name);
        paged(mine.flat_map(|run| body::tasks(&base, run)).collect(), &params, world.longest_page)
    }))
}

/// The jobs that wait or run, of those that a runner with these labels could take. Without labels there are none: the server
/// splits the empty text into one empty label, which no job asks for.
pub(super) async fn open_jobs(
    State(app): App,
    Path((owner, name)): Path<(String, String)>,
    Query(params): Params,
    headers: HeaderMap,
) -> Response {
    let world = app.world();
    if !world.version.has(Some(11), None) {
        return unknown();
    }
    answer(seen(&world, &headers, (&owner, &name)).map(|(repo, who)| {
        if !who.is_some_and(|who| who.owner) {
            return refuse(StatusCode::FORBIDDEN, "");
        }
        let labels: Vec<&str> = params.get("labels").map_or("", String::as_str).split(',').collect();
        let fits = |run: &&super::Run| run.labels.iter().all(|label| labels.contains(&label.as_str()));
        let mine = world.runs.iter().filter(|run| run.dispatched.repo == repo.full_name);
        let jobs = mine.filter(fits).flat_map(|run| body::jobs(world.version, "", run));
        let open = |job: &Value| matches!(job["status"].as_str(), Some("waiting" | "running"));
        let jobs: Vec<Value> = jobs.filter(open).collect();
        // Nothing is said as `null`, not as an empty list.
        if jobs.is_empty() { Json(Value::Null).into_response() } else { Json(jobs).into_response() }
    }))
}
