//! Secrets: where they come from, and how they are kept off every output.
//!
//! A value has one road: a [`SecretSource`](crate::model::SecretSource) → [`SecretValue`] in zeroized memory →
//! the standard input of an SSH channel. Invariants of this room:
//! - no type that holds a value shows it in `Debug`, `Display` or an error;
//! - every program that keyswap starts is started through [`Environment`], which withholds secret variables;
//! - every text that leaves the process passes a [`Redactor`] that knows each value that was read.

mod coredump;
mod environment;
mod forms;
mod matcher;
mod redact;
mod sources;
mod value;
mod views;

pub use coredump::{NoCoreDumpError, forbid_core_dumps};
pub use environment::Environment;
pub use redact::{RedactingMakeWriter, RedactingWriter, Redactor};
pub use sources::{FileFault, Prompt, PromptError, SecretError, SecretFault, Sources};
pub use value::{BadValue, SecretValue};
