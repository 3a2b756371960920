//! The way to a settled host: commit, undo, reconnect, and the result that is read back.

use std::time::Duration;

use super::link::holder;
use super::reach::reach;
use super::saga::{Saga, Stop, class_of};
use super::{Shared, mend_commands};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{CredentialState, Host, HostName, HostResult, HostStatus, RemotePath, StepRef, StepStatus};
use crate::remote::{
    Answer, CallError, FailClass, Failure, Gate, HostFacts, NoGate, NowFact, Op, UndoRecord, Undone, Unreachable,
    UnreachableKind,
};
use crate::step::HostPlan;

/// A host that is to be settled: by the saga that worked on it, or later from what the journal knows.
pub struct Settling {
    /// What the run shares.
    pub shared: Shared,
    /// The host.
    pub host: Host,
    /// The way back.
    pub undo: Vec<UndoRecord>,
    /// What its credential files held before.
    pub credentials: Vec<CredentialState>,
    /// Its batch.
    pub batch: u32,
    /// The steps' names.
    pub steps: Vec<StepRef>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// The connection, if there is one.
    pub conn: Option<Box<dyn crate::remote::Host>>,
    /// Where the host keeps its state, if that is known.
    pub state_dir: Option<String>,
    /// Whether this session holds the host; it must be taken over first if not.
    pub holds: bool,
    /// The host is known to have been prepared, so that it must be put back even if it no longer names the run.
    pub prepared: bool,
    /// The host was found wholly old, put back by an earlier undo or by its own guard: there is nothing to do but to read it.
    pub found_old: bool,
    /// The host was found not to have held the run yet: nothing was changed there.
    pub never_held: bool,
    /// The host was looked at on this connection.
    pub looked: bool,
    /// The host was let go on the new credential, and the journal says so.
    pub committed: bool,
    /// Nothing is wrong with the host: it goes back because others do, or because the operator wants it.
    pub with_rest: bool,
    /// The runners that are waited for before they are restarted.
    pub drained: Vec<super::drain::Drained>,
}

/// What is said of a host that did not wait for its controller.
pub(super) const PUT_BACK_BY_GUARD: &str = "put back by the host's own guard";

/// How long a way back may take that is not known here.
const USUAL_UNDO: Duration = Duration::from_secs(300);

/// Why a host cannot be taken back now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNow {
    /// It cannot be reached: at which stage, and why.
    Unreachable(UnreachableKind, String),
    /// Another run holds it: which, by whom and since when.
    Held(String),
    /// Another run changed it after this one.
    Other(String),
    /// It contradicts the journal.
    Contradicts(String),
}

impl NotNow {
    /// Why.
    #[must_use]
    pub fn why(self) -> String {
        match self {
            Self::Unreachable(_, why) | Self::Held(why) | Self::Other(why) | Self::Contradicts(why) => why,
        }
    }
}

impl Saga {
    /// Everything has passed: the host lets go on the new credential.
    ///
    /// # Errors
    /// When the host does not say so; it is then still held, or lost, and is to be taken back.
    pub async fn commit(self) -> Result<HostResult, (Box<Settling>, Stop)> {
        if !self.touched() {
            return Ok(self.spare(HostStatus::Ok, None).await);
        }
        let mut settling = self.settling();
        match settling.let_go(true).await {
            Ok(now) => Ok(settling.settled(HostStatus::Changed, None, Vec::new(), Some(now)).await),
            Err(error) => Err((Box::new(settling), error.into())),
        }
    }

    /// Takes the host back.
    pub async fn undo(self, reason: &str) -> HostResult {
        if !self.touched() {
            return self.spare(HostStatus::Failed, Some(reason.to_owned())).await;
        }
        self.settling().undo(reason).await
    }

    /// Takes a host back with which nothing is wrong; one that was not touched is left out.
    pub async fn undo_with_rest(self, reason: &str) -> HostResult {
        if !self.touched() {
            return self.spare(HostStatus::Skipped, Some(reason.to_owned())).await;
        }
        let mut settling = self.settling();
        settling.with_rest = true;
        settling.undo(reason).await
    }

