//! Is every host on the new credential, and what goes from it? Asked before the operator is, and again when the run's lock is
//! held: what counts is the second answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::super::audit::judge::{Judge, Names, Report};
use super::super::audit::places::Places;
use super::super::session::Session;
use super::super::{CliError, audit};
use crate::journal::{HostPhase, RunPhase, RunState};
use crate::model::{Fingerprint, HostName, HostStatus, RemotePath, RunId};
use crate::plan::{PlannedHost, RunPlan};
use crate::remote::{Answer, CallError, Connect, CopiesVerb, Copy, Host, NoGate, Op};
use crate::step::Work;

/// A host that was seen on the new credential, and what goes from it.
pub(super) struct Ready {
    pub(super) name: HostName,
    /// The run as the host knows it.
    pub(super) run: RunId,
    pub(super) conn: Box<dyn Host>,
    pub(super) goes: Goes,
}

/// What goes from a host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Goes {
    /// The credentials that the run replaced: files held them.
    pub(super) old: Vec<Fingerprint>,
    /// Those that stood in environment files themselves. Whose they are nobody knows: their copies go, and none is revoked.
    pub(super) taken_out: Vec<Fingerprint>,
    pub(super) superseded: Vec<RemotePath>,
    pub(super) copies: Vec<Copy>,
}

impl Goes {
    /// Whether this is what was shown, apart from what copies grow older by.
    pub(super) fn is_as_shown(&self, shown: &Self) -> bool {
        let named = |goes: &Self| -> Vec<(String, String, Option<Fingerprint>)> {
            let copies = goes.copies.iter();
            copies.map(|copy| (copy.kind.clone(), copy.at.clone(), copy.fingerprint.clone())).collect()
        };
        (&self.old, &self.taken_out, &self.superseded, named(self))
            == (&shown.old, &shown.taken_out, &shown.superseded, named(shown))
    }

    /// Every credential of which copies go.
    pub(super) fn all_old(&self) -> Vec<Fingerprint> {
        self.old.iter().chain(&self.taken_out).cloned().collect()
    }
}

/// Why a retirement is refused, and whether that is since a host could not be reached.
pub(super) struct Refused {
    pub(super) reasons: Vec<String>,
    pub(super) unreachable: bool,
}

/// Hosts that the journal does not know on the new credential.
pub(super) fn not_new(plan: &RunPlan, state: &RunState) -> Vec<String> {
    let mut reasons = Vec::new();
    if !matches!(state.phase, RunPhase::Finished(_)) {
        reasons.push("it was cut off: settle it first (keyswap resume)".to_owned());
    }
    for (name, host) in &state.hosts {
        let status = host.result.as_ref().map(|result| result.status);
        let planned = plan.hosts.iter().any(|planned| planned.host.name == *name);
        match (host.phase, status) {
            (HostPhase::New, _) if planned => {}
            // It had nothing to do: it was on the new credential before.
            (HostPhase::Spared, Some(HostStatus::Ok)) if planned => {}
            (_, status) => {
                let word = status.map_or_else(|| format!("{:?}", host.phase), |status| status.to_string());
                reasons.push(format!("{name}: it is not known to be on the new credential ({word})"));
            }
        }
    }
    reasons
}

/// Lets go of the hosts.
pub(super) async fn close(ready: Vec<Ready>) {
    for host in ready {
        host.conn.close().await;
    }
}

/// What looking at hosts needs.
pub(super) struct Looking {
    connect: Arc<dyn Connect>,
    names: Names,
    run: RunId,
    /// The run was rebuilt from what its hosts recorded.
    recorded: bool,
    secrets: Vec<Fingerprint>,
    forks: usize,
}

impl Looking {
    pub(super) fn new(
        session: &Session,
        plan: &RunPlan,
        state: &RunState,
        forks: usize,
    ) -> Result<Arc<Self>, CliError> {
        Ok(Arc::new(Self {
            connect: session.connect(&plan.inventory)?,
            names: Names::of_runs(audit::from_runs(session)?),
            run: plan.on_hosts().clone(),
            recorded: plan.of.is_some(),
            secrets: state.secrets.values().cloned().collect(),
            forks,
        }))
    }

