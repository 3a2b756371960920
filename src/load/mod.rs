//! TOML files to a checked model: every error with its place.

use camino::Utf8PathBuf;

mod check;
mod diag;
mod file;
mod inventory;
mod keys;
mod literal;
mod range;
mod reader;
mod shared;
mod template;
mod vars;

pub use diag::Diagnostics;
pub use inventory::inventory;
pub use vars::{ExtraVarsError, extra_vars, resolved_vars};

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
