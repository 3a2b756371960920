//! How far hosts may come: of many that may refuse us for one common reason, not all are asked at once.

use futures_util::future::BoxFuture;

/// What a host may refuse on the way to its privileged shell, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// To be the host that its key says: from the first packet on.
    HostKey,
    /// The login.
    Login,
    /// The way to root.
    Escalation,
}

/// One host's leave to go on. Whoever connects asks it before each stage, and tells it when there is no more to refuse.
pub trait Gate: Send + Sync {
    /// Waits until the host may be asked for `stage`; it has granted the stages before it. A host that is tried anew asks
    /// for the stages anew.
    ///
    /// # Errors
    /// Why it is not asked any more. Nothing was refused there.
    fn enter(&self, stage: Stage) -> BoxFuture<'_, Result<(), String>>;

    /// The host has granted all.
    fn through(&self);
}

/// Leave without a wait, for a host that is asked by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGate;

impl Gate for NoGate {
    fn enter(&self, _: Stage) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn through(&self) {}
}
