//! How a run ended, as one word and one number.

use crate::model::{HostResult, HostStatus, RunStatus};

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Every host, in the run's order.
    pub hosts: Vec<HostResult>,
    /// A host failed (also one that was taken back).
    pub failed: bool,
    /// The operator stopped it.
    pub interrupted: bool,
    /// Hosts are held by another run.
    pub held: bool,
    /// An approval is missing, or the plan is stale.
    pub refused: bool,
    /// The run's token may be alive although no host holds it.
    pub token_owed: bool,
    /// Which hosts go back too that an earlier session let go: those of a batch, or all, and why.
    pub also_back: Option<(Option<u32>, String)>,
    /// Hosts are left in the run's midst, by the operator's wish or since somebody else holds them: it is not ended.
    pub unfinished: bool,
}

impl Outcome {
    /// Takes in what became of other hosts of the run.
    pub(super) fn merge(&mut self, other: Self) {
        self.hosts.extend(other.hosts);
        self.failed |= other.failed;
        self.interrupted |= other.interrupted;
        self.held |= other.held;
        self.refused |= other.refused;
        self.token_owed |= other.token_owed;
        self.unfinished |= other.unfinished;
    }
}

/// The word of the contract.
#[must_use]
pub fn run_status(outcome: &Outcome) -> RunStatus {
    let any = |wanted: &[HostStatus]| outcome.hosts.iter().any(|host| wanted.contains(&host.status));
    if outcome.token_owed || any(&[HostStatus::Dirty, HostStatus::Owed]) {
        RunStatus::Dirty
    } else if outcome.failed {
        let back = any(&[HostStatus::RolledBack]) && !any(&[HostStatus::Failed]);
        if back { RunStatus::RolledBack } else { RunStatus::Failed }
    } else if outcome.interrupted {
        RunStatus::Interrupted
    } else if any(&[HostStatus::Unreachable]) || outcome.refused || outcome.held {
        RunStatus::Failed
    } else {
        RunStatus::Succeeded
    }
}

/// The exit code: the worst wins, in the order 3, 2, 4, 7, 8, 130.
#[must_use]
pub fn exit_code(outcome: &Outcome) -> u8 {
    let any = |wanted: &[HostStatus]| outcome.hosts.iter().any(|host| wanted.contains(&host.status));
    if outcome.token_owed || any(&[HostStatus::Dirty, HostStatus::Owed]) {
        3
    } else if outcome.failed {
        2
    } else if any(&[HostStatus::Unreachable]) {
        4
    } else if outcome.refused {
        7
    } else if outcome.held {
        8
    } else if outcome.interrupted {
        130
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(statuses: &[HostStatus], failed: bool, interrupted: bool, held: bool) -> Outcome {
        let hosts = statuses
            .iter()
            .enumerate()
            .map(|(n, status)| HostResult {
                host: format!("h{n}").parse().unwrap(),
                status: *status,
                batch: 1,
                credentials: Vec::new(),
                reason: None,
                mend: Vec::new(),
                notes: Vec::new(),
            })
            .collect();
        Outcome { hosts, failed, interrupted, held, ..Outcome::default() }
    }

    #[test]
    fn a_token_that_may_be_alive_is_a_debt() {
        let outcome = Outcome { token_owed: true, ..outcome(&[HostStatus::RolledBack], true, false, false) };
        assert_eq!((run_status(&outcome), exit_code(&outcome)), (RunStatus::Dirty, 3));
    }

    #[test]
    fn the_worst_wins() {
        use HostStatus::{Changed, Dirty, Failed, Owed, RolledBack, Unreachable};
        let table = [
            (outcome(&[Changed], false, false, false), RunStatus::Succeeded, 0),
            (outcome(&[Changed, RolledBack], true, false, false), RunStatus::RolledBack, 2),
            (outcome(&[Failed, RolledBack], true, false, false), RunStatus::Failed, 2),
            (outcome(&[Dirty, RolledBack, Unreachable], true, true, true), RunStatus::Dirty, 3),
            (outcome(&[Owed], false, true, false), RunStatus::Dirty, 3),
            (outcome(&[RolledBack], false, true, false), RunStatus::Interrupted, 130),
            (outcome(&[Changed, Unreachable], false, false, false), RunStatus::Failed, 4),
            (outcome(&[Changed], false, true, true), RunStatus::Interrupted, 8),
        ];
        for (outcome, status, code) in table {
            assert_eq!((run_status(&outcome), exit_code(&outcome)), (status, code), "{outcome:?}");
        }
    }
}
