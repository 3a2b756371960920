//! Where events are handed in: numbered and dated here, so that every report sees one order.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Event, EventKind};
use crate::model::{HostName, RunId, StepRef};

/// Hands events in. Clones share one numbering. Events are small and reports fast; none is ever dropped.
#[derive(Debug, Clone)]
pub struct Sink {
    run: RunId,
    state: Arc<Mutex<(u64, Option<UnboundedSender<Event>>)>>,
}

impl Sink {
    /// A sink for a run, and what comes out of it.
    #[must_use]
    pub fn new(run: RunId) -> (Self, UnboundedReceiver<Event>) {
        let (sender, receiver) = unbounded_channel();
        (Self { run, state: Arc::new(Mutex::new((0, Some(sender)))) }, receiver)
    }

    /// Hands one event in.
    pub fn emit(&self, host: Option<&HostName>, step: Option<&StepRef>, kind: EventKind) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let event = Event {
            ts: Timestamp::now(),
            run: self.run.clone(),
            seq: state.0,
            host: host.cloned(),
            step: step.cloned(),
            kind,
        };
        // Nobody listens any more when the reporter is gone: the run goes on, the journal has it all.
        if let Some(sender) = &state.1 {
            let _ = sender.send(event);
        }
    }

    /// How many were handed in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Says that nothing comes any more, whoever still holds a clone.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }

    /// A warning that concerns a host, or the run.
    pub fn warn(&self, host: Option<&HostName>, message: impl Into<String>) {
        self.emit(host, None, EventKind::Warning { message: message.into() });
    }
}
