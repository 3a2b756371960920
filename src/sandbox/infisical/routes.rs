//! The stand-in's addresses, in one table.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Shared;
use super::clock::iso;
use super::jwt::LONGEST;
use super::reply::{Ask, No, Said, bad_request, no_route, unauthorized, wrong_login};
use super::world::World;

const LARGEST: usize = 1024 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, LARGEST).await.unwrap_or_default();
    let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query: BTreeMap<String, String> = query.map(|(key, value)| (decoded(key), decoded(value))).collect();
    // A header's bytes are taken as they are: blanks at its end never arrive.
    let authorization = parts.headers.get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let method = parts.method.as_str().to_owned();
    let api_key = parts.headers.contains_key("x-api-key");
    let Ok(body) = body else {
        return No::new(500, "InternalServerError", "Something went wrong").respond();
    };
    let ask = Ask { method, target, query, authorization, body };
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut world = shared.world();
    let said = if api_key {
        Err(bad_request("API key authentication is not supported anymore. Please switch to identity authentication."))
    } else {
        open(&mut world, &ask, &path)
    };
    match said {
        Ok(value) => Json(value).into_response(),
        Err(no) => no.respond(),
    }
}

/// `%2F` and `+`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What needs no login.
fn open(world: &mut World, ask: &Ask, path: &[&str]) -> Said {
    match (ask.method.as_str(), path) {
        ("GET", ["api", "status"]) => Ok(json!({
            "date": iso(world.clock.now()), "message": "Ok", "emailConfigured": false, "inviteOnlySignup": true,
            "redisConfigured": true, "secretScanningConfigured": false, "auditLogStorageDisabled": false,
            "maxIdentityAccessTokenTTL": LONGEST,
        })),
        ("POST", ["api", "v1", "auth", "universal-auth", "login"]) => log_in(world, ask),
        ("POST", ["api", "v1", "auth", "token", "renew"]) => world.renew(ask.need("accessToken")?),
        ("POST", ["api", "v1", "auth", "token", "revoke"]) => revoke_own(world, ask),
        _ => closed(world, ask, path),
    }
}

fn log_in(world: &mut World, ask: &Ask) -> Said {
    let (client, secret) = (ask.need("clientId")?, ask.need("clientSecret")?);
    let found = world.identities.iter().find(|identity| {
        let auth = identity.universal_auth.as_ref().filter(|_| !identity.deleted);
        auth.is_some_and(|auth| auth.client_id == client && auth.secrets.iter().any(|own| own == secret))
    });
    let Some(identity) = found.cloned() else { return Err(unauthorized("Invalid credentials")) };
    let ttl = identity.universal_auth.as_ref().map_or(900, |auth| auth.ttl);
    let (value, _) = world.mint(&identity, None, ("universal-auth", ttl, ttl, 0));
    Ok(json!({"accessToken": value, "expiresIn": ttl, "accessTokenMaxTTL": ttl, "tokenType": "Bearer"}))
}

/// Whoever holds a token may end it. No listing says so afterwards.
fn revoke_own(world: &mut World, ask: &Ask) -> Said {
    let value = ask.need("accessToken")?.to_owned();
    let id = match world.read(&value, "Failed to authorize") {
        Ok(id) => Some(id),
        // Once more does no harm.
        Err(no) if no == unauthorized("Failed to authorize: token has been revoked") => None,
        Err(no) => return Err(no),
    };
    if let Some(token) = world.tokens.iter_mut().find(|token| Some(&token.id) == id.as_ref()) {
        token.revoked = true;
    }
    Ok(json!({"message": "Successfully revoked access token"}))
}

/// What needs a token.
fn closed(world: &mut World, ask: &Ask, path: &[&str]) -> Said {
    let ["api", version, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
    let method = ask.method.as_str();
    let handler: Option<Handler> = match (method, *version, rest) {
        ("GET", "v1", ["identities", "details"]) => Some(|world, _, who, _| {
            let org = world.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
            Ok(json!({"identityDetails": {"organization": world.org(&org)}}))
        }),
        (_, "v1" | "v2", ["identities", ..]) => Some(World::identities),
        (_, "v1", ["auth", "token-auth", "identities", ..]) => Some(World::token_auth),
        (_, "v1", ["auth", "token-auth", "tokens", ..]) => Some(World::tokens),
        (_, "v1", ["auth", "universal-auth", "identities", ..]) => Some(World::universal_auth),
        (_, "v1", ["projects", _, "identities", ..]) => Some(World::project_identities),
        (_, "v1", ["projects", _, "memberships", "identities", ..]) => Some(World::memberships),
        (_, "v1", ["projects", _, "permissions"]) | ("GET", "v1", ["organization", "permissions"]) => {
            Some(|_, ask, _, _| Err(wrong_login(&ask.target)))
        }
        // The console's own: a person's login alone is taken there.
        ("GET", "v1", ["dashboard", ..] | ["secrets", _, "access-list"]) => {
            Some(|_, ask, _, _| Err(wrong_login(&ask.target)))
        }
        (_, "v1", ["projects", ..]) | ("GET", "v1", ["workspace"]) => Some(World::projects),
        ("POST", "v2", ["workspace", _, "roles"]) => Some(World::projects),
        (_, "v2", ["identity-project-additional-privilege", ..]) => Some(World::privileges),
        ("GET", "v1", ["additional-privilege", "identity"]) => Some(World::privileges),
        (_, "v2", ["folders"]) => Some(World::folders),
        ("POST", "v2", ["secret-imports"]) | ("DELETE", "v2", ["secret-imports", _]) => Some(World::imports),
        (_, "v4", ["secrets", ..]) | ("GET", "v3", ["secrets", "raw", ..]) => Some(World::secrets),
        ("GET", "v1", ["admin", ..] | ["organization", "audit-logs" | "roles"])
        | ("GET", "v2", ["organizations", _, "identity-memberships"]) => Some(World::admin),
        _ => None,
    };
    let Some(handler) = handler else { return Err(no_route(method, &ask.target)) };
    let who = world.caller(ask.authorization.as_deref())?;
    handler(world, ask, &who, path)
}

/// World, request, caller and path.
type Handler = fn(&mut World, &Ask, &str, &[&str]) -> Said;
