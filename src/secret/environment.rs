//! The process environment as keyswap sees it, and what of it other programs may see.
//!
//! Nothing below `cli` reads the real environment; nothing anywhere starts a program but through
//! [`Environment::command`] or [`Environment::std_command`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command as StdCommand;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::Command;
use zeroize::Zeroizing;

use crate::model::SecretSource;

/// A snapshot of the environment. Clones share it, so a variable withheld through one is withheld from all.
///
/// A withheld variable moves out of the snapshot into zeroized memory. A program started later sees neither it
/// nor any other variable whose value contains it.
#[derive(Clone, Default)]
pub struct Environment {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    visible: BTreeMap<OsString, OsString>,
    secret: BTreeMap<OsString, Zeroizing<Vec<u8>>>,
    withheld: BTreeSet<OsString>,
}

impl Environment {
    /// A snapshot of these variables; `cli` gives it `std::env::vars_os()`.
    pub fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let inner = Inner { visible: vars.into_iter().collect(), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A variable that is no secret; `None` for a withheld one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.lock().visible.get(OsStr::new(name)).cloned()
    }

    /// Keeps a variable from every program that is started from now on.
    pub fn withhold(&self, name: &str) {
        let name = OsString::from(name);
        let mut inner = self.lock();
        if let Some(value) = inner.visible.remove(&name) {
            inner.secret.insert(name.clone(), Zeroizing::new(value.into_vec()));
        }
        inner.withheld.insert(name);
    }

    /// Withholds every variable that these sources name. To be called with all sources of a run before the
    /// first of them is read, since reading one may start a program.
    pub fn withhold_sources<'a>(&self, sources: impl IntoIterator<Item = &'a SecretSource>) {
        for source in sources {
            if let SecretSource::Env { name } = source {
                self.withhold(name);
            }
        }
    }

    /// The value of a variable that holds a secret; it is withheld from then on.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.withhold(name);
        self.lock().secret.get(OsStr::new(name)).cloned()
    }

    /// What a started program sees.
    #[must_use]
    pub fn for_children(&self) -> Vec<(OsString, OsString)> {
        let inner = self.lock();
        let leaks = |value: &OsStr| {
            inner.secret.values().any(|secret| {
                let secret = secret.trim_ascii();
                // A short value ("1") would be found in half of the environment without being in it.
                secret.len() >= 6 && value.as_bytes().windows(secret.len()).any(|piece| piece == secret)
            })
        };
        inner.visible.iter().filter(|(_, value)| !leaks(value)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// A program to be started by tokio, with the environment that it may see.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::from(self.std_command(program))
    }

    /// A program to be started by `std`, with the environment that it may see.
    #[must_use]
    pub fn std_command(&self, program: impl AsRef<OsStr>) -> StdCommand {
        let mut command = StdCommand::new(program);
        command.env_clear().envs(self.for_children());
        command
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names only: a value may be a secret that nobody has named yet.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Environment")
            .field("visible", &inner.visible.keys().collect::<Vec<_>>())
            .field("withheld", &inner.withheld)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Environment {
        let vars = [("PATH", "/bin:/usr/bin"), ("TOKEN", "test-token-1"), ("COPY", "Bearer test-token-1"), ("N", "1")];
        Environment::new(vars.map(|(n, v)| (n.into(), v.into())))
    }

    #[test]
    fn a_withheld_variable_and_its_copies_reach_no_child() {
        let env = sample();
        assert_eq!(env.secret("TOKEN").unwrap().as_slice(), b"test-token-1");
        assert_eq!(env.secret("TOKEN").unwrap().as_slice(), b"test-token-1", "it can be read again");
        assert_eq!(env.get("TOKEN"), None);
        let output = env.std_command("env").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "N=1\nPATH=/bin:/usr/bin\n");
    }

    #[test]
    fn sources_are_withheld_before_they_are_read() {
        let env = sample();
        env.clone().withhold_sources(&[SecretSource::Prompt, SecretSource::Env { name: "TOKEN".into() }]);
        assert!(env.for_children().iter().all(|(name, _)| name != "TOKEN" && name != "COPY"));
        assert_eq!(env.secret("ABSENT"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", sample()).contains("test-token"));
    }
}
