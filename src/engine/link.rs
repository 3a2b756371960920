//! A saga's link to its host: taken up again after a run was cut off, looked at after a long wait, and made anew.
//!
//! What an earlier look or wait has shown counts only where the host is still the same and still this run's, or nobody's.

use std::time::Duration;

use super::reach::reach;
use super::saga::{Saga, Stop, StopKind};
use super::settle::PUT_BACK_BY_GUARD;
use super::{Patience, Shared};
use crate::journal::{HostPhase, HostState, Record};
use crate::model::Host;
use crate::remote::{Answer, CallError, Gate, HostFacts, NoGate, Op, UnreachableKind};
use crate::step::{HostPlan, digest_of};

/// What the journal says of a host whose run was cut off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// It was asked to hold the run; the request may or may not have arrived, and may still be on its way.
    pub asked: bool,
    /// It said that it holds the run's way back.
    pub prepared: bool,
}

impl Known {
    /// By the host's last records.
    #[must_use]
    pub fn of(host: &HostState) -> Self {
        Self { asked: host.phase != HostPhase::Untouched, prepared: host.undo_digest.is_some() }
    }
}

/// After so long without a request a link may be dead without anybody having noticed.
const IDLE: Duration = Duration::from_secs(5);

impl Saga {
    /// Goes on with a host whose run was cut off: connects, and takes it over if it still holds the run. Its steps are
    /// asked for again from the first one; each of them looks before it acts. One that is `known` to have been prepared is
    /// not begun anew: what lies there is its way back.
    ///
    /// # Errors
    /// When the host cannot be reached (and at which stage), or was settled by somebody else.
    pub async fn reopen(
        shared: &Shared,
        (host, plan, batch): (&Host, &HostPlan, u32),
        known: Known,
        gate: &dyn Gate,
    ) -> Result<Self, (Stop, Option<UnreachableKind>)> {
        let reached = reach(shared, host, shared.patience, gate).await;
        let (conn, facts) =
            reached.map_err(|error| (Stop::new(StopKind::Lost, error.to_string()), Some(error.kind)))?;
        Self::taken_up(shared, (conn, facts), (host, plan, batch), known).await.map_err(|stop| (stop, None))
    }

    async fn taken_up(
        shared: &Shared,
        (mut conn, facts): (Box<dyn crate::remote::Host>, HostFacts),
        (host, plan, batch): (&Host, &HostPlan, u32),
        known: Known,
    ) -> Result<Self, Stop> {
        if let Some(why) = shared.contradiction(&facts) {
            return Err(Stop::new(StopKind::Failed, why));
        }
        let ours = facts.run == shared.run.as_str();
        let let_go = ours && facts.phase == "new";
        let next = if let_go { plan.steps.len() } else { 0 };
        let prepared = match facts.phase.as_str() {
            "armed" if ours => {
                let (hold, owner) = (shared.hold(""), shared.owner_now());
                conn.call(&Op::Takeover { hold, owner, only_held: true }, None).await?;
                true
            }
            // It was let go, and only the word of it was lost.
            "new" if ours => true,
            "none" | "idle" | "old" | "new" if !ours && known.prepared => {
                let by =
                    if matches!(facts.run.as_str(), "" | "-") { String::new() } else { format!(", run {}", facts.run) };
                let reason = format!(
                    "the run was prepared here, and the host no longer names it (now: {}{by}): another run had it since, or it \
                     lost its state",
                    facts.phase
                );
                return Err(Stop::new(StopKind::Failed, reason));
            }
            "none" | "idle" | "old" | "new" if !ours => false,
            "old" if ours && facts.by_guard => {
                return Err(Stop::new(StopKind::Failed, PUT_BACK_BY_GUARD));
            }
            "armed" | "undo" | "dirty" if !ours => return Err(Stop::new(StopKind::Held, holder(&facts))),
            phase => {
                let reason = format!("the host is {phase} by run {}", facts.run);
                return Err(Stop::new(StopKind::Failed, reason));
            }
        };
        let mut saga = Self {
            shared: shared.clone(),
            host: host.clone(),
            conn: Some(conn),
            facts,
            notes: plan.notes.clone(),
            seen: Vec::new(),
            plan: plan.clone(),
            batch,
            next,
            asked_before: known.asked,
            prepared,
            armed: prepared,
            draft: None,
            around: super::room::Around::default(),
            idle: None,
            processes: std::collections::BTreeMap::new(),
            let_go,
            asked: tokio::time::Instant::now(),
        };
        // The journal may not have come as far as the host: that it was prepared.
        if saga.armed && !saga.let_go {
            let record = Record::HostPrepared {
                undo_digest: digest_of(&saga.plan.undo),
                machine: Some(saga.facts.machine.clone()),
                epoch: None,
                credentials: saga.plan.credentials.clone(),
                state_dir: Some(saga.facts.state_dir.clone()),
            };
            saga.record(record).await?;
        }
        Ok(saga)
    }

