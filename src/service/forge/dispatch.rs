//! Starting a run, and knowing which one it is.
//!
//! A dispatch is sent a second time only after its answer was lost *and* the list of runs shows no new one. A server that
//! shows a run only when a runner has taken it can never show that, so there a dispatch is sent once. Whether a run is
//! ours is decided by the server's answer, else by what was there before.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// An older run may still wait for a runner without being shown: the next one that shows may be that one.
    pub(super) queue: bool,
}

/// A dispatched run, and which jobs it has, where the server says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) run: RunRef,
    pub(super) jobs: Vec<String>,
    /// The labels that the workflow's jobs ask for, where they could be read.
    pub(super) labels: Vec<String>,
}

/// The server's clock counts whole seconds, and a run may be dated just before the answer that precedes it.
pub(super) const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

impl ForgeClient {
    /// Notes what is there before a dispatch.
    pub(super) async fn mark(&self, target: &Target, abilities: Abilities) -> Result<Mark, HttpError> {
        let (views, time) = self.recent(target, abilities).await?;
        let number = views.iter().filter_map(|view| view.run.number).max().unwrap_or(0);
        Ok(Mark { number, time, queue: false })
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
        let found = |run| Started { run, jobs: Vec::new(), labels: Vec::new() };
        // Where a run shows only when a runner has taken it, it is looked for until the step's own time is over.
        let by_tasks = abilities.runs == RunSource::Tasks;
        let usual = Some(self.config().look_for);
        let mut again = true;
        loop {
            let error = match self.post(target, inputs, abilities).await {
                Ok(Some(started)) => return Ok(started),
                Ok(None) => {
                    progress(Progress::Looking { reason: "the forge does not name it".to_owned() });
                    let patience = if by_tasks { None } else { usual };
                    return match self.find(target, inputs, abilities, mark, patience, progress).await? {
                        Some(run) => Ok(found(run)),
                        None => Err(untold("the dispatch was accepted, but no new run appeared")),
                    };
                }
                Err(error) if error.may_have_acted() => error,
                Err(error) => return Err(refused(error)),
            };
            progress(Progress::Looking { reason: error.to_string() });
            // A plain 500 is the servers' way to refuse; the others speak of the way to the server.
            let refusal = error.code() == Some(500);
            let patience = if by_tasks && !refusal { None } else { usual };
            if let Some(run) = self.find(target, inputs, abilities, mark, patience, progress).await? {
                return Ok(found(run));
            }
            if !again || refusal {
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
        Ok(Some(Started { run, jobs: said.jobs.unwrap_or_default(), labels: Vec::new() }))
    }

    /// Looks for the run that a dispatch started, for a bounded time (`None`: the caller's own). `None` means that the
    /// last look was a good one and showed no new run; not being able to look is an error.
    pub(super) async fn find(
        &self,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        abilities: Abilities,
        mark: Mark,
        patience: Option<Duration>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<RunRef>, VerifyError> {
        let began = Instant::now();
        let mut said = Duration::ZERO;
        let mut pause = self.config().poll_first;
        loop {
            let late = patience.is_some_and(|patience| began.elapsed() >= patience);
            match self.candidates(target, inputs, abilities, mark).await {
                Ok(found) => match found.as_slice() {
                    [] if late => return Ok(None),
                    [] => {}
                    [one] if mark.queue => {
                        let run = &one.run;
                        let why = format!("{run} appeared, but an older one may have waited for a runner before it");
                        return Err(untold(&why));
                    }
                    [one] => return Ok(Some(one.run.clone())),
                    many => return Err(untold(&format!("{} new runs look alike", many.len()))),
                },
                Err(error) if error.is_passing() && !late => {}
                // From here on a run may exist, so a refusal is no reason to say that nothing was started.
                Err(error) => return Err(untold(&format!("it cannot be looked for: {error}"))),
            }
            if patience.is_none() && began.elapsed() >= said + self.config().say_again {
                said = began.elapsed();
                progress(Progress::Untaken { since: said });
            }
            sleep(jittered(pause)).await;
            pause = (pause + pause / 2).min(self.config().poll_longest);
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
        // One that has all of our inputs outranks those of which the inputs are not told.
        let exact = |view: &RunView| {
            let has =
                |theirs: &BTreeMap<String, String>| inputs.iter().all(|(key, value)| theirs.get(key) == Some(value));
            !inputs.is_empty() && view.inputs.as_ref().is_some_and(has)
        };
        if views.len() > 1 && views.iter().any(exact) {
            views.retain(exact);
        }
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