    /// Looks at every host; over the connections that there are, where they still are.
    pub(super) async fn all(
        self: &Arc<Self>,
        plan: &RunPlan,
        state: &RunState,
        earlier: Vec<Ready>,
    ) -> Result<Vec<Ready>, Refused> {
        let mut earlier: Vec<Option<Ready>> = earlier.into_iter().map(Some).collect();
        let permits = Arc::new(Semaphore::new(self.forks.max(1)));
        let mut tasks = tokio::task::JoinSet::new();
        for (at, planned) in plan.hosts.iter().cloned().enumerate() {
            let mut mine =
                earlier.iter_mut().filter(|host| host.as_ref().is_some_and(|host| host.name == planned.host.name));
            let conn = mine.next().and_then(Option::take).map(|host| host.conn);
            let spared = state.hosts.get(&planned.host.name).is_some_and(|host| host.phase == HostPhase::Spared);
            let (this, permits) = (Arc::clone(self), Arc::clone(&permits));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let name = planned.host.name.clone();
                let looked = this.one(&planned, conn, spared).await;
                (at, looked.map_err(|(why, unreachable)| (format!("{name}: {why}"), unreachable)))
            });
        }
        let mut looked = tasks.join_all().await;
        looked.sort_by_key(|(at, _)| *at);
        let (mut ready, mut refused) = (Vec::new(), Refused { reasons: Vec::new(), unreachable: false });
        for (_, host) in looked {
            match host {
                Ok(host) => ready.push(host),
                Err((why, lost)) => {
                    refused.reasons.push(why);
                    refused.unreachable |= lost;
                }
            }
        }
        if refused.reasons.is_empty() {
            return Ok(ready);
        }
        close(ready).await;
        Err(refused)
    }

    async fn one(
        &self,
        planned: &PlannedHost,
        conn: Option<Box<dyn Host>>,
        spared: bool,
    ) -> Result<Ready, (String, bool)> {
        if let Some(mut conn) = conn {
            match self.see(conn.as_mut(), planned, spared).await {
                Ok(goes) => return Ok(self.ready(planned, conn, goes)),
                // It was idle while somebody was asked.
                Err((_, true)) => conn.close().await,
                Err(why) => {
                    conn.close().await;
                    return Err(why);
                }
            }
        }
        let mut conn = self.connect.connect(&planned.host, &NoGate).await.map_err(|error| (error.to_string(), true))?;
        match self.see(conn.as_mut(), planned, spared).await {
            Ok(goes) => Ok(self.ready(planned, conn, goes)),
            Err(why) => {
                conn.close().await;
                Err(why)
            }
        }
    }

    fn ready(&self, planned: &PlannedHost, conn: Box<dyn Host>, goes: Goes) -> Ready {
        Ready { name: planned.host.name.clone(), run: self.run.clone(), conn, goes }
    }

    async fn see(&self, conn: &mut dyn Host, planned: &PlannedHost, spared: bool) -> Result<Goes, (String, bool)> {
        let lost = |error: CallError| (error.to_string(), matches!(error, CallError::Lost(_)));
        // A token that has ended is a reason to rotate again, and none to keep copies of the one before it.
        let judge = Judge { names: &self.names, now: Timestamp::MIN, within: std::time::Duration::ZERO };
        let places = match self.recorded {
            true => Places::of_recorded(&planned.plan, &self.run),
            false => Places::of_plan(&planned.plan),
        };
        let (_, report) = audit::look(conn, Some(places), &judge, &audit::Search::default()).await.map_err(lost)?;
        if !report.drift.is_empty() {
            return Err((format!("audit finds drift: {}", report.drift.join("; ")), false));
        }
        let old = old_of(planned, &self.secrets);
        let taken_out = taken_out_of(planned, (&old, &self.secrets));
        let superseded = superseded_of(planned, &report);
        let brings = match self.recorded {
            true => !self.secrets.is_empty(),
            false => planned.plan.steps.iter().any(|step| matches!(&step.work, Work::Act { data: Some(_), .. })),
        };
        // Of one that was rebuilt it is known that the run changed it.
        let spared = spared && !self.recorded;
        let mut goes = Goes { old, taken_out, superseded, copies: Vec::new() };
        let all_old = goes.all_old();
        on_the_new(brings, (&self.run, spared), &report, (&all_old, &self.secrets)).map_err(|why| (why, false))?;
        let (run, verb) = (self.run.clone(), CopiesVerb::Look);
        let op = Op::Copies { run, old: all_old, superseded: goes.superseded.clone(), verb };
        match conn.call(&op, None).await.map_err(lost)? {
            Answer::Copies(copies) => {
                goes.copies = copies;
                Ok(goes)
            }
            _ => Err(("the host answered another question".to_owned(), false)),
        }
    }
}

