//! Under which names the forge keeps secrets and variables for a repository's jobs.
//!
//! Values of secrets cannot be read by anybody, and secrets of a user cannot be listed at all: what was not looked
//! at is said, so that nobody takes silence for absence.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::target::repository;
use super::{AuthProblem, ForgeClient, VerifyError};
use crate::model::Fingerprint;
use crate::service::http::{HttpError, Method, Request, clean};

/// Names that are stored, and what could not be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredNames {
    /// Each name and where it is stored (`secret of the repository`, …).
    pub names: Vec<(String, String)>,
    /// What the variables among them hold, which anybody with a job may read: by name, place and fingerprint.
    pub variables: Vec<(String, String, Fingerprint)>,
    /// Places that could not be looked at.
    pub unseen: Vec<String>,
}

impl StoredNames {
    /// Where a name is stored. The servers keep names in upper case.
    pub fn places<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |(stored, _): &&(String, String)| stored.eq_ignore_ascii_case(name);
        self.names.iter().filter(same).map(|(_, place)| place.as_str())
    }

    /// Which variables hold a credential, that is known by at least the first digits of its fingerprint.
    pub fn holders<'a>(&'a self, fingerprint: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let wanted = fingerprint.strip_prefix("sha256:").unwrap_or(fingerprint).to_ascii_lowercase();
        let holds = move |(_, _, held): &&(String, String, Fingerprint)| held.hex().starts_with(&wanted);
        self.variables.iter().filter(holds).map(|(name, place, _)| (name.as_str(), place.as_str()))
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
    /// A variable's value.
    #[serde(default)]
    data: Option<SecretString>,
}

/// A name in a list, and what it holds where the list says so.
type Entry = (String, Option<Fingerprint>);

const PAGE: usize = 50;
/// More than any forge keeps; a bound against a list that never ends.
const PAGES: usize = 100;

impl ForgeClient {
    /// Lists what a repository's jobs are given.
    pub(super) async fn names(&self, repo: &str) -> Result<StoredNames, VerifyError> {
        let (owner, name) = repository(repo)?;
        self.need_token()?;
        let mut stored = StoredNames::default();
        let at_repo = ["api", "v1", "repos", &owner, &name, "actions"];
        let at_org = ["api", "v1", "orgs", &owner, "actions"];
        // The repository's own secrets must be readable: without them there is nothing to say.
        match self.list(&at_repo, "secrets").await {
            Ok(Some(names)) => stored.add(names, "secret of the repository"),
            Ok(None) => return Err(VerifyError::Spec(format!("there is no repository `{repo}` with actions"))),
            Err(HttpError::Status(refusal)) if matches!(refusal.code, 401 | 403) => {
                return Err(VerifyError::Auth(AuthProblem::Refused { refusal, run: None }));
            }
            Err(error) => return Err(VerifyError::Http(error)),
        }
        for (base, kind, place) in [
            (&at_repo[..], "variables", "variable of the repository"),
            (&at_org[..], "secrets", "secret of the organisation"),
            (&at_org[..], "variables", "variable of the organisation"),
        ] {
            match self.list(base, kind).await {
                Ok(Some(names)) => stored.add(names, place),
                // The owner is a user, not an organisation.
                Ok(None) => {}
                Err(error) => stored.unseen.push(format!("{place}: {error}")),
            }
        }
        // Variables of a user are listed for himself alone; his secrets for nobody.
        let asked = self.get_if_there::<super::wire::User>(&Request::new(Method::Get, &["api", "v1", "user"])).await;
        let himself = asked.ok().flatten().is_some_and(|user| user.login.eq_ignore_ascii_case(&owner));
        let mut unlisted =
            "secrets of a user or of the whole forge, and variables of the whole forge: no call lists them";
        if himself {
            match self.list(&["api", "v1", "user", "actions"], "variables").await {
                Ok(names) => stored.add(names.unwrap_or_default(), "variable of the user"),
                Err(error) => stored.unseen.push(format!("variables of the user: {error}")),
            }
        } else {
            unlisted = "secrets and variables of a user or of the whole forge: no call lists them";
        }
        stored.unseen.push(unlisted.to_owned());
        Ok(stored)
    }

    /// All pages of a list of names. `None`: there is no such list.
    async fn list(&self, base: &[&str], kind: &str) -> Result<Option<Vec<Entry>>, HttpError> {
        let path = [base, &[kind]].concat();
        let mut names: Vec<Entry> = Vec::new();
        for page in 1..=PAGES {
            let request = Request::new(Method::Get, &path).query("page", &page).query("limit", &PAGE);
            let Some(rows) = self.get_if_there::<Option<Vec<Named>>>(&request).await? else { return Ok(None) };
            let rows = rows.unwrap_or_default();
            let before = names.len();
            for row in &rows {
                let name = clean(&row.name);
                if !names.iter().any(|(known, _)| *known == name) {
                    let held = row.data.as_ref().map(|data| Fingerprint::of(data.expose_secret().trim().as_bytes()));
                    names.push((name, held));
                }
            }
            // Nothing new ends the list: a short page does not, since a server may cap pages lower than asked.
            if names.len() == before {
                return Ok(Some(names));
            }
        }
        Err(HttpError::Malformed { at: format!("GET {}", path.join("/")), reason: "it never ends".to_owned() })
    }
}

impl StoredNames {
    fn add(&mut self, entries: Vec<Entry>, place: &str) {
        for (name, held) in entries {
            self.variables.extend(held.map(|held| (name.clone(), place.to_owned(), held)));
            self.names.push((name, place.to_owned()));
        }
    }
}
