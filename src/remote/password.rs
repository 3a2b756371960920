//! Where passwords come from that logins and escalation need.

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::model::SecretSource;

/// Reads passwords from where the inventory says they are, each source once. `cli` implements it.
pub trait Passwords: Send + Sync {
    /// A password; what it is for is said in `what`, for the case that somebody is asked.
    ///
    /// # Errors
    /// Why there is none, in a line.
    fn read<'a>(&'a self, what: &'a str, source: &'a SecretSource) -> BoxFuture<'a, Result<SecretString, String>>;
}

/// There are no passwords.
pub struct NoPasswords;

impl Passwords for NoPasswords {
    fn read<'a>(&'a self, _: &'a str, _: &'a SecretSource) -> BoxFuture<'a, Result<SecretString, String>> {
        Box::pin(async { Err("passwords are not read here".to_owned()) })
    }
}
