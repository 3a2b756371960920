//! Starting a run, and knowing which one it is.
//!
//! A dispatch is sent a second time only after its answer was lost *and* no new run was found. Whether a run is
//! ours is decided by the server's answer, else by what was there before.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::run::{RunRef, RunState, RunView};
use super::target::Target;
use super::version::{Abilities, DispatchReply, RunSource};
use super::{AuthProblem, ForgeClient, Progress, VerifyError, wire};
use crate::service::http::{HttpError, Method, Request, clean, jittered};

/// What was there before the dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The highest number of a run.
    pub(super) number: u64,
    /// The server's clock.
    pub(super) time: Option<Timestamp>,
}

/// A dispatched run, and which jobs it has, where the server says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) run: RunRef,
    pub(super) jobs: Vec<String>,
}

/// The server's clock counts whole seconds, and a run may be dated just before the answer that precedes it.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

impl ForgeClient {
    /// Notes what is there before a dispatch.
    pub(super) async fn mark(&self, target: &Target, abilities: Abilities) -> Result<Mark, HttpError> {
        let (views, time) = self.recent(target, abilities).await?;
        let number = views.iter().filter_map(|view| view.run.number).max().unwrap_or(0);
        Ok(Mark { number, time })
    }

    /// The newest runs, newest first, and the server's clock.
    pub(super) async fn recent(
        &self,
        target: &Target,
        abilities: Abilities,
    ) -> Result<(Vec<RunView>, Option<Timestamp>), HttpError> {
        let list = match abilities.runs {
            RunSource::Forgejo | RunSource::Gitea => "runs",
            RunSource::Tasks => "tasks",
        };
        let request = Request::new(Method::Get, &target.path(&["actions", list])).query("limit", &50).query("page", &1);
        let reply = self.api().send(&request).await?;
        let views = match abilities.runs {
            RunSource::Forgejo => views::<wire::ForgejoRun>(reply.json()?),
            RunSource::Gitea => views::<wire::GiteaRun>(reply.json()?),
            RunSource::Tasks => super::tasks::by_run(reply.json()?),
        };
        Ok((views, reply.date))
    }

