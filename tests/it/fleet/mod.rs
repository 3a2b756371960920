//! Many hosts: batches, the budget, the scope of the rollback, hosts that go away, and runs that pick up where one ended.
//!
//! The hosts are the sandbox's (real SSH, real `sh`, a runner each); the program is the real one; what became of a host
//! is read from its files and its runner's process, past keyswap.

mod approved;
mod away;
pub(crate) mod bench;
mod checked;
mod common;
mod once;
mod refused;
mod rerun;
mod resumed;
mod room;
mod scopes;
mod standing;
