//! One host's saga.
//!
//! [`Saga`] owns a host's connection and drives it through look, prepare, acts, commit or undo. Invariants:
//! - the journal holds the intent, synced, before the host is asked to act;
//! - a lost link is never taken for a failure of the step: the host is connected to again, its state is read, and then it
//!   is taken back; what cannot be read is owed;
//! - nothing is reported as put back or as new that the host did not say after looking.

mod alive;
mod back;
mod drain;
mod jobs;
mod link;
mod manifest;
mod mend;
mod reach;
mod room;
mod saga;
mod settle;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::Sink;
use crate::journal::Journal;
use crate::model::RunId;
use crate::remote::{Connect, Hold, HostFacts};
use crate::step::{Services, Values};

pub use alive::keep_alive;
pub use jobs::ran_here;
pub use link::Known;
pub use manifest::{About, Manifest, TokenNote};
pub use mend::mend_commands;
pub use saga::{Opened, Saga, Stop, StopKind};
pub use settle::{NotNow, Settling};
pub use work::{again, controllers_work, started};

/// What all sagas of a run share.
#[derive(Clone)]
pub struct Shared {
    /// The run.
    pub run: RunId,
    /// Who runs it and from where, as it is left on the hosts.
    pub owner: String,
    /// What the hosts are told of the run.
    pub about: Arc<About>,
    /// Makes connections.
    pub connect: Arc<dyn Connect>,
    /// The run's journal.
    pub journal: Journal,
    /// Where events go.
    pub events: Sink,
    /// The values of the secrets.
    pub values: Arc<Values>,
    /// The servers.
    pub services: Arc<dyn Services>,
    /// The operator says that no new step may begin.
    pub cancel: CancellationToken,
    /// The rollout says so: what is under way goes back. Cancelled with `cancel`.
    pub halt: CancellationToken,
    /// How long a lost host is tried again before it is owed.
    pub patience: Patience,
    /// How long a host waits for a sign of life before it puts itself back; `None`: for ever.
    pub guard: Option<Duration>,
}

impl Shared {
    /// Under what a request works on a held host.
    fn hold(&self, head: &str) -> Hold {
        // Of another journal than the run's own no head is left: it would contradict the run's.
        let head = if self.is_the_runs_journal() { head } else { "" };
        Hold { run: self.run.clone(), head: head.to_owned(), guard: self.guard }
    }

    /// Who takes a host now, and since when, as it is left there for others.
    fn owner_now(&self) -> String {
        format!("{} since {}", self.owner, jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"))
    }

    fn is_the_runs_journal(&self) -> bool {
        self.run == *self.journal.run()
    }

    /// Why the journal is not to be believed about a host, if the host keeps the head of another history of the run.
    fn contradiction(&self, facts: &HostFacts) -> Option<String> {
        let run = &self.run;
        let ours = facts.run == run.as_str() && self.is_the_runs_journal();
        (ours && self.journal.contradicts(&facts.head)).then(|| {
            format!("this journal of run {run} was changed or cut: the host keeps a head that it does not hold")
        })
    }

    /// How often a held host that is asked nothing else gets a sign of life; `None` without a guard.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.guard.map(|guard| guard / 3)
    }
}

/// How often and how fast a lost host is connected to again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts.
    pub attempts: u32,
    /// Rest before the first one; doubled each time.
    pub first_rest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 5, first_rest: Duration::from_secs(1) }
    }
}
