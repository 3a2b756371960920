//! From a step to its verdict: look, dispatch, wait, judge; and when it gives up, leave as little as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::dispatch::{CLOCK_SLACK, Mark, Started};
use super::image::{Image, ImageProof, Pushed, compare};
use super::jobs::JobSeen;
use super::preflight::{Look, NONCE, Preflight};
use super::run::{RunRef, RunState, RunView};
use super::runners::RunnerState;
use super::target::Target;
use super::version::{Abilities, DispatchReply, RunSource, ServerVersion};
use super::{AuthProblem, ForgeClient, Leftover, NotReady, Progress, TimedOut, VerifyError, wire};
use crate::model::VerifyPublish;
use crate::service::http::{HttpError, Method, Request, jittered};

/// A verification that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The server and its version.
    pub server: String,
    /// The run.
    pub run: RunRef,
    /// The workflow's path.
    pub workflow: String,
    /// The full name of the branch or tag.
    pub git_ref: String,
    /// The commit that the run built.
    pub commit: String,
    /// When the run was made, by the server's clock.
    pub created: Option<Timestamp>,
    /// When a runner took it, by the server's clock.
    pub started: Option<Timestamp>,
    /// When it ended, by the server's clock.
    pub stopped: Option<Timestamp>,
    /// Its jobs, and on which runner they ran, as far as the server tells.
    pub jobs: Vec<JobSeen>,
    /// The image before and after, where the step names one.
    pub image: Option<ImageProof>,
    /// Things worth knowing.
    pub notes: Vec<String>,
}

/// In a line: the run, the image, the runner.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} succeeded", self.run)?;
        if let Some(proof) = &self.image {
            write!(f, " and pushed {}", proof.image)?;
            if let Some(digest) = &proof.after.digest {
                write!(f, " ({})", digest.chars().take(19).collect::<String>())?;
            }
        }
        let runners: BTreeSet<&str> = self.jobs.iter().filter_map(|job| job.runner.as_deref()).collect();
        if !runners.is_empty() {
            write!(f, " on {}", runners.into_iter().collect::<Vec<_>>().join(", "))?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// What is known so far; it outlives the work when that is cut short.
struct Flight<'a> {
    client: &'a ForgeClient,
    spec: &'a VerifyPublish,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    /// The inputs of the dispatch: the step's own, and a nonce where the workflow takes one.
    inputs: BTreeMap<String, String>,
    /// Set before a dispatch is sent.
    sent: Option<Sent>,
    run: Option<RunRef>,
    state: Option<RunState>,
    need_approval: bool,
}

/// What is needed to find or cancel a run that was dispatched.
#[derive(Clone)]
struct Sent {
    target: Target,
    abilities: Abilities,
    server: String,
    mark: Mark,
    /// The image will show whether something was published.
    image: bool,
}

impl ForgeClient {
    pub(super) async fn verify(
        &self,
        spec: &VerifyPublish,
        progress: &mut (dyn FnMut(Progress) + Send),
        cancel: &CancellationToken,
    ) -> Result<Published, VerifyError> {
        let deadline = Instant::now() + spec.timeout;
        let mut flight = Flight {
            client: self,
            spec,
            progress,
            inputs: spec.inputs.clone(),
            sent: None,
            run: None,
            state: None,
            need_approval: false,
        };
        let outcome = {
            let work = Box::pin(flight.fly());
            tokio::select! {
                biased;
                outcome = timeout_at(deadline, work) => outcome.map_err(|_| false),
                () = cancel.cancelled() => Err(true),
            }
        };
        match outcome {
            Ok(done) => done,
            Err(true) => Err(VerifyError::Interrupted { left: Box::pin(flight.give_up()).await }),
            Err(false) => {
                let left = Box::pin(flight.give_up()).await;
                let Flight { run, state, need_approval, .. } = flight;
                if left == Leftover::Unknown {
                    let waited = spec.timeout;
                    let reason = format!("no runner has taken it within {waited:?}, or it does not show");
                    return Err(VerifyError::Untold { reason });
                }
                Err(VerifyError::TimedOut(Box::new(TimedOut { run, state, need_approval, waited: spec.timeout, left })))
            }
        }
    }

