//! One small layer over HTTP for every server that keyswap talks to.
//!
//! What holds for all of them: TLS with the system's roots and, where given, a private CA beside them; plain `http`
//! only to loopback; no redirect is followed, so that a credential goes to no other host; no proxy is taken from the
//! environment; every request has a time limit and every answer a size limit; a request is repeated only where that
//! cannot act twice; and no error or log line holds a credential or a query string.

mod address;
mod error;
mod probe;
mod request;
mod retry;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use camino::Utf8PathBuf;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use self::address::{Address, shown};
pub use self::error::{HttpError, Refusal};
pub use self::probe::{ProbeError, probe};
pub use self::request::{Method, Reply, Request};
pub use self::retry::{RetryPolicy, jittered};
pub use self::text::clean;
use self::text::clean_without;
use crate::model::Service;

/// The limits that every request keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// For the connection, TLS included.
    pub connect_timeout: Duration,
    /// For one attempt of a request, from the connection to the last byte.
    pub request_timeout: Duration,
    /// The largest answer, in bytes.
    pub max_body: usize,
    /// When a request is repeated.
    pub retry: RetryPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(20),
            max_body: 4 * 1024 * 1024,
            retry: RetryPolicy::default(),
        }
    }
}

/// How a request proves who asks.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: token …`, as Forgejo and Gitea like it.
    Token(SecretString),
    /// `Authorization: Bearer …`.
    Bearer(SecretString),
    /// `Authorization: Basic …`, as a container registry asks for it.
    Basic {
        /// The user's name.
        user: String,
        /// The password, or a token in its place.
        secret: SecretString,
    },
}

/// A server, and the credential for it.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: reqwest::Url,
    auth: Option<HeaderValue>,
    secrets: Vec<SecretString>,
    config: Config,
    /// A private CA's certificates.
    ca_file: Option<Utf8PathBuf>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &shown(&self.base)).finish_non_exhaustive()
    }
}

impl Api {
    /// A client for a server of the inventory.
    ///
    /// # Errors
    /// When the address may not be used, the CA file cannot be read, or the credential fits into no header.
    pub fn new(service: &Service, auth: &Auth, config: Config) -> Result<Self, HttpError> {
        let address = Address::parse(&service.url, false)?;
        let ca_file = service.ca_file.clone();
        let client = client(address.plain, ca_file.as_deref(), &config, None)?;
        Self { client, base: address.url, auth: None, secrets: Vec::new(), config, ca_file }.with_auth(auth)
    }

    /// The same server, reached through a Unix socket that leads to it. Its name is checked as before.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn through(&self, socket: &Path) -> Result<Self, HttpError> {
        let client = client(self.is_plain(), self.ca_file.as_deref(), &self.config, Some(socket))?;
        Ok(Self { client, ..self.clone() })
    }

    /// Whether it is spoken to in clear: then it is a loopback address, and means this machine alone.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// The server's name and port.
    #[must_use]
    pub fn server(&self) -> (String, u16) {
        let name = self.base.host_str().unwrap_or_default();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        (bare.to_owned(), self.base.port_or_known_default().unwrap_or_default())
    }

    /// The same server with another credential.
    ///
    /// # Errors
    /// When the credential fits into no header.
    pub fn with_auth(&self, auth: &Auth) -> Result<Self, HttpError> {
        let (text, secret) = match auth {
            Auth::None => return Ok(Self { auth: None, ..self.clone() }),
            Auth::Token(secret) => (format!("token {}", secret.expose_secret()), secret),
            Auth::Bearer(secret) => (format!("Bearer {}", secret.expose_secret()), secret),
            Auth::Basic { user, secret } => {
                let pair = Zeroizing::new(format!("{user}:{}", secret.expose_secret()));
                (format!("Basic {}", Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes())).as_str()), secret)
            }
        };
        let text = Zeroizing::new(text);
        let bad =
            |_| HttpError::Setup { reason: "the credential holds characters that no header can carry".to_owned() };
        let mut header = HeaderValue::from_str(&text).map_err(bad)?;
        header.set_sensitive(true);
        let mut secrets = self.secrets.clone();
        secrets.push(secret.clone());
        Ok(Self { auth: Some(header), secrets, ..self.clone() })
    }

    /// The same client, which covers this secret too in whatever the server says: for one that travels in a body.
    #[must_use]
    pub fn covering(&self, secret: &SecretString) -> Self {
        let mut covering = self.clone();
        covering.secrets.push(secret.clone());
        covering
    }

    /// The server's base address.
    #[must_use]
    pub fn base(&self) -> String {
        shown(&self.base)
    }

    /// Sends a request, again where that is harmless, until there is an answer or the attempts are used up.
    ///
    /// # Errors
    /// Everything but a status from 200 to 299.
    pub async fn send(&self, request: &Request) -> Result<Reply, HttpError> {
        let mut sent = 0;
        loop {
            let error = match self.send_once(request).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            sent += 1;
            let Some(pause) = self.config.retry.pause(&error, request.repeatable, sent) else {
                return Err(error);
            };
            tracing::debug!(%error, ?pause, sent, "asking again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_once(&self, request: &Request) -> Result<Reply, HttpError> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(&request.path),
            Err(()) => return Err(HttpError::Address { reason: "it cannot hold a path".to_owned() }),
        };
        let at = format!("{} {}", request.method.wire(), shown(&url));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut builder = self.client.request(request.method.wire(), url);
        if let Some(auth) = &self.auth {
            builder = builder.header(AUTHORIZATION, auth);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(Bytes::from_owner(Wiped(body.clone())));
        }
        let mut response =
            builder.send().await.map_err(|error| HttpError::sort(&at, self.config.request_timeout, &error))?;
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let date = header(&headers, &DATE).and_then(retry::http_date);
        if !response.status().is_success() {
            // What the server says about a failure is a help, not a need: its absence changes nothing.
            let body = read_bounded(&mut response, &at, &self.config).await.unwrap_or_default();
            return Err(self.refusal(at, code, &headers, &body));
        }
        let body = read_bounded(&mut response, &at, &self.config).await?;
        Ok(Reply { at, code, date, headers, body })
    }

    fn refusal(&self, at: String, code: u16, headers: &HeaderMap, body: &[u8]) -> HttpError {
        let (class, mut message, details) = said(body);
        if (300..400).contains(&code) {
            let host = header(headers, &LOCATION)
                .and_then(|to| self.base.join(to).ok())
                .map_or_else(|| "elsewhere".to_owned(), |to| to.origin().ascii_serialization());
            message = format!("it redirects to {host}, which is not followed; give the final address");
        }
        let wish = header(headers, &RETRY_AFTER).and_then(|wish| retry::retry_after(wish, Timestamp::now()));
        let class = class.map(|class| clean_without(&class, &self.secrets));
        let message = clean_without(&message, &self.secrets);
        HttpError::Status(Box::new(Refusal { at, code, class, message, retry_after: wish, details }))
    }
}