    /// Leaves a failed host on the new credential, on purpose. What is not wholly new goes back all the same; one that
    /// cannot be asked is owed, and `resume` has it let go.
    pub async fn hold(self, reason: &str) -> HostResult {
        if !self.armed {
            return self.undo(reason).await;
        }
        let journal = self.shared.journal.clone();
        let record = Record::CommitStarted { batch: self.batch, hosts: vec![self.host.name.clone()] };
        if let Err(error) = journal.append(None, record).await {
            return self.settling().undo(&format!("{reason}; the journal could not be written: {error}")).await;
        }
        let mut settling = self.settling();
        // Its runner may be what has failed.
        match settling.let_go(false).await {
            Ok(now) => {
                let reason = format!("{reason}; held on the new credential");
                settling.settled(HostStatus::Failed, Some(reason), Vec::new(), Some(now)).await
            }
            Err(error @ CallError::Lost(_)) => {
                settling.owed(format!("{reason}; whether it is held on the new credential is not known: {error}")).await
            }
            Err(error) => settling.undo(&format!("{reason}; it is not wholly new ({error})")).await,
        }
    }

    /// Ends a host that was not touched.
    pub async fn spare(self, status: HostStatus, reason: Option<String>) -> HostResult {
        let shared = self.shared.clone();
        let result = self.leave(status, reason).await;
        finish(&shared, &result.host, &result).await;
        result
    }

    /// Ends a look at a host: what would become of it is told.
    pub async fn looked_at(self) -> HostResult {
        match self.changes() {
            true => self.never_begun(HostStatus::Changed, Some("would change".to_owned())).await,
            false => self.never_begun(HostStatus::Ok, None).await,
        }
    }

    /// Ends a host of what never became a run: that is no end that a journal could tell.
    pub async fn never_begun(self, status: HostStatus, reason: Option<String>) -> HostResult {
        let events = self.shared.events.clone();
        let result = self.leave(status, reason).await;
        events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
        result
    }

    /// Lets go of a host that was not touched.
    async fn leave(mut self, status: HostStatus, reason: Option<String>) -> HostResult {
        let result = HostResult {
            host: self.host.name.clone(),
            status,
            batch: self.batch,
            credentials: self.credentials(),
            reason,
            mend: Vec::new(),
            notes: std::mem::take(&mut self.notes),
        };
        if let Some(conn) = self.conn.take() {
            conn.close().await;
        }
        result
    }

    fn settling(self) -> Settling {
        Settling {
            notes: self.notes,
            // One that an earlier session let go, or asked and we did not, is not held by us.
            holds: self.conn.is_some() && !self.let_go && (self.armed || !self.asked_before),
            prepared: self.armed,
            conn: self.conn,
            state_dir: Some(self.facts.state_dir),
            ..Settling::from_plan(&self.shared, &self.host, &self.plan, self.batch)
        }
    }
}

/// Says and journals how a host stands.
async fn finish(shared: &Shared, host: &HostName, result: &HostResult) {
    let record = Record::HostSettled { result: result.clone() };
    if let Err(error) = shared.journal.append(Some(host), record).await {
        shared.events.warn(Some(host), format!("the journal could not be written: {error}"));
    }
    shared.events.emit(Some(host), None, EventKind::HostFinished { result: result.clone() });
}

impl Settling {
    /// A host of the run that nobody is connected to.
    #[must_use]
    pub fn from_plan(shared: &Shared, host: &Host, plan: &HostPlan, batch: u32) -> Self {
        Self {
            shared: shared.clone(),
            host: host.clone(),
            undo: plan.undo.clone(),
            credentials: plan.credentials.clone(),
            batch,
            steps: plan.steps.iter().map(|step| step.id.clone()).collect(),
            notes: Vec::new(),
            conn: None,
            state_dir: host.connection.state_dir.as_ref().map(ToString::to_string),
            holds: false,
            prepared: false,
            found_old: false,
            never_held: false,
            looked: false,
            committed: false,
            with_rest: false,
            drained: super::drain::Drained::of(plan),
        }
    }

    /// Connects and looks whether this run is the one to take back. Changes nothing.
    ///
    /// # Errors
    /// When the host is out of reach, or is not this run's to put back.
    pub async fn attach(&mut self, gate: &dyn Gate) -> Result<(), NotNow> {
        let unreachable = |error: Unreachable| NotNow::Unreachable(error.kind, error.to_string());
        let facts = self.reconnect(gate).await.map_err(unreachable)?;
        if let Some(why) = self.shared.contradiction(&facts) {
            return Err(NotNow::Contradicts(why));
        }
        if let Some(why) = self.not_ours(&facts) {
            return Err(why);
        }
        self.look_for_old(&facts);
        Ok(())
    }