    /// Looks at one run. `None`: it is not there.
    async fn view(
        &self,
        target: &Target,
        abilities: Abilities,
        started: &Started,
    ) -> Result<Option<RunView>, HttpError> {
        let id = started.run.id.map(|id| id.to_string());
        match (abilities.runs, &id) {
            (RunSource::Forgejo, Some(id)) => {
                let request = Request::new(Method::Get, &target.path(&["actions", "runs", id]));
                Ok(self.get_if_there::<wire::ForgejoRun>(&request).await?.map(Into::into))
            }
            (RunSource::Gitea, Some(id)) => {
                let request = Request::new(Method::Get, &target.path(&["actions", "runs", id]));
                Ok(self.get_if_there::<wire::GiteaRun>(&request).await?.map(Into::into))
            }
            _ => self.view_by_number(target, abilities, started).await,
        }
    }
}

impl Flight<'_> {
    async fn fly(&mut self) -> Result<Published, VerifyError> {
        let client = self.client;
        let Look { preflight, target, abilities, image, takes_nonce, labels } = client.look(self.spec).await?;
        if takes_nonce {
            self.inputs.entry(NONCE.to_owned()).or_insert_with(|| uuid::Uuid::new_v4().simple().to_string());
        }
        self.await_runner().await?;
        let mark = self.mark(&target, abilities, &labels, &preflight.server).await?;
        (self.progress)(Progress::Ready {
            server: preflight.server.to_string(),
            workflow: preflight.workflow.clone(),
            git_ref: preflight.git_ref.clone(),
            commit: preflight.commit.clone(),
        });
        let sent = Sent {
            target: target.clone(),
            abilities,
            server: preflight.server.to_string(),
            mark,
            image: image.is_some(),
        };
        self.sent = Some(sent.clone());
        let mut started = client.start(&target, &self.inputs, abilities, mark, self.progress).await?;
        started.labels = labels;
        self.run = Some(started.run.clone());
        (self.progress)(Progress::Dispatched { run: started.run.clone() });
        let view = self.watch(&sent, &started).await?;
        let proof = match image {
            Some((image, before)) => Some(self.prove(&image, before, &view).await?),
            None => None,
        };
        let mut published = published(&preflight, view.clone(), proof);
        match client.jobs_of(&target, preflight.server.product, abilities, &view).await {
            Ok(jobs) => published.jobs = jobs,
            Err(error) => published.notes.push(format!("it is not known on which runner it ran: {error}")),
        }
        Ok(published)
    }

    /// Waits until the forge sees the runner that the step names, where it tells: a run that no runner takes would only be
    /// waited for until the step's time is over.
    async fn await_runner(&mut self) -> Result<(), VerifyError> {
        if let Some(runner) = &self.spec.runner {
            // Where it does not tell, the runner's host may: that is not asked here.
            let _ = self.client.back(&self.spec.repo, runner, self.progress).await?;
        }
        Ok(())
    }

    /// Notes what is there before the dispatch, and whether an older run may wait without being shown.
    async fn mark(
        &mut self,
        target: &Target,
        abilities: Abilities,
        labels: &[String],
        server: &ServerVersion,
    ) -> Result<Mark, VerifyError> {
        let client = self.client;
        let asked = async || client.mark(target, abilities).await.map_err(VerifyError::asking);
        let mut mark = asked().await?;
        if abilities.runs != RunSource::Tasks {
            return Ok(mark);
        }
        if abilities.reply != DispatchReply::Silent {
            // The run is looked for only if the answer gets lost.
            mark.queue = !matches!(client.open_jobs(target, labels).await, Ok(Some(0)));
            return Ok(mark);
        }
        // A runner that was idle all the time has nothing waiting for it: it would have taken it.
        let (began, config) = (Instant::now(), client.config());
        let (mut since, mut said) = (Instant::now(), false);
        let runner = self.spec.runner.as_deref().unwrap_or_default();
        loop {
            let state = client.runner_state(&self.spec.repo, runner).await;
            let now = asked().await?;
            if !matches!(state, Ok(Some(RunnerState::Idle))) || now.number != mark.number {
                since = Instant::now();
                if !std::mem::replace(&mut said, true) {
                    (self.progress)(Progress::Unquiet);
                }
            }
            mark = now;
            if since.elapsed() >= config.quiet {
                return Ok(mark);
            }
            if began.elapsed() >= config.runner_back {
                let why = match state {
                    Ok(Some(_)) => format!("the runner {runner} was never idle for {:?}", config.quiet),
                    _ => format!("it does not tell whether the runner {runner} is idle"),
                };
                return Err(VerifyError::NotReady(NotReady::Unquiet { version: server.to_string(), why }));
            }
            sleep(jittered(config.poll_first)).await;
        }
    }

    /// Waits for the run's end.
    async fn watch(&mut self, sent: &Sent, started: &Started) -> Result<RunView, VerifyError> {
        let config = self.client.config();
        let (mut pause, mut missing, mut silent) = (config.poll_first, 0, false);
        let (mut since, mut said) = (Instant::now(), Duration::ZERO);
        loop {
            match self.client.view(&sent.target, sent.abilities, started).await {
                Ok(Some(view)) => {
                    (missing, silent) = (0, false);
                    if self.note(&view) {
                        (pause, since, said) = (config.poll_first, Instant::now(), Duration::ZERO);
                    }
                    if view.is_final() && (!view.partial || since.elapsed() >= config.settle) {
                        return judge(view, sent);
                    }
                    let (run, state) = (view.run, view.state);
                    if since.elapsed() >= said + config.say_again {
                        said = since.elapsed();
                        (self.progress)(Progress::Still { run, state, since: said });
                    }
                }
                // Right after the dispatch a replica may not know the run yet; later it was deleted.
                Ok(None) if missing < 3 => missing += 1,
                Ok(None) => return Err(VerifyError::Gone { run: self.known(started) }),
                Err(HttpError::Status(refusal)) if matches!(refusal.code, 401 | 403) => {
                    let run = Some(Box::new(self.known(started)));
                    return Err(VerifyError::Auth(AuthProblem::Refused { refusal, run }));
                }
                Err(error) => {
                    if !silent {
                        (self.progress)(Progress::Unanswered { reason: error.to_string() });
                    }
                    silent = true;
                }
            }
            sleep(jittered(pause)).await;
            pause = (pause * 3 / 2).min(config.poll_longest);
        }
    }

    /// Looks at the image after the run.
    async fn prove(
        &mut self,
        image: &Image,
        before: Option<Pushed>,
        view: &RunView,
    ) -> Result<ImageProof, VerifyError> {
        let unverified = |reason| VerifyError::Unverified { run: view.run.clone(), reason };
        loop {
            match self.client.pushed(image).await {
                Ok(after) => {
                    let by = self.spec.pushed_by.as_deref();
                    let proof = compare(image, before, after, by, view).map_err(unverified)?;
                    let served = self.client.served(image).await;
                    return proof.seen_by_the_registry(served).map_err(unverified);
                }
                Err(error) if error.is_passing() => {
                    (self.progress)(Progress::Unanswered { reason: error.to_string() });
                }
                Err(error) => return Err(unverified(format!("`{image}` cannot be looked at: {error}"))),
            }
            sleep(jittered(self.client.config().poll_longest)).await;
        }
    }

    /// Takes over what a look has shown, and says so when it is new.
    fn note(&mut self, view: &RunView) -> bool {
        let news = self.state.as_ref() != Some(&view.state) || self.need_approval != view.need_approval;
        self.run = Some(view.run.clone());
        self.state = Some(view.state.clone());
        self.need_approval = view.need_approval;
        if news {
            let (run, state) = (view.run.clone(), view.state.clone());
            (self.progress)(Progress::State { run, state, need_approval: view.need_approval });
        }
        news
    }

    fn known(&self, started: &Started) -> RunRef {
        self.run.clone().unwrap_or_else(|| started.run.clone())
    }

    /// Ends what was started, where that can be done, and says what is left. Bounded by itself.
    async fn give_up(&mut self) -> Leftover {
        let Some(sent) = self.sent.clone() else { return Leftover::Nothing };
        let run = self.run.clone();
        let limit = self.client.config().give_up;
        let work = async {
            let run = match run {
                Some(run) => run,
                // The dispatch was under way: its run is looked for, once more and not for long.
                None => {
                    let patience = Some(self.client.config().look_for);
                    let (target, abilities) = (&sent.target, sent.abilities);
                    let mut silent = |_: Progress| {};
                    let found =
                        self.client.find(target, &self.inputs, abilities, sent.mark, patience, &mut silent).await;
                    match found {
                        Ok(Some(run)) => run,
                        Ok(None) | Err(_) => return Leftover::Unknown,
                    }
                }
            };
            self.run = Some(run.clone());
            self.client.end(&sent, run).await
        };
        match timeout(limit, Box::pin(work)).await {
            Ok(left) => left,
            Err(_) => match self.run.clone() {
                Some(run) => Leftover::Running { run, reason: "the forge does not answer".to_owned() },
                None => Leftover::Unknown,
            },
        }
    }
}

