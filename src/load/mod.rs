//! TOML files to a checked model: every error of every file at once, each with its place.
//!
//! Invariants: a file is read whole or refused; unknown keys are errors; a literal secret is refused and neither it
//! nor its line is repeated anywhere; `{{ … }}` is strict and reaches no secret and no file. Nothing here talks to a
//! terminal, a network or the process's environment: what a file may refer to comes in a [`Context`].

use camino::Utf8PathBuf;

mod actions;
mod barriers;
mod check;
mod diag;
mod file;
mod hops;
mod identity;
mod inventory;
mod keys;
mod literal;
mod playbook;
mod range;
mod reader;
pub mod schema;
mod select;
mod shared;
mod ssh;
mod template;
#[cfg(test)]
mod tests;
mod vars;

pub use diag::Diagnostics;
pub use identity::identity;
pub use inventory::{inventory, inventory_asking};
pub use playbook::{Playbook, playbook};
pub use select::{SelectError, select};
pub use ssh::{AskSsh, Asking, SshQuestion};
pub use vars::{ExtraVarsError, extra_vars, resolved_vars};

/// A length of time as the files write it, such as `14d`.
///
/// # Errors
/// What is wrong with it, in a line.
pub fn length(text: &str) -> Result<std::time::Duration, String> {
    check::duration(text).map_err(|problem| problem.message)
}

/// Whether any part of a text looks like a secret: such a text must not stand in arguments.
#[must_use]
pub fn looks_secret(text: &str) -> bool {
    literal::looks_secret(text)
}

/// What a file may refer to without saying it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The operator's home directory: what `~/` means.
    pub home: Utf8PathBuf,
    /// The directory that keyswap runs in.
    pub cwd: Utf8PathBuf,
    /// The operator's login name: the default user.
    pub user: String,
}
