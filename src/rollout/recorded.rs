//! Runs as the hosts themselves recorded them: for an operator who has no journal of the run.
//!
//! Hosts are only read here. What goes back is decided by what each host says of itself; its manifest adds what that host
//! would need to be mended by hand.

mod retirable;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Outcome;
use crate::engine::{About, Manifest, TokenNote};
use crate::journal::{HostPhase, ReopenCommand, RunPhase, RunState};
use crate::model::{Host, HostName, HostResult, HostStatus, Once, Rollout, RunId, StepStatus};
use crate::plan::{PlannedHost, RunPlan, VERSION};
use crate::remote::{self, Answer, CallError, Connect, HostFacts, NoGate, Op, RecordedRun};
use crate::step::{HostPlan, PlannedStep, Work};

pub use self::retirable::{NotRetirable, Retirable, retirable};

/// What the hosts of a run are told of it.
#[must_use]
pub fn about(plan: &RunPlan) -> About {
    let hosts = plan.hosts.iter().map(|planned| planned.host.name.clone()).collect();
    About { playbook: plan.playbook.clone(), digest: plan.digest(), hosts, token: None }
}

/// A host that was asked what it keeps.
pub struct Asked {
    /// Which.
    pub host: Host,
    answer: Result<Keeps, String>,
}

impl Asked {
    /// Why it did not answer.
    #[must_use]
    pub fn unreachable(&self) -> Option<&str> {
        self.answer.as_ref().err().map(String::as_str)
    }
}

/// What a host keeps.
struct Keeps {
    facts: HostFacts,
    runs: Vec<RecordedRun>,
    manifest: Option<Result<Manifest, String>>,
    conn: Option<Box<dyn remote::Host>>,
}

/// Asks every host what it keeps; `forks` at a time. Changes nothing.
pub async fn ask(connect: &Arc<dyn Connect>, hosts: Vec<Host>, forks: usize) -> Vec<Asked> {
    each(hosts, forks, |host| {
        let connect = Arc::clone(connect);
        async move {
            let answer = match connect.connect(&host, &NoGate).await {
                Ok(conn) => Keeps::ask(conn).await.map_err(|error| error.to_string()),
                Err(error) => {
                    Err(error.hint.as_ref().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")))
                }
            };
            Asked { host, answer }
        }
    })
    .await
}

/// Does something with each, side by side, and keeps their order. What panics is left out: it was not answered for.
async fn each<T, R, F, Fut>(items: Vec<T>, forks: usize, work: F) -> Vec<R>
where
    R: Send + 'static,
    F: Fn(T) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(forks.max(1)));
    let mut tasks = JoinSet::new();
    for (at, item) in items.into_iter().enumerate() {
        let (permits, work) = (Arc::clone(&permits), work(item));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (at, work.await)
        });
    }
    let mut done = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        done.extend(joined);
    }
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Keeps {
    async fn ask(mut conn: Box<dyn remote::Host>) -> Result<Self, CallError> {
        let facts = match conn.call(&Op::Hello, None).await? {
            Answer::Hello(facts) => *facts,
            _ => HostFacts::default(),
        };
        let runs = match conn.call(&Op::Recorded { run: None }, None).await? {
            Answer::Recorded(runs) => runs,
            _ => Vec::new(),
        };
        Ok(Self { facts, runs, manifest: None, conn: Some(conn) })
    }

    /// Asks for what it keeps of this one, and lets go of it.
    async fn recall(&mut self, run: &RunId) -> Result<(), CallError> {
        let Some(mut conn) = self.conn.take() else { return Ok(()) };
        if self.record(run).is_some() {
            let op = Op::Recorded { run: Some(run.clone()) };
            if let Answer::Recorded(found) = conn.call(&op, None).await? {
                let text = found.into_iter().find(|found| found.run == *run).and_then(|found| found.manifest);
                self.manifest = text.map(|text| Manifest::read(run, &text));
            }
        }
        conn.close().await;
        Ok(())
    }

    fn record(&self, run: &RunId) -> Option<&RecordedRun> {
        self.runs.iter().find(|record| record.run == *run)
    }

    fn unsettled(&self) -> bool {
        matches!(self.facts.phase.as_str(), "armed" | "undo" | "dirty")
    }

    /// How it stands in a run, if it knows that.
    fn word(&self, run: &RunId) -> Option<String> {
        if self.facts.run == run.as_str() {
            let by = if self.facts.by.is_empty() { "unknown" } else { &self.facts.by };
            let busy = if self.facts.busy { ", at work" } else { "" };
            return Some(format!("{}{busy} (by {by})", self.facts.phase));
        }
        let ended = self.record(run)?.ended.as_str();
        Some(if ["new", "old", "dirty"].contains(&ended) { ended } else { "not known" }.to_owned())
    }

    /// The runs that it knows, by their directories and by the name of its state.
    fn known(&self) -> impl Iterator<Item = RunId> {
        let held = self.facts.run.parse().ok();
        self.runs.iter().map(|record| record.run.clone()).chain(held)
    }
}