    /// Starts a run and says which.
    pub(super) async fn start(
        &self,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        abilities: Abilities,
        mark: Mark,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Started, VerifyError> {
        let mut again = true;
        loop {
            let error = match self.post(target, inputs, abilities).await {
                Ok(Some(started)) => return Ok(started),
                Ok(None) => {
                    progress(Progress::Looking { reason: "the forge does not name it".to_owned() });
                    return match self.find(target, inputs, abilities, mark).await? {
                        Some(run) => Ok(Started { run, jobs: Vec::new() }),
                        None => Err(untold("the dispatch was accepted, but no new run appeared")),
                    };
                }
                Err(error) if error.may_have_acted() => error,
                Err(error) => return Err(refused(error)),
            };
            progress(Progress::Looking { reason: error.to_string() });
            if let Some(run) = self.find(target, inputs, abilities, mark).await? {
                return Ok(Started { run, jobs: Vec::new() });
            }
            // A plain 500 is the servers' way to refuse; the others speak of the way to the server.
            if !again || error.code() == Some(500) {
                return Err(refused(error));
            }
            again = false;
        }
    }

    /// Sends one dispatch. `None`: accepted, and the run is not named.
    async fn post(
        &self,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        abilities: Abilities,
    ) -> Result<Option<Started>, HttpError> {
        let git_ref = target.git_ref.full();
        let body =
            wire::Dispatch { git_ref: &git_ref, inputs, return_run_info: abilities.reply == DispatchReply::RunInfo };
        let path = target.path(&["actions", "workflows", &target.file, "dispatches"]);
        let mut request = Request::new(Method::Post, &path).json(&body)?;
        if abilities.reply == DispatchReply::RunDetails {
            request = request.query("return_run_details", &true);
        }
        let reply = self.api().send(&request).await?;
        if reply.body().iter().all(u8::is_ascii_whitespace) || reply.body() == b"null" {
            return Ok(None);
        }
        let said: wire::Dispatched = reply.json()?;
        if said.id.is_none() && said.run_number.is_none() {
            return Ok(None);
        }
        let run = RunRef { id: said.id, number: said.run_number, url: said.html_url.as_deref().and_then(wire::page) };
        Ok(Some(Started { run, jobs: said.jobs.unwrap_or_default() }))
    }

    /// Looks for the run that a dispatch started, for a bounded time. `None` means that the last look was a good one
    /// and showed no new run; not being able to look is an error.
    pub(super) async fn find(
        &self,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        abilities: Abilities,
        mark: Mark,
    ) -> Result<Option<RunRef>, VerifyError> {
        let end = Instant::now() + self.config().look_for;
        loop {
            let late = Instant::now() >= end;
            match self.candidates(target, inputs, abilities, mark).await {
                Ok(found) => match found.as_slice() {
                    [] if late => return Ok(None),
                    [] => {}
                    [one] => return Ok(Some(one.run.clone())),
                    many => return Err(untold(&format!("{} new runs look alike", many.len()))),
                },
                Err(error) if error.is_passing() && !late => {}
                // From here on a run may exist, so a refusal is no reason to say that nothing was started.
                Err(error) => return Err(untold(&format!("it cannot be looked for: {error}"))),
            }
            sleep(jittered(self.config().poll_first)).await;
        }
    }

    /// The runs that may be ours. Several are narrowed to the token's own user, where that can be known.
    async fn candidates(
        &self,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        abilities: Abilities,
        mark: Mark,
    ) -> Result<Vec<RunView>, HttpError> {
        let (mut views, _) = self.recent(target, abilities).await?;
        views.retain(|view| is_candidate(view, target, inputs, mark));
        if views.len() > 1 {
            let request = Request::new(Method::Get, &["api", "v1", "user"]);
            if let Ok(user) = self.api().send(&request).await.and_then(|reply| reply.json::<wire::User>()) {
                views.retain(|view| view.actor.as_ref().is_none_or(|actor| *actor == user.login));
            }
        }
        Ok(views)
    }
}

fn is_candidate(view: &RunView, target: &Target, inputs: &BTreeMap<String, String>, mark: Mark) -> bool {
    let newer = view.run.number.is_some_and(|number| number > mark.number);
    let late = match (view.created, mark.time) {
        (Some(created), Some(before)) => created.duration_since(before) >= -CLOCK_SLACK,
        _ => true,
    };
    // Inputs that a workflow does not declare are dropped by the server: absent is no contradiction.
    let same_inputs = view
        .inputs
        .as_ref()
        .is_none_or(|theirs| inputs.iter().all(|(key, value)| theirs.get(key).is_none_or(|their| their == value)));
    newer && late && same_inputs && view.is_of(target)
}

impl RunView {
    /// Whether it is a dispatch of this workflow on this branch.
    pub(super) fn is_of(&self, target: &Target) -> bool {
        let branch = self.branch.as_str();
        let same_branch = branch.is_empty() || branch == target.git_ref.short || branch == target.git_ref.full();
        self.event == "workflow_dispatch" && self.workflow == target.file && same_branch
    }

    /// Whether it has come to an end.
    pub(super) fn is_final(&self) -> bool {
        RunState::is_final(&self.state)
    }
}

fn views<T: Into<RunView>>(runs: wire::Runs<T>) -> Vec<RunView> {
    runs.workflow_runs.unwrap_or_default().into_iter().map(Into::into).collect()
}

fn untold(reason: &str) -> VerifyError {
    VerifyError::Untold { reason: clean(reason) }
}

/// Sorts an error of the dispatch itself, when no run was started.
fn refused(error: HttpError) -> VerifyError {
    let HttpError::Status(refusal) = error else { return VerifyError::Http(error) };
    let usual = match refusal.code {
        401 | 403 => return VerifyError::Auth(AuthProblem::Refused { refusal, run: None }),
        423 => "the repository is archived",
        500 => "the server gives no reason; usually the workflow is no valid YAML or has too many inputs",
        _ => "the server gives no reason",
    };
    let reason = if refusal.message.is_empty() { usual.to_owned() } else { refusal.message };
    VerifyError::Refused { code: refusal.code, reason }
}