/// The credentials that the run replaced on a host.
fn old_of(planned: &PlannedHost, secrets: &[Fingerprint]) -> Vec<Fingerprint> {
    let before = planned.plan.credentials.iter().filter_map(|credential| credential.before.clone());
    let pointed = planned.plan.superseded.iter().map(|superseded| superseded.fingerprint.clone());
    let all: BTreeSet<Fingerprint> = before.chain(pointed).filter(|old| !secrets.contains(old)).collect();
    all.into_iter().collect()
}

/// The credentials that the run took out of environment files on a host.
fn taken_out_of(planned: &PlannedHost, (old, secrets): (&[Fingerprint], &[Fingerprint])) -> Vec<Fingerprint> {
    let all: BTreeSet<&Fingerprint> = planned.plan.taken_out.iter().collect();
    all.into_iter().filter(|one| !old.contains(one) && !secrets.contains(one)).cloned().collect()
}

/// Files that a pointer used to name, and that nothing names now.
fn superseded_of(planned: &PlannedHost, report: &Report) -> Vec<RemotePath> {
    let in_use = |path: &RemotePath| {
        report.credentials.iter().any(|credential| credential.path == path.as_str())
            || report.pointers.iter().any(|pointing| pointing.value.as_deref() == Some(path.as_str()))
            || report.processes.iter().any(|process| process.pointer.as_deref() == Some(path.as_str()))
    };
    let named = planned.plan.superseded.iter().map(|superseded| superseded.path.clone());
    named.filter(|path| !in_use(path)).collect()
}

/// Every credential file holds what the run brought, or what a later run brought after it.
fn on_the_new(
    brings: bool,
    (run, spared): (&RunId, bool),
    report: &Report,
    (old, secrets): (&[Fingerprint], &[Fingerprint]),
) -> Result<(), String> {
    let (last, phase) = (report.last.0.as_str(), report.last.1.as_str());
    if last == run.as_str() && phase != "new" {
        return Err(format!("the host says that the run is {phase}, not new"));
    }
    // A host names the run that it was changed by last: if it is not this one, it came later. (Where this one had nothing to do,
    // only the ids tell.) What a later run left was compared with that run's own digest: anything else would be drift. One that
    // was taken back left what this one brought.
    let later = phase == "new" && last != run.as_str() && (!spared || last > run.as_str());
    if report.credentials.is_empty() {
        return Err("no credential file is known here".to_owned());
    }
    for credential in &report.credentials {
        let Some(whole) = &credential.whole else { return Err(format!("{} is not there", credential.path)) };
        if old.contains(whole) {
            return Err(format!("{} still holds the old credential ({whole})", credential.path));
        }
        if brings && !later && !secrets.contains(whole) {
            return Err(format!("{} holds another credential ({whole})", credential.path));
        }
    }
    Ok(())
}
