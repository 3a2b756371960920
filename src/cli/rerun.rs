//! `run --rerun`: only the hosts that an earlier run left so.

use std::collections::HashSet;

use camino::Utf8PathBuf;

use super::CliError;
use super::args::RunArgs;
use super::session::Session;
use crate::journal::{HostState, RunState};
use crate::model::{HostName, HostStatus, RunId};

/// Hosts of an earlier run.
pub(super) struct Rerun {
    /// The run.
    pub(super) run: RunId,
    /// Where it stands.
    pub(super) state: RunState,
    which: Which,
    names: HashSet<HostName>,
}

/// Which of a run's hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that failed themselves, in whatever state that left them.
    Failed,
    /// Those that were left out because they could not be reached.
    Unreachable,
    /// Those that were taken back, for whatever reason.
    RolledBack,
}

impl Which {
    fn parse(word: &str) -> Result<Self, CliError> {
        match word {
            "failed" => Ok(Self::Failed),
            "unreachable" => Ok(Self::Unreachable),
            "rolled-back" => Ok(Self::RolledBack),
            _ => Err(CliError::usage(format!("--rerun takes failed, unreachable or rolled-back, not `{word}`"))),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unreachable => "was unreachable",
            Self::RolledBack => "was rolled back",
        }
    }

    fn takes(self, host: &HostState) -> bool {
        let Some(status) = host.result.as_ref().map(|result| result.status) else { return false };
        match self {
            Self::Failed => match status {
                HostStatus::Failed | HostStatus::Dirty => true,
                HostStatus::RolledBack | HostStatus::Owed => host.fell,
                _ => false,
            },
            Self::Unreachable => status == HostStatus::Unreachable,
            Self::RolledBack => status == HostStatus::RolledBack,
        }
    }
}

/// The playbook: with `--rerun` in front of it, it looks like the option's second value.
pub(super) fn playbook_of(args: &RunArgs) -> Result<Utf8PathBuf, CliError> {
    match (&args.playbook, args.rerun.as_slice()) {
        (Some(playbook), _) => Ok(playbook.clone()),
        (None, [_, run]) if run.parse::<RunId>().is_ok() => {
            Err(CliError::usage(format!("name the playbook, too: `{run}` is a run")))
        }
        (None, [_, playbook]) => Ok(playbook.into()),
        _ => Err(CliError::usage("name the playbook")),
    }
}

impl Rerun {
    /// The hosts that the arguments ask for; `None` where they do not ask.
    pub(super) fn find(session: &Session, args: &RunArgs) -> Result<Option<Self>, CliError> {
        let (which, prefix) = match args.rerun.as_slice() {
            [] => return Ok(None),
            [which, run] if args.playbook.is_some() => (which, Some(run.as_str())),
            [which, ..] => (which, None),
        };
        let which = Which::parse(which)?;
        let store = session.store()?;
        let run = store.find(prefix)?;
        let state = store.state(&run)?;
        let names = state.hosts.iter().filter(|(_, host)| which.takes(host)).map(|(name, _)| name.clone()).collect();
        Ok(Some(Self { run, state, which, names }))
    }

    /// Says that there is no such host, if so.
    pub(super) fn nothing(&self) -> Option<String> {
        let what = self.which.word();
        self.names.is_empty().then(|| format!("run {}: no host {what}: there is nothing to run again", self.run))
    }

    /// Keeps only these hosts.
    pub(super) fn narrow(&self, names: &mut Vec<HostName>) -> Result<(), CliError> {
        names.retain(|name| self.names.contains(name));
        if names.is_empty() {
            let what = self.which.word();
            return Err(CliError::usage(format!("none of the selected hosts {what} in run {}", self.run)));
        }
        Ok(())
    }
}
