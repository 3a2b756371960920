//! Looking at secrets as whoever holds a token. Their values are dropped with the answer, never taken from it.

use super::{Infisical, InfisicalError, get, wire};
use crate::service::http::Request;

/// Where secrets are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder<'a> {
    pub(super) project: &'a str,
    pub(super) environment: &'a str,
    pub(super) path: &'a str,
}

impl Folder<'_> {
    fn ask(&self, path: &[&str]) -> Request {
        let request = get(path).query("projectId", self.project).query("environment", self.environment);
        request.query("secretPath", self.path)
    }
}

impl Infisical {
    /// Whether a secret's value is shown (`true`), or only that it is there.
    ///
    /// With `value`, the value is asked for and dropped.
    pub(super) async fn secret(&self, at: Folder<'_>, name: &str, value: bool) -> Result<bool, InfisicalError> {
        let request = at.ask(&["api", "v4", "secrets", name]).query("viewSecretValue", &value);
        let seen: wire::OneSecret = self.send(&request).await?.json()?;
        if seen.secret.secret_key != name {
            return Err(InfisicalError::Odd("another secret came back".to_owned()));
        }
        Ok(!seen.secret.secret_value_hidden)
    }

    /// Path and name of everything that shows below a folder, its imports included.
    pub(super) async fn list(&self, at: Folder<'_>) -> Result<Vec<(String, String)>, InfisicalError> {
        let request = at.ask(&["api", "v4", "secrets"]).query("recursive", "true").query("viewSecretValue", "false");
        let listed: wire::Secrets = self.send(&request).await?.json()?;
        let mut all: Vec<(String, String)> = Vec::new();
        for secret in listed.secrets {
            all.push((secret.secret_path.unwrap_or_else(|| at.path.to_owned()), secret.secret_key));
        }
        for import in &listed.imports {
            let path = import.get("secretPath").and_then(serde_json::Value::as_str).unwrap_or("?");
            let secrets = import.get("secrets").and_then(serde_json::Value::as_array);
            let Some(secrets) = secrets else {
                return Err(InfisicalError::Odd("an import of another shape".to_owned()));
            };
            for secret in secrets {
                let key = secret.get("secretKey").and_then(serde_json::Value::as_str).unwrap_or("?");
                all.push((format!("import of {path}"), key.to_owned()));
            }
        }
        all.sort();
        Ok(all)
    }
}