/// Bytes that are wiped when the last user lets go of them.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The class, the words and the details in an error's body. Infisical's `message` is a list for some errors; its
/// `error` is a class only when it is one word.
fn said(body: &[u8]) -> (Option<String>, String, Option<serde_json::Value>) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let page = text.trim_start().starts_with('<');
        return (None, if page { String::new() } else { text.into_owned() }, None);
    };
    let word = |text: &&str| !text.is_empty() && text.len() <= 60 && text.chars().all(|c| c.is_ascii_alphanumeric());
    let class = value.get("error").and_then(serde_json::Value::as_str).filter(word).map(str::to_owned);
    let message = match value.get("message") {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Array(issues)) => {
            let texts = issues.iter().filter_map(|issue| issue.get("message").unwrap_or(issue).as_str());
            texts.collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    };
    (class, message, value.get("details").cloned())
}

async fn read_bounded(
    response: &mut reqwest::Response,
    at: &str,
    config: &Config,
) -> Result<Zeroizing<Vec<u8>>, HttpError> {
    let told = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // Reserved at once where the length is known, so that no half-grown copy of a secret is left behind.
    let mut body = Zeroizing::new(Vec::with_capacity(told.min(config.max_body)));
    while let Some(piece) =
        response.chunk().await.map_err(|error| HttpError::sort(at, config.request_timeout, &error))?
    {
        if body.len() + piece.len() > config.max_body {
            let reason = format!("it is larger than {} bytes", config.max_body);
            return Err(HttpError::Malformed { at: at.to_owned(), reason });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn client(
    plain: bool,
    ca_file: Option<&camino::Utf8Path>,
    config: &Config,
    socket: Option<&Path>,
) -> Result<reqwest::Client, HttpError> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .https_only(!plain)
        .referer(false)
        .user_agent(concat!("keyswap/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout)
        // Shorter than any server's patience: a request on a connection that the server has just closed is lost.
        .pool_idle_timeout(Duration::from_secs(4));
    if plain {
        // No TLS will be spoken, so a machine without system roots must not stand in the way.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = ca_file {
        builder = builder.tls_certs_merge(read_ca(path)?);
    }
    if let Some(socket) = socket {
        builder = builder.unix_socket(socket);
    }
    builder.build().map_err(|error| HttpError::sort("", config.request_timeout, &error))
}

fn read_ca(path: &camino::Utf8Path) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let bad = |reason: String| HttpError::CaFile { path: path.to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| bad("it is not PEM".to_owned()))?;
    if certs.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(certs)
}
