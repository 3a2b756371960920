//! Targets: SSH, the privileged shell, and the `Host` trait in front of them.
//!
//! Everything above this room speaks to a target in [`Op`]s and [`Answer`]s; nothing above it knows a shell, a frame or
//! an SSH type. Invariant: a lost link is [`CallError::Lost`], "unknown", and never a failure of the operation.

mod answer;
mod connect;
mod gate;
mod op;
mod password;
mod pipe;
mod relay;
pub mod shell;
pub mod ssh;
mod survey;
mod trial;
mod undo;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub use answer::{
    Acted, Active, Answer, BackFact, BackupFact, BusyFact, CallError, EditFact, EnvFact, Fact, FailClass, Failure,
    FileFact, HostFacts, NowFact, Ran, ReachFact, RecordedRun, Revealed, RoomFact, ServiceFact, SocketFact, StopLimit,
    Undone, UndoneRecord,
};
pub use connect::SshConnect;
pub use gate::{Gate, NoGate, Stage};
pub use op::{Act, CopiesVerb, EnvEdit, Hold, HostCondition, Op, Pointer, Probe, Target};
pub use password::{NoPasswords, Passwords};
pub use pipe::{Exit, Lost, Pipe};
pub use relay::{Relay, shares_loopback};
pub use survey::{Copy, KnownPlace, KnownWhat, Seen, SeenEnv, SeenFile, SeenService, SeenState, Survey};
pub use trial::{KeptBack, Trials};
pub(crate) use trial::{Leave, Opens, Trial};
pub use undo::{FileBefore, UndoRecord, in_undo_order};

/// A target that is logged in to.
pub trait Host: Send {
    /// Sends one operation and waits for its answer. `data` is what a `place` writes; it is used for nothing else.
    ///
    /// # Errors
    /// [`CallError::Lost`] when there was no answer; the host must then be connected to anew.
    fn call<'a>(&'a mut self, op: &'a Op, data: Option<&'a [u8]>) -> BoxFuture<'a, Result<Answer, CallError>>;

    /// The way through this host to what it can reach; `None` where the connection leads to the host alone.
    fn way(&self) -> Option<Arc<dyn Way>> {
        None
    }

    /// Lets go of the host; never fails.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// The way through a host to another server, as that host sees it. It is as alive as the connection that it belongs to.
pub trait Way: Send + Sync {
    /// Opens a stream from the host to a server.
    ///
    /// # Errors
    /// Why the host does not reach it, in a line.
    fn open<'a>(&'a self, server: &'a str, port: u16) -> BoxFuture<'a, Result<Box<dyn Stream>, String>>;
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections to targets.
pub trait Connect: Send + Sync {
    /// Reaches a host, checks its key, logs in, escalates and starts the privileged shell, each as far as `gate` lets it.
    ///
    /// # Errors
    /// Nothing was changed on the host when this fails.
    fn connect<'a>(
        &'a self,
        host: &'a crate::model::Host,
        gate: &'a dyn Gate,
    ) -> BoxFuture<'a, Result<Box<dyn Host>, Unreachable>>;
}

/// Why a host could not be worked on. Nothing was changed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreachable {
    /// Which stage said no.
    pub kind: UnreachableKind,
    /// What happened, in a line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The stage at which a host could not be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableKind {
    /// No route, refused, silent.
    Network,
    /// Its key is unknown, changed or revoked.
    HostKey,
    /// The login was refused.
    Login,
    /// No way to root.
    Escalation,
    /// The remote shell or its tools will not do.
    Shell,
}
