//! How the forge sees a runner: by its last call, which may be a minute old.
//!
//! *Offline* means that the runner has not called for 60 seconds, so a runner that has just died still counts as online:
//! the host's own account of its runner comes first, and this is asked beside it.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::target::repository;
use super::version::Product;
use super::{ForgeClient, VerifyError};
use crate::service::http::{HttpError, Method, Request};

/// How a runner stands, by its last call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// It has not called for a minute.
    Offline,
    /// It calls, and works on nothing.
    Idle,
    /// It works on a job.
    Active,
}

/// Forgejo: `offline`, `idle`, `active`. Gitea: `online` or `offline`, and `busy`.
#[derive(Debug, Deserialize)]
struct Row {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    busy: bool,
}

/// What is asked for at a time, and how many pages are read: a bound against a list that never ends.
const PAGE: usize = 50;
const PAGES: usize = 200;

#[derive(Debug, Deserialize)]
struct Rows {
    #[serde(default)]
    runners: Vec<Row>,
}

impl Row {
    fn state(&self) -> Option<RunnerState> {
        match (self.status.as_str(), self.busy) {
            ("offline", _) => Some(RunnerState::Offline),
            ("active", _) | ("online", true) => Some(RunnerState::Active),
            ("idle" | "online", _) => Some(RunnerState::Idle),
            _ => None,
        }
    }
}

impl ForgeClient {
    /// How a runner of a repository stands. `None`: this version does not list runners, the token may not see them, or
    /// none of that name (or more than one) is listed.
    pub(super) async fn runner_state(&self, repo: &str, name: &str) -> Result<Option<RunnerState>, VerifyError> {
        let (owner, repo) = repository(repo)?;
        let server = self.detect().await.map_err(VerifyError::asking)?;
        if !server.abilities().is_some_and(|abilities| abilities.runners) {
            return Ok(None);
        }
        // A runner may belong to the repository, to what owns it, or to the whole forge. Forgejo's first list has all of them.
        let at_repo = ["api", "v1", "repos", &owner, &repo];
        let at_org = ["api", "v1", "orgs", &owner];
        let levels: [&[&str]; 4] = [&at_repo, &at_org, &["api", "v1", "user"], &["api", "v1", "admin"]];
        for level in levels {
            let path = [level, &["actions", "runners"]].concat();
            let rows = match self.runners_at(&path, server.product, name).await {
                Ok(rows) => rows,
                // Only who owns the level may see its runners.
                Err(HttpError::Status(refusal)) if matches!(refusal.code, 401 | 403) => continue,
                Err(error) => return Err(VerifyError::Http(error)),
            };
            match rows.as_slice() {
                [] => {}
                [one] => return Ok(one.state()),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The runners of that name in one list, whatever its length.
    async fn runners_at(&self, path: &[&str], product: Product, name: &str) -> Result<Vec<Row>, HttpError> {
        let mut known = BTreeSet::new();
        let mut named: Vec<Row> = Vec::new();
        for page in 1..=PAGES {
            let request = Request::new(Method::Get, path).query("visible", "true");
            let request = request.query("page", &page).query("limit", &PAGE);
            let rows = match product {
                Product::Forgejo => self.get_if_there::<Vec<Row>>(&request).await?,
                Product::Gitea => self.get_if_there::<Rows>(&request).await?.map(|rows| rows.runners),
            };
            let before = known.len();
            for row in rows.unwrap_or_default() {
                if known.insert((row.id, row.name.clone())) && row.name == name {
                    named.push(row);
                }
            }
            // Nothing new ends the list: a short page does not, since a server may cap pages lower than asked.
            if known.len() == before {
                break;
            }
        }
        Ok(named)
    }
}
