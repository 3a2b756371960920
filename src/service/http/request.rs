//! What is asked, and what comes back.

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{HttpError, clean};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PATCH`
    Patch,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

impl Method {
    pub(super) fn wire(self) -> reqwest::Method {
        match self {
            Self::Get => reqwest::Method::GET,
            Self::Head => reqwest::Method::HEAD,
            Self::Post => reqwest::Method::POST,
            Self::Patch => reqwest::Method::PATCH,
            Self::Put => reqwest::Method::PUT,
            Self::Delete => reqwest::Method::DELETE,
        }
    }
}

/// One request, below a server's base address.
pub struct Request {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    pub(super) repeatable: bool,
}

/// Without what may be a secret: the query and the body.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = format!("{} /{}", self.method.wire(), self.path.join("/"));
        f.debug_struct("Request").field("at", &at).field("repeatable", &self.repeatable).finish_non_exhaustive()
    }
}

impl Request {
    /// A request; each part of the path is one segment and is escaped. `GET`, `HEAD` and `PUT` may be repeated.
    #[must_use]
    pub fn new<S: AsRef<str>>(method: Method, path: &[S]) -> Self {
        Self {
            method,
            path: path.iter().map(|part| part.as_ref().to_owned()).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            repeatable: matches!(method, Method::Get | Method::Head | Method::Put),
        }
    }

    /// Adds a query parameter. No error ever shows it.
    #[must_use]
    pub fn query(mut self, key: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds a header that is no secret.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sets a JSON body, which is wiped after it was sent.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn json<T: Serialize>(mut self, value: &T) -> Result<Self, HttpError> {
        let body = serde_json::to_vec(value)
            .map_err(|_| HttpError::Setup { reason: "the request has no JSON form".to_owned() })?;
        self.body = Some(Zeroizing::new(body));
        Ok(self)
    }

    /// Says that sending this twice does no harm.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

/// A success.
pub struct Reply {
    pub(super) at: String,
    /// The status, 200 to 299.
    pub code: u16,
    /// The server's clock, to the second, as it stood at the answer.
    pub date: Option<Timestamp>,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Without what may be a secret: the headers and the body.
impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Reply");
        shown.field("at", &self.at).field("code", &self.code).field("date", &self.date).finish_non_exhaustive()
    }
}

impl Reply {
    /// The body, which may hold a secret.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(clean)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not what is looked for. The text never repeats a value of the body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Eof => "the JSON ends too early",
                serde_json::error::Category::Data => "the JSON has another shape",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
            };
            self.malformed(&format!("{what} (line {}, column {})", error.line(), error.column()))
        })
    }

    /// An error about this answer.
    #[must_use]
    pub fn malformed(&self, reason: &str) -> HttpError {
        HttpError::Malformed { at: self.at.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_in_debug_text() {
        let request = Request::new(Method::Post, &["api", "v1"]).query("code", "test-token-query");
        let request = request.json(&serde_json::json!({ "clientSecret": "test-token-body" })).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", reqwest::header::HeaderValue::from_static("test-token-cookie"));
        let body = Zeroizing::new(b"test-token-answer".to_vec());
        let reply = Reply { at: "POST https://x/api/v1".to_owned(), code: 200, date: None, headers, body };
        for text in [format!("{request:?} {reply:?}"), format!("{request:#?} {reply:#?}")] {
            assert!(text.contains("POST /api/v1") && text.contains("200"), "{text}");
            // Neither as text nor as numbers.
            assert!(!text.contains("test-token") && !text.contains("116"), "{text}");
        }
    }
}