    /// Notices that the run was taken back already: the undo had ended and only its answer was lost, or the guard did it;
    /// or that our first request did not get as far as to hold the host: it still may, until the host is taken over.
    fn look_for_old(&mut self, facts: &HostFacts) {
        let ours = facts.run == self.shared.run.as_str();
        self.looked = true;
        self.never_held = !ours && !self.prepared;
        self.found_old = ours && facts.phase == "old";
        if self.found_old && facts.by_guard {
            self.notes.push(PUT_BACK_BY_GUARD.to_owned());
        }
    }

    /// Looks on the connection that there is.
    async fn look_again(&mut self) -> Result<HostFacts, CallError> {
        let Answer::Hello(facts) = self.call(&Op::Hello).await? else {
            let message = "the host answered another question".to_owned();
            return Err(Failure { class: FailClass::Broken, message, fix: None }.into());
        };
        self.look_for_old(&facts);
        Ok(*facts)
    }

    /// Why the host is not this run's to put back, if it is not.
    fn not_ours(&self, facts: &HostFacts) -> Option<NotNow> {
        let run = self.shared.run.as_str();
        match facts.phase.as_str() {
            _ if facts.run == run => None,
            "armed" | "undo" | "dirty" => Some(NotNow::Held(holder(facts))),
            "new" if facts.run.as_str() > run => {
                let why = format!("run {} changed this host later; roll that one back first", facts.run);
                Some(NotNow::Other(why))
            }
            _ => None,
        }
    }

