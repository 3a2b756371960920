//! The playbook's `http` action: one question to a server, without a credential.

use reqwest::Method;

use super::address::{Address, shown};
use super::{Config, HttpError, client, read_bounded};
use crate::model::Http;

/// Why a probe did not find what it looked for.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The server could not be asked.
    #[error("the server could not be asked")]
    Asking(#[from] HttpError),
    /// Another status.
    #[error("{at}: answered {found} instead of {wanted}")]
    Status {
        /// Method and address.
        at: String,
        /// What the step wants.
        wanted: u16,
        /// What came.
        found: u16,
    },
    /// The text is not there.
    #[error("{at}: the answer does not hold the text that the step looks for")]
    Text {
        /// Method and address.
        at: String,
    },
}

/// Asks once. A redirect is an answer like any other: it is not followed, and its status is compared.
///
/// # Errors
/// When the server cannot be asked, or answers with another status or without the text.
pub async fn probe(http: &Http) -> Result<(), ProbeError> {
    let address = Address::parse(&http.url, true)?;
    let config = Config { request_timeout: http.timeout, connect_timeout: http.timeout, ..Config::default() };
    let client = client(address.plain, None, &config, None)?;
    let at = format!("GET {}", shown(&address.url));
    let sort = |error: reqwest::Error| HttpError::sort(&at, http.timeout, &error);
    let mut response = client.request(Method::GET, address.url).send().await.map_err(sort)?;
    let found = response.status().as_u16();
    if found != http.status {
        return Err(ProbeError::Status { at, wanted: http.status, found });
    }
    if let Some(text) = &http.contains {
        let body = read_bounded(&mut response, &at, &config).await?;
        if !String::from_utf8_lossy(&body).contains(text.as_str()) {
            return Err(ProbeError::Text { at });
        }
    }
    Ok(())
}
