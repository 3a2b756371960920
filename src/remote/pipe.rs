//! A started program as a pair of byte streams: what the framing speaks over, whatever carries it.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A running program, on a target or (in tests) beside us.
///
/// Whatever carries it keeps draining both of the program's outputs, so that a talkative program never blocks
/// the connection; standard error is kept only as a bounded tail.
pub trait Pipe: Send {
    /// Hands bytes to the program's standard input. Returning `Ok` means accepted for sending, not read.
    fn send(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Lost>>;

    /// The next piece of standard output; `None` when the program has ended its output in an orderly way.
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Lost>>;

    /// The last part of standard error so far, lossily decoded, not yet cleaned for a terminal.
    fn stderr_tail(&self) -> String;

    /// How the program ended, once `recv` has said `None`.
    fn exit(&self) -> Option<Exit>;

    /// Ends the program's input and lets go of the connection, within a bound; never fails.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By this signal, as SSH names it (`KILL`).
    Signal(String),
}

/// The link ended before the program did: what it did after the last reply is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection was lost: {reason}")]
pub struct Lost {
    /// What the transport knows about it.
    pub reason: String,
}