    pub(super) async fn call(&mut self, op: &Op) -> Result<Answer, CallError> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(CallError::Lost(crate::remote::Lost { reason: "the connection was lost".to_owned() }));
        };
        let answer = conn.call(op, None).await;
        if matches!(answer, Err(CallError::Lost(_))) {
            self.conn = None;
            self.holds = false;
            self.looked = false;
        }
        answer
    }

    /// Connects again, patiently. The host's own account of itself comes back.
    async fn reconnect(&mut self, gate: &dyn Gate) -> Result<HostFacts, Unreachable> {
        let (conn, facts) = reach(&self.shared, &self.host, self.shared.patience, gate).await?;
        self.conn = Some(conn);
        self.holds = false;
        self.state_dir = Some(facts.state_dir.clone());
        Ok(facts)
    }

    /// Has the host let go on the new credential, with its `runner` up or however that is, and reads it. A lost link is connected
    /// to again: a host that is still held, or was let go already, says the same when it is asked again; what was settled
    /// otherwise stays as it is.
    async fn let_go(&mut self, runner: bool) -> Result<Vec<NowFact>, CallError> {
        let op = Op::Commit { hold: self.shared.hold(""), runner, paths: self.others() };
        let mut rounds = 0;
        loop {
            rounds += 1;
            let lost = match self.call(&op).await {
                Ok(Answer::Now(now)) => return Ok(now),
                Ok(_) => return Ok(Vec::new()),
                Err(CallError::Lost(lost)) => lost,
                Err(error) => return Err(error),
            };
            if rounds > 2 {
                return Err(CallError::Lost(lost));
            }
            let facts = self.reconnect(&NoGate).await.map_err(|_| CallError::Lost(lost))?;
            let still = match facts.phase.as_str() {
                _ if facts.run != self.shared.run.as_str() => false,
                "armed" => {
                    self.take_over(true).await?;
                    true
                }
                "new" => true,
                _ => false,
            };
            if !still {
                let message = format!("it was settled meanwhile (now: {}, run {})", facts.phase, facts.run);
                return Err(Failure { class: FailClass::Fenced, message, fix: None }.into());
            }
        }
    }

    async fn take_over(&mut self, only_held: bool) -> Result<(), CallError> {
        let (hold, owner) = (self.shared.hold(""), self.shared.owner_now());
        self.call(&Op::Takeover { hold, owner, only_held }).await?;
        self.holds = true;
        Ok(())
    }

    /// Credential files of which the host does not know by itself: no act of the run writes them.
    fn others(&self) -> Vec<RemotePath> {
        let known = |path: &str| self.undo.iter().any(|record| record.file().is_some_and(|file| file.as_str() == path));
        let others = self.credentials.iter().filter(|credential| !known(&credential.path));
        others.filter_map(|credential| credential.path.parse().ok()).collect()
    }

    async fn now(&mut self) -> Result<Vec<NowFact>, CallError> {
        match self.call(&Op::Now { run: self.shared.run.clone(), paths: self.others() }).await? {
            Answer::Now(now) => Ok(now),
            _ => Ok(Vec::new()),
        }
    }

    /// Takes the host back and reads it. Whatever is lost on the way is connected to again; what cannot be read is owed.
    pub async fn undo(mut self, reason: &str) -> HostResult {
        let name = self.host.name.clone();
        let record = Record::UndoStarted { reason: reason.to_owned(), with_rest: self.with_rest };
        let head = match self.shared.journal.append(Some(&name), record).await {
            Ok(appended) => appended.head.as_str().to_owned(),
            // It is wholly new and stands so in the journal: taken back it would contradict a record that nobody can add to.
            Err(error) if self.committed => {
                let reason = format!("{reason}; it stays new, since the journal could not be written: {error}");
                return self.settled(HostStatus::Changed, Some(reason), Vec::new(), None).await;
            }
            Err(error) => {
                // The way back is the host's own data: it does not need the journal to be safe.
                self.shared.events.warn(Some(&name), format!("the journal could not be written: {error}"));
                String::new()
            }
        };
        self.shared.events.emit(Some(&name), None, EventKind::UndoStarted { reason: reason.to_owned() });
        let mut rounds = 0;
        loop {
            rounds += 1;
            match self.undo_once(&head).await {
                Ok(End::Undone(undone, now)) => return self.after_undo(reason, &undone, now).await,
                Ok(End::NeverPrepared) => {
                    let now = self.now().await.ok();
                    return self.settled(HostStatus::RolledBack, Some(reason.to_owned()), Vec::new(), now).await;
                }
                Err(CallError::Lost(_)) if rounds < 4 => {}
                Err(error) => {
                    let reason = format!("{reason}; the host could not be put back: {error}");
                    return self.owed(reason).await;
                }
            }
        }
    }

    async fn undo_once(&mut self, head: &str) -> Result<End, CallError> {
        if self.conn.is_none() {
            let facts = self.reconnect(&NoGate).await.map_err(|error| {
                CallError::Failed(Failure { class: FailClass::Broken, message: error.to_string(), fix: None })
            })?;
            if let Some(why) = self.not_ours(&facts) {
                return Err(Failure { class: FailClass::Held, message: why.why(), fix: None }.into());
            }
            self.look_for_old(&facts);
        } else if !self.holds && !self.looked {
            let facts = self.look_again().await?;
            if let Some(why) = self.not_ours(&facts) {
                // What was still on its way finds another run's work, and gives up.
                if self.never_held && matches!(why, NotNow::Other(_)) {
                    return Ok(End::NeverPrepared);
                }
                return Err(Failure { class: FailClass::Held, message: why.why(), fix: None }.into());
            }
        }
        if self.found_old {
            let now = self.now().await?;
            return Ok(End::Undone(Undone { records: Vec::new(), clean: true }, now));
        }
        if !self.holds {
            self.take_over(false).await?;
        }
        self.drain().await?;
        // Where the list is not known here it is the host's own, which takes what such a list takes.
        let limit = if self.undo.is_empty() { USUAL_UNDO } else { crate::step::undo_limit(&self.undo) };
        let op = Op::Undo { hold: self.shared.hold(head), limit };
        let mut answer = self.call(&op).await;
        // The preparation failed on the host before it took hold, or the host was settled meanwhile.
        if let Err(error) = &answer
            && class_of(error) == Some(FailClass::Fenced)
        {
            self.holds = false;
            let facts = self.look_again().await?;
            if self.never_held {
                return Ok(End::NeverPrepared);
            }
            if self.found_old {
                let now = self.now().await?;
                return Ok(End::Undone(Undone { records: Vec::new(), clean: true }, now));
            }
            // It was let go, and what came of that was said otherwise, or not at all.
            if facts.run == self.shared.run.as_str() && facts.phase == "new" {
                self.take_over(false).await?;
                answer = self.call(&op).await;
            }
        }
        match answer? {
            // The run never held the host, and from now on it cannot: a preparation that is still on its way is refused.
            Answer::Undone(undone) if undone.records.is_empty() && !self.undo.is_empty() => {
                if self.prepared {
                    let message = "the host has lost the run's way back".to_owned();
                    return Err(Failure { class: FailClass::Missing, message, fix: None }.into());
                }
                Ok(End::NeverPrepared)
            }
            Answer::Undone(undone) => {
                let now = self.now().await.unwrap_or_default();
                Ok(End::Undone(undone, now))
            }
            _ => Ok(End::NeverPrepared),
        }
    }

    async fn after_undo(mut self, reason: &str, undone: &Undone, now: Vec<NowFact>) -> HostResult {
        let name = self.host.name.clone();
        for record in &undone.records {
            let step = self.steps.iter().find(|step| step.index == record.step).cloned();
            if record.kind == "service" && record.message.contains("were cut off") {
                self.notes.push(record.message.clone());
            }
            let kind = EventKind::UndoFinished { status: record.status, detail: record.message.clone() };
            self.shared.events.emit(Some(&name), step.as_ref(), kind);
            let line = Record::UndoFinished {
                step,
                label: record.kind.clone(),
                status: record.status,
                detail: record.message.clone(),
            };
            if let Err(error) = self.shared.journal.append_lazy(Some(&name), line) {
                self.shared.events.warn(Some(&name), format!("the journal could not be written: {error}"));
            }
        }
        if undone.clean {
            return self.settled(HostStatus::RolledBack, Some(reason.to_owned()), Vec::new(), Some(now)).await;
        }
        let first = undone.records.iter().find(|record| record.status == StepStatus::Failed);
        let why = first.map_or("something could not be put back", |record| record.message.as_str());
        let reason = format!("{reason}; not put back: {why}");
        let mend = self.mend(&undone.records);
        self.notes.push(format!("when it is mended: keyswap resume {} --back", self.shared.journal.run()));
        self.settled(HostStatus::Dirty, Some(reason), mend, Some(now)).await
    }

    fn mend(&self, undone: &[crate::remote::UndoneRecord]) -> Vec<String> {
        let state_dir = self.state_dir.as_deref().unwrap_or("/var/lib/keyswap");
        mend_commands(self.host.connection.become_method, state_dir, self.shared.run.as_str(), &self.undo, undone)
    }

    /// Leaves the host as it is, since the journal is not to be believed about it.
    pub async fn leave(mut self, reason: String) -> HostResult {
        let run = &self.shared.run;
        self.notes.push(format!("the host knows the way back: keyswap resume {run} --back --from-hosts -i INVENTORY"));
        self.settled(HostStatus::Owed, Some(reason), Vec::new(), None).await
    }

    /// Writes down that a touched host is to go back and cannot be reached: whoever reaches it takes it back.
    pub async fn owed_a_way_back(self, reason: String) -> HostResult {
        let name = self.host.name.clone();
        let record = Record::UndoStarted { reason: reason.clone(), with_rest: self.with_rest };
        if let Err(error) = self.shared.journal.append(Some(&name), record).await {
            self.shared.events.warn(Some(&name), format!("the journal could not be written: {error}"));
        }
        self.owed(reason).await
    }

    /// Writes down that a touched host could not be read.
    pub async fn owed(mut self, reason: String) -> HostResult {
        let mend = self.mend(&[]);
        self.notes.push(format!("when the host is back: keyswap resume {}", self.shared.journal.run()));
        self.settled(HostStatus::Owed, Some(reason), mend, None).await
    }

    /// Says, journals and returns how the host stands; lets go of it. `now`: what its files were read to hold.
    async fn settled(
        mut self,
        status: HostStatus,
        reason: Option<String>,
        mend: Vec<String>,
        now: Option<Vec<NowFact>>,
    ) -> HostResult {
        for credential in &mut self.credentials {
            match now.iter().flatten().find(|fact| fact.path == credential.path) {
                Some(read) => {
                    credential.now.clone_from(&read.fingerprint);
                    credential.unread = false;
                }
                // What it held before is no answer to what it holds.
                None => credential.not_read(),
            }
        }
        let result = HostResult {
            host: self.host.name.clone(),
            status,
            batch: self.batch,
            credentials: self.credentials,
            reason,
            mend,
            notes: self.notes,
        };
        finish(&self.shared, &result.host, &result).await;
        if let Some(conn) = self.conn.take() {
            conn.close().await;
        }
        result
    }
}

/// How one attempt to take a host back ended.
enum End {
    /// The host went through its list.
    Undone(Undone, Vec<NowFact>),
    /// The host never held the run.
    NeverPrepared,
}