/// What each host says of each run that any of them knows, newest run first.
#[must_use]
pub fn history(asked: &[Asked]) -> Vec<(RunId, Vec<(HostName, String)>)> {
    let keeps = || asked.iter().filter_map(|asked| Some((&asked.host.name, asked.answer.as_ref().ok()?)));
    let known: BTreeSet<RunId> = keeps().flat_map(|(_, keeps)| keeps.known()).collect();
    let told = |run: &RunId| {
        let hosts = keeps().filter_map(|(name, keeps)| Some((name.clone(), keeps.word(run)?)));
        hosts.collect()
    };
    known.iter().rev().map(|run| (run.clone(), told(run))).collect()
}

/// Hosts that a run holds although its journal says that they were never touched: its last lines are gone. Hosts that
/// cannot be reached have nothing to say here.
pub async fn held_unseen(
    connect: &Arc<dyn Connect>,
    plan: &RunPlan,
    state: &RunState,
    forks: usize,
) -> Vec<HostResult> {
    if matches!(state.phase, RunPhase::Finished(_)) {
        return Vec::new();
    }
    let untouched = |name: &HostName| state.hosts.get(name).is_none_or(|host| host.phase == HostPhase::Untouched);
    let hosts = plan.hosts.iter().map(|planned| planned.host.clone()).filter(|host| untouched(&host.name));
    let asked = ask(connect, hosts.collect(), forks).await;
    let (run, own) = (plan.on_hosts(), &plan.run);
    let holds = |keeps: &Keeps| keeps.facts.run == run.as_str() && (keeps.unsettled() || keeps.facts.phase == "new");
    let unseen = asked.into_iter().filter(|asked| asked.answer.as_ref().is_ok_and(holds)).map(|asked| {
        let why =
            format!("the journal of run {own} was changed or cut: it knows nothing of this host, which the run holds");
        let mut result = result(&asked.host.name, HostStatus::Owed, why);
        let note = format!("the host knows the way back: keyswap resume {run} --back --from-hosts -i INVENTORY");
        result.notes.push(note);
        result
    });
    unseen.collect()
}

/// Why there is no run to take back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRun {
    /// No host was reached.
    #[error("no host could be reached")]
    NoAnswer,
    /// They keep nothing, or nothing of such a name.
    #[error("no host that was reached knows {}", .0.as_ref().map_or_else(|| "a run".to_owned(), |prefix| format!("a run whose id begins with `{prefix}`")))]
    Unknown(Option<String>),
    /// They keep several of such a name.
    #[error("`{prefix}` could be any of {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The ids that begin so, newest first, at most ten.
        candidates: Vec<String>,
    },
}

/// The run that is meant: the one whose id begins so, or the newest. One that still holds a host comes first where
/// something unsettled is looked for.
///
/// # Errors
/// When there is none, or more than one.
pub fn which(asked: &[Asked], command: ReopenCommand, prefix: Option<&str>) -> Result<RunId, NoRun> {
    let keeps = || asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
    if keeps().next().is_none() {
        return Err(NoRun::NoAnswer);
    }
    let known: BTreeSet<RunId> = keeps().flat_map(Keeps::known).collect();
    let Some(prefix) = prefix else {
        let holding = keeps().filter(|keeps| keeps.unsettled()).filter_map(|keeps| keeps.facts.run.parse().ok());
        let holding = holding.max().filter(|_| command != ReopenCommand::Rollback);
        return holding.or_else(|| known.last().cloned()).ok_or(NoRun::Unknown(None));
    };
    let fitting: Vec<RunId> = known.into_iter().filter(|run| run.as_str().starts_with(prefix)).collect();
    match fitting.as_slice() {
        [run] => Ok(run.clone()),
        [] => Err(NoRun::Unknown(Some(prefix.to_owned()))),
        several => {
            let candidates = several.iter().rev().take(10).map(ToString::to_string).collect();
            Err(NoRun::Ambiguous { prefix: prefix.to_owned(), candidates })
        }
    }
}

