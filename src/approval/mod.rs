//! Approvals: a plan as a sealed file, people who sign its digest, and whether what they signed is enough.
//!
//! Nothing here asks a host or changes anything. Invariants:
//! - A [`Sealed`] file's digest is computed anew whenever it is read; what the file says of itself is only compared.
//! - An approval counts when its signature is good for its exact bytes, its key may sign as that signer in `allowed_signers`
//!   right now, it names this very digest, and it has not run out. Everything else counts as none, with a reason.
//! - One key counts once, whatever names it signs under.

mod gather;
mod sealed;
mod signers;
mod statement;

pub use gather::{Approved, Gathered, Insufficient, gather, satisfy};
pub use sealed::{Kind, Sealed, SealedError};
pub use signers::{AllowedSigners, SignersError};
pub use statement::{Statement, StatementError, signer_name, statement_path};

/// The namespace of every signature of ours: one that was made for something else is not taken.
pub const NAMESPACE: &str = "keyswap";