impl ForgeClient {
    /// Waits until the forge sees a runner, where it tells. What cannot be asked does not stand in the way, and is told: the
    /// run itself will show it.
    pub(crate) async fn back(
        &self,
        repo: &str,
        runner: &str,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<String>, VerifyError> {
        let (began, limit) = (Instant::now(), self.config().runner_back);
        let mut said = false;
        loop {
            match self.runner_state(repo, runner).await {
                Ok(Some(RunnerState::Offline)) => {}
                Ok(Some(_)) => return Ok(None),
                Ok(None) => return Ok(Some(format!("the forge does not tell whether the runner {runner} is back"))),
                Err(error) => {
                    return Ok(Some(format!("the forge was not asked whether the runner {runner} is back: {error}")));
                }
            }
            if began.elapsed() >= limit {
                let runner = runner.to_owned();
                return Err(VerifyError::NotReady(NotReady::RunnerOffline { runner, waited: limit }));
            }
            if !std::mem::replace(&mut said, true) {
                progress(Progress::RunnerOffline { runner: runner.to_owned() });
            }
            sleep(jittered(self.config().poll_first)).await;
        }
    }

    async fn end(&self, sent: &Sent, run: RunRef) -> Leftover {
        let left = |run, reason: String| Leftover::Running { run, reason };
        let Some(id) = run.id.filter(|_| sent.abilities.cancel) else {
            return left(run, format!("{} has no call to cancel a run", sent.server));
        };
        let path = ["actions", "runs", &id.to_string(), "cancel"];
        let request = Request::new(Method::Post, &sent.target.path(&path)).repeatable();
        if let Err(error) = self.api().send(&request).await {
            return left(run, format!("cancelling it failed: {error}"));
        }
        let started = Started { run: run.clone(), jobs: Vec::new(), labels: Vec::new() };
        match self.view(&sent.target, sent.abilities, &started).await {
            Ok(Some(view)) if view.state == RunState::Cancelled => Leftover::Cancelled(run),
            Ok(Some(view)) if view.is_final() => Leftover::Ended { run, state: view.state },
            Ok(_) => left(run, "cancelling was accepted, but it is not shown as cancelled yet".to_owned()),
            Err(error) => left(run, format!("cancelling was accepted, but it cannot be looked at: {error}")),
        }
    }
}

/// A finished run's verdict.
fn judge(view: RunView, sent: &Sent) -> Result<RunView, VerifyError> {
    if view.run.number.is_some_and(|number| number <= sent.mark.number) {
        let reason = format!("{} was there before the dispatch", view.run);
        return Err(VerifyError::Untold { reason });
    }
    // Neither the run nor a job of it may be older than the question: our runner was restarted before that.
    let early = |time: Option<Timestamp>| matches!((time, sent.mark.time), (Some(time), Some(mark)) if time < mark - CLOCK_SLACK);
    if early(view.started) || early(view.stopped) {
        let reason = format!("{} ran before the dispatch", view.run);
        return Err(VerifyError::Untold { reason });
    }
    if !view.is_of(&sent.target) {
        let reason = format!("{} is of another workflow, branch or event", view.run);
        return Err(VerifyError::Untold { reason });
    }
    match view.state {
        // A new push of the image shows what the list of jobs cannot.
        RunState::Success if view.partial && !sent.image => {
            let reason = format!(
                "{} shows only jobs that a runner has taken, so it cannot be told that all have ended; give `image`",
                sent.server
            );
            Err(VerifyError::Unverified { run: view.run, reason })
        }
        RunState::Success => Ok(view),
        _ => Err(VerifyError::Ended { run: view.run, state: view.state }),
    }
}

fn published(preflight: &Preflight, view: RunView, image: Option<ImageProof>) -> Published {
    let mut notes = preflight.notes.clone();
    if let Some(Err(why)) = image.as_ref().map(|proof| &proof.served) {
        notes.push(format!("the image is in the forge's list; the registry itself could not be asked: {why}"));
    }
    if view.partial {
        notes.push("the server does not show whether all jobs have ended; the image was pushed".to_owned());
    }
    if view.commit != preflight.commit {
        notes.push("the branch moved between the look and the dispatch".to_owned());
    }
    Published {
        server: preflight.server.to_string(),
        run: view.run,
        workflow: preflight.workflow.clone(),
        git_ref: preflight.git_ref.clone(),
        commit: view.commit,
        created: view.created,
        started: view.started,
        stopped: view.stopped,
        jobs: Vec::new(),
        image,
        notes,
    }
}