    /// Before the host is touched: a link that nothing went over for long is looked at, and where it is dead the host is
    /// connected to once more. Nothing was lost with it.
    ///
    /// # Errors
    /// When it cannot be reached any more, is another machine, or is held by somebody else now.
    pub async fn wake(&mut self) -> Result<(), Stop> {
        if self.prepared || (self.conn.is_some() && self.asked.elapsed() < IDLE) {
            return Ok(());
        }
        let facts = match self.call(&Op::Hello, None).await {
            Ok(Answer::Hello(facts)) => *facts,
            Ok(_) => return Err(Stop::new(StopKind::Failed, "the host answered another question")),
            Err(CallError::Failed(failure)) => return Err(Stop::new(StopKind::Failed, failure.to_string())),
            Err(CallError::Lost(_)) => {
                let once = Patience { attempts: 1, ..self.shared.patience };
                let reached = reach(&self.shared, &self.host, once, &NoGate).await;
                let (conn, facts) = reached.map_err(|error| Stop::new(StopKind::Failed, error.to_string()))?;
                self.conn = Some(conn);
                facts
            }
        };
        if facts.machine != self.facts.machine {
            return Err(Stop::new(StopKind::Failed, "another machine answers than the one that was looked at"));
        }
        match held(&facts) {
            Some(reason) => Err(Stop::new(StopKind::Held, reason)),
            None => Ok(()),
        }
    }

    /// Whether the host is still held for the run: what was waited for counts only where it is. A lost link is connected to
    /// again.
    ///
    /// # Errors
    /// When its guard has fired, somebody else holds it, or it cannot be reached.
    pub async fn still_held(&mut self) -> Result<(), Stop> {
        if !self.armed || self.let_go || self.shared.guard.is_none() {
            return Ok(());
        }
        match self.call(&Op::Renew { hold: self.shared.hold("") }, None).await {
            Ok(_) => return Ok(()),
            Err(CallError::Lost(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let reached = reach(&self.shared, &self.host, self.shared.patience, &NoGate).await;
        let (conn, facts) = reached.map_err(|error| Stop::new(StopKind::Lost, error.to_string()))?;
        self.conn = Some(conn);
        if facts.run != self.shared.run.as_str() || facts.phase != "armed" {
            let reason = format!("the host was settled meanwhile (now: {}, run {})", facts.phase, facts.run);
            return Err(Stop::new(StopKind::Failed, reason));
        }
        let (hold, owner) = (self.shared.hold(""), self.shared.owner_now());
        self.call(&Op::Takeover { hold, owner, only_held: true }, None).await?;
        Ok(())
    }
}

/// Why a host cannot be taken: an unsettled run holds it.
pub(super) fn held(facts: &HostFacts) -> Option<String> {
    match facts.phase.as_str() {
        "none" | "idle" | "old" | "new" => None,
        _ => {
            let (held, run) = (holder(facts), &facts.run);
            Some(format!(
                "{held}; settle it first: keyswap resume {run}, or from another machine keyswap resume {run} --back \
                 --from-hosts -i INVENTORY"
            ))
        }
    }
}

/// Which run holds a host, by whom and since when.
pub(super) fn holder(facts: &HostFacts) -> String {
    let by = if matches!(facts.by.as_str(), "" | "-") { "unknown" } else { &facts.by };
    format!("run {} holds this host ({}, by {by})", facts.run, facts.phase)
}