/// Asks each for what it keeps of a run, and lets go of it.
async fn manifests_of(asked: Vec<Asked>, run: &RunId, forks: usize) -> Vec<Asked> {
    each(asked, forks, |mut asked| {
        let run = run.clone();
        async move {
            if let Ok(keeps) = &mut asked.answer
                && let Err(error) = keeps.recall(&run).await
            {
                asked.answer = Err(error.to_string());
            }
            asked
        }
    })
    .await
}

/// What is to be done with the hosts of a run.
pub struct Recalled {
    /// Those that go back, and what is known of each.
    pub plan: RunPlan,
    /// The machine ids of those.
    pub machines: HashMap<HostName, String>,
    /// Where those keep their state.
    pub state_dirs: HashMap<HostName, String>,
    /// Those that stay as they are, and how they stand.
    pub stay: Vec<HostResult>,
    /// Those of them that could not be reached and may have been touched.
    pub owed: Vec<Host>,
    /// One of those is held by somebody else.
    pub held: bool,
    /// Those whose head is not in the journal that this machine has of the run.
    pub strange: Vec<HostName>,
    /// Who began the run, as the hosts tell.
    pub owner: String,
    /// Hosts of the run that were not among those asked.
    pub missing: Vec<HostName>,
    /// All of the run's hosts are known.
    pub all_told: bool,
    /// The token that was minted for the run; several, where hosts contradict each other.
    pub tokens: Vec<TokenNote>,
    /// Hosts that stay as they are and may hold what the run brought.
    pub may_hold: Vec<HostName>,
}

/// Asks the hosts for what they keep of a run, and sorts out what is to be done. `known` says whether a chain's head is
/// in the journal that this machine has of the run.
pub async fn recall(
    asked: Vec<Asked>,
    command: ReopenCommand,
    as_run: &RunId,
    run: &RunId,
    forks: usize,
    known: impl Fn(&str) -> bool,
) -> Recalled {
    let asked = manifests_of(asked, run, forks).await;
    let manifests = || {
        let keeps = asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
        keeps.filter_map(|keeps| keeps.manifest.as_ref()?.as_ref().ok())
    };
    let first = manifests().next();
    let (playbook, guard) = first.map_or_else(
        || ("not known".to_owned(), Rollout::default().guard),
        |manifest| (manifest.playbook.clone(), manifest.guard),
    );
    let members: BTreeSet<HostName> = manifests().flat_map(|manifest| manifest.hosts.iter().cloned()).collect();
    let all_told = first.is_some_and(|manifest| !manifest.hosts.is_empty());
    let answered: BTreeSet<HostName> = manifests().map(|manifest| manifest.host.clone()).collect();
    let owner = first.map_or_else(|| "unknown".to_owned(), |manifest| manifest.owner.clone());
    let mut recalled = Recalled {
        plan: plan_of(as_run, run, playbook, guard, forks),
        machines: HashMap::new(),
        state_dirs: HashMap::new(),
        stay: Vec::new(),
        owed: Vec::new(),
        held: false,
        strange: Vec::new(),
        owner,
        missing: Vec::new(),
        all_told,
        tokens: Vec::new(),
        may_hold: Vec::new(),
    };
    for token in manifests().filter_map(|manifest| manifest.token.as_ref()) {
        if !recalled.tokens.contains(token) {
            recalled.tokens.push(token.clone());
        }
    }
    let names: BTreeSet<&HostName> = asked.iter().map(|asked| &asked.host.name).collect();
    recalled.missing =
        members.iter().filter(|name| !answered.contains(*name) && !names.contains(name)).cloned().collect();
    let mut machines: HashMap<((String, String), String), HostName> = HashMap::new();
    for Asked { host, answer } in asked {
        let keeps = match answer {
            Ok(keeps) => keeps,
            // It may have been touched, and cannot be looked at.
            Err(why) => {
                let part = !all_told || members.contains(&host.name) && !answered.contains(&host.name);
                let status = if part { HostStatus::Owed } else { HostStatus::Unreachable };
                recalled.stay.push(result(&host.name, status, why));
                if part {
                    recalled.owed.push(host);
                }
                continue;
            }
        };
        let machine = keeps.facts.identity().map(|machine| (machine, keeps.facts.state_dir.clone()));
        if let Some(other) = machine.as_ref().and_then(|machine| machines.get(machine)) {
            let why = format!("{other} is the same machine, with the same state directory");
            recalled.stay.push(result(&host.name, HostStatus::Skipped, why));
            continue;
        }
        machines.extend(machine.map(|machine| (machine, host.name.clone())));
        let head = keeps.record(run).map_or("", |record| record.head.as_str());
        if !head.is_empty() && !known(head) {
            recalled.strange.push(host.name.clone());
        }
        let stands = stand(command, run, &keeps.facts, keeps.record(run));
        if stands != Stand::GoesBack && !is_rid_of(run, &keeps.facts, keeps.record(run)) {
            recalled.may_hold.push(host.name.clone());
        }
        match stands {
            Stand::GoesBack => {
                recalled.machines.insert(host.name.clone(), keeps.facts.machine);
                recalled.state_dirs.insert(host.name.clone(), keeps.facts.state_dir);
                recalled.plan.hosts.push(planned(host, keeps.manifest));
            }
            Stand::Stays(status, why) => recalled.stay.push(result(&host.name, status, why)),
            Stand::Held(why) => {
                recalled.held = true;
                recalled.stay.push(result(&host.name, HostStatus::Skipped, why));
            }
        }
    }
    recalled
}

