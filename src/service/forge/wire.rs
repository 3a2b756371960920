//! The JSON that the servers speak: only what is used, and lenient about the rest.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::run::{RunRef, RunState, RunView};
use crate::service::http::clean;

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    #[serde(default)]
    pub(super) archived: bool,
    /// Absent on servers too old to say it.
    #[serde(default)]
    pub(super) has_actions: Option<bool>,
    #[serde(default)]
    pub(super) permissions: Option<Permissions>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    pub(super) push: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Branch {
    pub(super) commit: Commit,
}

#[derive(Debug, Deserialize)]
pub(super) struct Commit {
    /// The hash; tags call it `sha`.
    #[serde(alias = "sha")]
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    #[serde(rename = "type", default)]
    pub(super) kind: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct User {
    #[serde(default)]
    pub(super) login: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Dispatch<'a> {
    #[serde(rename = "ref")]
    pub(super) git_ref: &'a str,
    pub(super) inputs: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) return_run_info: bool,
}

/// The answer to a dispatch: Forgejo's names, or Gitea's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Dispatched {
    #[serde(alias = "workflow_run_id")]
    pub(super) id: Option<u64>,
    pub(super) run_number: Option<u64>,
    pub(super) html_url: Option<String>,
    #[serde(default)]
    pub(super) jobs: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Runs<T> {
    #[serde(default = "Option::default")]
    pub(super) workflow_runs: Option<Vec<T>>,
    /// Of all pages.
    #[serde(default)]
    pub(super) total_count: Option<usize>,
}

/// A run as Forgejo tells it.
#[derive(Debug, Deserialize)]
pub(super) struct ForgejoRun {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) index_in_repo: u64,
    #[serde(default)]
    workflow_id: String,
    #[serde(default)]
    prettyref: String,
    #[serde(default)]
    commit_sha: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    event_payload: String,
    #[serde(default)]
    trigger_user: Option<User>,
    #[serde(default)]
    need_approval: bool,
    status: String,
    #[serde(default, deserialize_with = "moment")]
    created: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    started: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    stopped: Option<Timestamp>,
    #[serde(default)]
    html_url: String,
}

impl From<ForgejoRun> for RunView {
    fn from(run: ForgejoRun) -> Self {
        Self {
            run: RunRef { id: Some(run.id), number: Some(run.index_in_repo), url: page(&run.html_url) },
            state: RunState::from_word(&run.status),
            need_approval: run.need_approval,
            partial: false,
            event: run.event,
            workflow: run.workflow_id,
            branch: run.prettyref,
            commit: clean(&run.commit_sha),
            actor: run.trigger_user.map(|user| user.login),
            inputs: inputs(&run.event_payload),
            created: run.created,
            started: run.started,
            stopped: run.stopped,
        }
    }
}

/// A run as Gitea tells it.
#[derive(Debug, Deserialize)]
pub(super) struct GiteaRun {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) run_number: u64,
    /// `FILE@REF`.
    #[serde(default)]
    path: String,
    #[serde(default)]
    head_branch: String,
    #[serde(default)]
    head_sha: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    trigger_actor: Option<User>,
    status: String,
    #[serde(default)]
    conclusion: String,
    #[serde(default, deserialize_with = "moment")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    started_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    completed_at: Option<Timestamp>,
    #[serde(default)]
    html_url: String,
}

impl From<GiteaRun> for RunView {
    fn from(run: GiteaRun) -> Self {
        let file = run.path.split('@').next().unwrap_or_default();
        Self {
            run: RunRef { id: Some(run.id), number: Some(run.run_number), url: page(&run.html_url) },
            state: RunState::from_pair(&run.status, &run.conclusion),
            need_approval: false,
            partial: false,
            event: run.event,
            workflow: file.rsplit('/').next().unwrap_or(file).to_owned(),
            branch: run.head_branch,
            commit: clean(&run.head_sha),
            actor: run.trigger_actor.map(|user| user.login),
            inputs: None,
            created: run.created_at,
            started: run.started_at,
            stopped: run.completed_at,
        }
    }
}

/// A page's address as it may be shown.
pub(super) fn page(url: &str) -> Option<String> {
    let url = clean(url);
    (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
}

/// The inputs in a dispatch's payload, which is JSON inside a JSON string.
fn inputs(payload: &str) -> Option<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Payload {
        inputs: Option<BTreeMap<String, serde_json::Value>>,
    }
    let payload: Payload = serde_json::from_str(payload).ok()?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(payload.inputs?.into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// A time; the Unix epoch and Go's year 1 mean "not yet".
pub(super) fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.and_then(|text| text.parse::<Timestamp>().ok()).filter(|time| time.as_second() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_forgejo() {
        let run: ForgejoRun = serde_json::from_str(
            r#"{"id":123,"title":"Docker","workflow_id":"docker-publish.yml","index_in_repo":45,"ScheduleID":0,
            "trigger_user":{"login":"ops"},"prettyref":"main","commit_sha":"abc","need_approval":false,"approved_by":0,
            "event":"workflow_dispatch","event_payload":"{\"inputs\":{\"nonce\":\"n1\",\"push\":true}}",
            "trigger_event":"workflow_dispatch","status":"running","started":"1970-01-01T01:00:00+01:00",
            "stopped":"0001-01-01T00:00:00Z","created":"2026-11-23T10:00:00Z","duration":12000000000,
            "html_url":"https://git.example.net/o/r/actions/runs/45"}"#,
        )
        .unwrap();
        let view = RunView::from(run);
        assert_eq!(view.run.id, Some(123));
        assert_eq!(view.run.number, Some(45));
        assert_eq!(view.state, RunState::Running);
        assert_eq!((view.started, view.stopped), (None, None));
        assert!(view.created.is_some());
        let inputs = view.inputs.unwrap();
        assert_eq!(inputs.get("nonce").map(String::as_str), Some("n1"));
        assert_eq!(inputs.get("push").map(String::as_str), Some("true"));
    }

    #[test]
    fn a_run_of_gitea() {
        let run: GiteaRun = serde_json::from_str(
            r#"{"id":7,"run_number":3,"path":"docker-publish.yml@refs/heads/main","head_branch":"main","head_sha":"abc",
            "event":"workflow_dispatch","status":"completed","conclusion":"failure",
            "started_at":"2026-11-23T10:00:00Z","completed_at":"2026-11-23T10:01:00Z","html_url":"javascript:x"}"#,
        )
        .unwrap();
        let view = RunView::from(run);
        assert_eq!(view.workflow, "docker-publish.yml");
        assert_eq!(view.state, RunState::Failure);
        assert_eq!(view.run.url, None);
    }

    #[test]
    fn answers_to_a_dispatch() {
        let forgejo: Dispatched = serde_json::from_str(r#"{"id":123,"run_number":45,"jobs":["build"]}"#).unwrap();
        assert_eq!((forgejo.id, forgejo.run_number), (Some(123), Some(45)));
        let gitea: Dispatched = serde_json::from_str(r#"{"workflow_run_id":9,"run_url":"x","html_url":"y"}"#).unwrap();
        assert_eq!((gitea.id, gitea.run_number), (Some(9), None));
    }
}
