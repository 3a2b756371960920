//! The layer against a server that spoils its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request as Incoming;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use secrecy::SecretString;

use super::*;
use crate::sandbox::faults::{Fault, FaultKind, Server, Switchboard};

const TOKEN: &str = "test-token-http-0001";

async fn echo(request: Incoming) -> impl IntoResponse {
    let auth = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    axum::Json(serde_json::json!({"path": request.uri().path(), "auth": auth}))
}

/// A server that knows some tricks, and a client for it.
async fn server() -> (Server, Api) {
    let elsewhere = "http://localhost:9/next?token=test-token-in-query";
    let router = Router::new()
        .route("/moved", any(move || async move { (StatusCode::FOUND, [(header::LOCATION, elsewhere)]) }))
        .route("/big", any(|| async { "x".repeat(3000) }))
        .route("/text", any(|| async { "not \u{1b}[31mjson" }))
        .route("/page", any(|| async { (StatusCode::BAD_GATEWAY, "<html>secret page</html>") }))
        .route(
            "/classed",
            any(|| async {
                let body = r#"{"error":"TokenError","message":"bad token test-token-http-0001 \u001b[2J"}"#;
                (StatusCode::FORBIDDEN, body)
            }),
        )
        .route(
            "/issues",
            any(|| async {
                (StatusCode::UNPROCESSABLE_ENTITY, r#"{"error":"a b","message":[{"message":"too short"}]}"#)
            }),
        )
        .fallback(any(echo));
    let server = Server::start(router, Arc::new(Switchboard::default())).await.unwrap();
    let api = api(&server.url(), &Auth::Token(SecretString::from(TOKEN))).unwrap();
    (server, api)
}

fn config() -> Config {
    let ms = Duration::from_millis;
    let retry = RetryPolicy { attempts: 3, first: ms(1), longest: ms(4), longest_wish: ms(60) };
    Config { connect_timeout: ms(500), request_timeout: ms(300), max_body: 2000, retry }
}

fn api(url: &str, auth: &Auth) -> Result<Api, HttpError> {
    let service = Service { url: url.to_owned(), ca_file: None, token: None, client_id: None, client_secret: None };
    Api::new(&service, auth, config())
}

fn get(path: &str) -> Request {
    Request::new(Method::Get, &path.split('/').collect::<Vec<_>>()).query("key", "test-token-in-query")
}

async fn refused(api: &Api, path: &str) -> Refusal {
    match api.send(&get(path)).await {
        Err(HttpError::Status(refusal)) => *refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_path_is_escaped_and_the_credential_goes_along() {
    let (server, _) = server().await;
    let api = api(&format!("{}/forge/", server.url()), &Auth::Token(SecretString::from(TOKEN))).unwrap();
    let request = Request::new(Method::Get, &["a b", "c/d", "?x", "é"]);
    let reply: serde_json::Value = api.send(&request).await.unwrap().json().unwrap();
    assert_eq!(reply["path"], "/forge/a%20b/c%2Fd/%3Fx/%C3%A9");
    assert_eq!(reply["auth"], format!("token {TOKEN}"));
    let bearer = api.with_auth(&Auth::Bearer(SecretString::from("test-token-2"))).unwrap();
    let reply: serde_json::Value = bearer.send(&request).await.unwrap().json().unwrap();
    assert_eq!(reply["auth"], "Bearer test-token-2");
    let nobody = api.with_auth(&Auth::None).unwrap();
    let reply: serde_json::Value = nobody.send(&request).await.unwrap().json().unwrap();
    assert_eq!(reply["auth"], serde_json::Value::Null);
    assert!(server.switchboard().requests().len() == 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_query_not_shown() {
    let (_server, api) = server().await;
    let refusal = refused(&api, "moved").await;
    assert_eq!(refusal.code, 302);
    assert!(refusal.message.contains("http://localhost:9"), "{}", refusal.message);
    assert!(!refusal.to_string().contains("test-token"), "{refusal}");
}

#[tokio::test]
async fn what_a_server_says_is_cleaned_and_classed() {
    let (_server, api) = server().await;
    let refusal = refused(&api, "classed").await;
    assert_eq!(refusal.class.as_deref(), Some("TokenError"));
    assert_eq!(refusal.message, "bad token [secret] [2J");
    let refusal = refused(&api, "issues").await;
    assert_eq!((refusal.class.as_deref(), refusal.message.as_str()), (None, "too short"));
    let refusal = refused(&api, "page").await;
    assert_eq!((refusal.code, refusal.message.as_str()), (502, ""));
}

#[tokio::test]
async fn a_body_is_bounded_and_never_repeated() {
    let (_server, api) = server().await;
    let error = api.send(&get("big")).await.unwrap_err();
    assert!(matches!(error, HttpError::Malformed { .. }), "{error}");
    let error = api.send(&get("text")).await.unwrap().json::<serde_json::Value>().unwrap_err();
    assert!(error.to_string().ends_with("it is not JSON (line 1, column 2)"), "{error}");
}

#[tokio::test]
async fn errors_are_sorted_and_hold_no_secret() {
    let (server, api) = server().await;
    let spoil = |kind, times| server.switchboard().add(Fault::once("GET", "/spoiled", kind).times(times));
    let mut errors = Vec::new();
    spoil(FaultKind::Hang, 3);
    errors.push(("timeout", api.send(&get("spoiled")).await.unwrap_err()));
    spoil(FaultKind::Reset, 3);
    errors.push(("lost", api.send(&get("spoiled")).await.unwrap_err()));
    spoil(FaultKind::Truncate, 3);
    errors.push(("lost", api.send(&get("spoiled")).await.unwrap_err()));
    spoil(FaultKind::Status(404), 1);
    errors.push(("status", api.send(&get("spoiled")).await.unwrap_err()));
    let token = Auth::Token(SecretString::from(TOKEN));
    let tls = self::api(&server.url().replace("http:", "https:"), &token).unwrap();
    errors.push(("tls", tls.send(&get("x")).await.unwrap_err()));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = self::api(&format!("http://{free}"), &token).unwrap();
    errors.push(("unreachable", nobody.send(&get("x")).await.unwrap_err()));
    for (class, error) in &errors {
        let found = match error {
            HttpError::Timeout { .. } => "timeout",
            HttpError::Lost { .. } => "lost",
            HttpError::Status(_) => "status",
            HttpError::Tls { .. } => "tls",
            HttpError::Unreachable { .. } => "unreachable",
            _ => "other",
        };
        assert_eq!(found, *class, "{error:?}");
        let text = format!("{error} {error:?} {api:?}");
        assert!(!text.contains("test-token"), "{text}");
        assert!(text.contains("GET http"), "{text}");
    }
}

#[tokio::test]
async fn only_what_is_harmless_is_repeated() {
    for (method, kind, sent) in [
        (Method::Get, FaultKind::Status(503), 3),
        (Method::Get, FaultKind::Reset, 3),
        (Method::Get, FaultKind::Truncate, 3),
        (Method::Get, FaultKind::Status(404), 1),
        (Method::Post, FaultKind::Status(503), 1),
        (Method::Post, FaultKind::Reset, 1),
        (Method::Post, FaultKind::LoseReply, 1),
        (Method::Post, FaultKind::Busy(0), 3),
        (Method::Delete, FaultKind::Status(500), 1),
        (Method::Put, FaultKind::Status(500), 3),
    ] {
        let (server, api) = server().await;
        server.switchboard().add(Fault { method: None, path: "/x".to_owned(), skip: 0, times: 9, kind: kind.clone() });
        api.send(&Request::new(method, &["x"])).await.unwrap_err();
        assert_eq!(server.switchboard().requests().len(), sent, "{method:?} {kind:?}");
    }
    let (server, api) = server().await;
    server.switchboard().add(Fault::once("POST", "/x", FaultKind::Status(503)));
    api.send(&Request::new(Method::Post, &["x"]).repeatable()).await.unwrap();
    assert_eq!(server.switchboard().requests().len(), 2);
}

#[tokio::test]
async fn the_wish_of_a_busy_server_is_cut() {
    let (server, api) = server().await;
    server.switchboard().add(Fault::once("GET", "/x", FaultKind::Busy(3600)));
    let begin = Instant::now();
    api.send(&Request::new(Method::Get, &["x"])).await.unwrap();
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_millis(60) && waited < Duration::from_secs(60), "{waited:?}");
}

#[test]
fn what_cannot_be_set_up_says_so() {
    let error = api("http://127.0.0.1:1", &Auth::Bearer(SecretString::from("test-token\n"))).unwrap_err();
    assert!(matches!(error, HttpError::Setup { .. }) && !error.to_string().contains("test-token"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(dir.path().join("ca.pem")).unwrap();
    let service = |path: &camino::Utf8Path| Service {
        url: "https://git.example.net".to_owned(),
        ca_file: Some(path.to_owned()),
        token: None,
        client_id: None,
        client_secret: None,
    };
    for text in [None, Some(""), Some("hello"), Some("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = Api::new(&service(&path), &Auth::None, config()).unwrap_err();
        assert!(matches!(error, HttpError::CaFile { .. } | HttpError::Setup { .. }), "{text:?}: {error}");
    }
}

mod probing {
    use super::*;
    use crate::model::Http;

    fn http(server: &Server, path: &str, status: u16, contains: Option<&str>) -> Http {
        let url = format!("{}{path}?token=test-token-in-query", server.url());
        Http { url, status, contains: contains.map(str::to_owned), timeout: Duration::from_millis(300) }
    }

    #[tokio::test]
    async fn a_probe_compares_status_and_text() {
        let (server, _) = server().await;
        probe(&http(&server, "/x", 200, Some("\"path\":\"/x\""))).await.unwrap();
        probe(&http(&server, "/moved", 302, None)).await.unwrap();
        probe(&http(&server, "/page", 502, Some("secret page"))).await.unwrap();
        let error = probe(&http(&server, "/x", 204, None)).await.unwrap_err();
        assert!(matches!(error, ProbeError::Status { wanted: 204, found: 200, .. }), "{error}");
        let error = probe(&http(&server, "/x", 200, Some("absent"))).await.unwrap_err();
        assert!(matches!(error, ProbeError::Text { .. }), "{error}");
        assert!(!error.to_string().contains("test-token"), "{error}");
        assert!(!server.switchboard().requests().is_empty());
    }

    #[tokio::test]
    async fn a_probe_is_bounded_and_keeps_to_https() {
        let (server, _) = server().await;
        server.switchboard().add(Fault::once("GET", "/slow", FaultKind::Hang));
        let error = probe(&http(&server, "/slow", 200, None)).await.unwrap_err();
        assert!(matches!(error, ProbeError::Asking(HttpError::Timeout { .. })), "{error:?}");
        let mut plain = http(&server, "/x", 200, None);
        plain.url = "http://192.0.2.1/".to_owned();
        let error = probe(&plain).await.unwrap_err();
        assert!(matches!(error, ProbeError::Asking(HttpError::Address { .. })), "{error:?}");
    }
}