/// A run rebuilt, without its hosts.
fn plan_of(as_run: &RunId, run: &RunId, playbook: String, guard: Option<Duration>, forks: usize) -> RunPlan {
    RunPlan {
        version: VERSION,
        run: as_run.clone(),
        of: Some(run.clone()),
        playbook,
        rollout: Rollout { guard, ..Rollout::default() },
        secrets: Vec::new(),
        services: crate::model::Services::default(),
        approval: Vec::new(),
        hosts: Vec::new(),
        forks,
        inventory: String::new(),
        inventory_files: Vec::new(),
    }
}

impl Recalled {
    /// How the hosts stand that stay as they are.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let failed = self.stay.iter().any(|result| result.status == HostStatus::Failed);
        Outcome { hosts: self.stay.clone(), failed, held: self.held, ..Outcome::default() }
    }
}

fn result(host: &HostName, status: HostStatus, reason: String) -> HostResult {
    HostResult {
        host: host.clone(),
        status,
        batch: 0,
        credentials: Vec::new(),
        reason: Some(reason),
        mend: Vec::new(),
        notes: Vec::new(),
    }
}

/// What the host's own record gives for the way back. Without a manifest the host still goes back: its undo is its own.
fn planned(host: Host, manifest: Option<Result<Manifest, String>>) -> PlannedHost {
    let manifest = match manifest {
        Some(Ok(manifest)) => manifest,
        without => {
            let why = without.and_then(Result::err).unwrap_or_else(|| "it keeps no manifest".to_owned());
            let notes = vec![format!("{why}: put back by the host's own list alone")];
            return PlannedHost { host, batch: 1, plan: HostPlan { notes, ..HostPlan::default() } };
        }
    };
    let steps = manifest.steps.into_iter().map(|id| PlannedStep {
        id,
        once: Once::Host,
        status: StepStatus::Skipped,
        detail: String::new(),
        diff: Vec::new(),
        retries: 0,
        drain: None,
        work: Work::Nothing,
    });
    let plan = HostPlan {
        steps: steps.collect(),
        undo: manifest.undo,
        credentials: manifest.credentials,
        superseded: manifest.superseded,
        taken_out: manifest.taken_out,
        ..HostPlan::default()
    };
    PlannedHost { host, batch: manifest.batch, plan }
}

/// What is to be done with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stand {
    GoesBack,
    Stays(HostStatus, String),
    Held(String),
}

/// Whether a host has nothing of what the run brought: it was put back, or never held the run.
fn is_rid_of(run: &RunId, facts: &HostFacts, record: Option<&RecordedRun>) -> bool {
    match facts.run == run.as_str() {
        true => facts.phase == "old",
        false => record.is_none_or(|record| !record.held || record.ended == "old"),
    }
}

