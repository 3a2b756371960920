//! The real program, killed at every point of a run against real OpenSSH and sudo; its guard; two of it at once.
//!
//! Builds with debug assertions can stop themselves at a point that a test names (`cli::pause`).

pub(crate) mod bench;
mod every_point;
mod fleet;
mod from_hosts;
mod guard;
mod links;
mod recovery;
mod sweep;
mod two;
mod unlock;
