//! SSH, over russh: from an inventory's [`Connection`](crate::model::Connection) to a running program's
//! [`Pipe`](crate::remote::Pipe).
//!
//! Invariants: no type of the library leaves this module. A host's key is checked at every hop against `known_hosts`
//! or the inventory's pins, and there is no way to have it unchecked. A server opens, forwards and writes nothing on
//! our side. A lost link is told apart from a program that ended: what happened after the last word is unknown.
//! Every wait has a bound, every buffer too, and what is given up is closed for real.

mod dial;
mod error;
mod handler;
mod keys;
pub mod known_hosts;
mod limit;
mod link;
mod login;
mod plan;
mod program;
mod question;
mod session;
mod sign;
mod stream;
mod trust;
mod words;

pub use dial::{Dialer, DialerConfig, GLOBAL_KNOWN_HOSTS, Keepalive};
pub(crate) use error::last_words;
pub use error::{Class, ConnectError, HostKeyProblem, KeyFileProblem, Phase, Problem};
pub use keys::AskPassphrase;
pub use link::Link;
pub use sign::{SignError, SignerKey, Signers, verify};

#[cfg(test)]
mod tests;