/// What is to be done with a host, by what it says of itself and what it keeps of the run.
fn stand(command: ReopenCommand, run: &RunId, facts: &HostFacts, record: Option<&RecordedRun>) -> Stand {
    let rollback = command == ReopenCommand::Rollback;
    let old = || {
        let by = if facts.by_guard { " by the host's own guard" } else { "" };
        Stand::Stays(HostStatus::Ok, format!("run {run} was put back already{by}"))
    };
    let new = || {
        let why = format!("it is wholly new by run {run} and stays: keyswap rollback --from-hosts takes that back");
        if rollback { Stand::GoesBack } else { Stand::Stays(HostStatus::Ok, why) }
    };
    let by = if facts.by.is_empty() { "unknown" } else { &facts.by };
    if facts.run == run.as_str() {
        return match facts.phase.as_str() {
            "armed" if facts.busy => Stand::Held(format!("run {run} is at work on this host (by {by})")),
            "old" => old(),
            "new" => new(),
            // Armed and left, on its way back, dirty, or unlocked without being put back.
            _ => Stand::GoesBack,
        };
    }
    if matches!(facts.phase.as_str(), "armed" | "undo" | "dirty") {
        let why = format!("run {} holds this host ({}, by {by})", facts.run, facts.phase);
        return Stand::Held(why);
    }
    let Some(record) = record else {
        return Stand::Stays(HostStatus::Skipped, format!("it knows nothing of run {run}"));
    };
    match record.ended.as_str() {
        _ if !record.held => Stand::Stays(HostStatus::Skipped, format!("run {run} never held it")),
        "old" => Stand::Stays(HostStatus::Ok, format!("run {run} was put back already")),
        "new" if !rollback => new(),
        _ if facts.phase == "new" && facts.run.as_str() > run.as_str() => {
            let why = format!("run {} changed this host later; roll that one back first", facts.run);
            Stand::Stays(HostStatus::Failed, why)
        }
        _ => Stand::GoesBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_goes_back_only_if_it_is_this_runs_and_nobody_elses() {
        use ReopenCommand::{ResumeBack, Rollback};
        let run = |n: u8| -> RunId { format!("20260101-00000{n}-abcdef").parse().unwrap() };
        let facts = |phase: &str, of: u8, busy: bool| HostFacts {
            phase: phase.to_owned(),
            run: run(of).to_string(),
            busy,
            ..HostFacts::default()
        };
        let record = |held: bool, ended: &str| RecordedRun {
            run: run(5),
            held,
            ended: ended.to_owned(),
            head: String::new(),
            manifest: None,
        };
        let word = |stand: &Stand| match stand {
            Stand::GoesBack => "back",
            Stand::Held(_) => "held",
            Stand::Stays(status, _) => status.as_str(),
        };
        // The host's phase, the run it names (5 is the one that is asked for), whether that is at work, what the host
        // keeps of 5, and what is done by `rollback` and by `resume --back`.
        let table = [
            (facts("armed", 5, false), Some(record(true, "")), "back", "back"),
            (facts("armed", 5, true), Some(record(true, "")), "held", "held"),
            (facts("undo", 5, false), Some(record(true, "")), "back", "back"),
            (facts("dirty", 5, false), Some(record(true, "dirty")), "back", "back"),
            (facts("idle", 5, false), Some(record(true, "")), "back", "back"),
            (facts("new", 5, false), Some(record(true, "new")), "back", "ok"),
            (facts("old", 5, false), Some(record(true, "old")), "ok", "ok"),
            (facts("armed", 6, false), Some(record(true, "new")), "held", "held"),
            (facts("armed", 4, false), None, "held", "held"),
            (facts("old", 6, false), Some(record(true, "new")), "back", "ok"),
            (facts("old", 6, false), Some(record(true, "")), "back", "back"),
            (facts("new", 6, false), Some(record(true, "new")), "failed", "ok"),
            (facts("new", 6, false), Some(record(true, "old")), "ok", "ok"),
            (facts("new", 4, false), Some(record(false, "")), "skipped", "skipped"),
            (facts("none", 4, false), None, "skipped", "skipped"),
        ];
        for (facts, record, rollback, resume) in table {
            let said = |command| stand(command, &run(5), &facts, record.as_ref());
            assert_eq!((word(&said(Rollback)), word(&said(ResumeBack))), (rollback, resume), "{facts:?} {record:?}");
        }
    }
}
