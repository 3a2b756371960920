//! What an earlier session has left, judged by the journal alone.

use super::*;

fn host(phase: HostPhase, fell: bool) -> HostState {
    HostState { phase, fell, ..HostState::default() }
}

fn settled(phase: HostPhase, status: HostStatus) -> HostState {
    let name = "runner-01".parse().unwrap();
    let result = HostResult {
        host: name,
        status,
        batch: 1,
        credentials: Vec::new(),
        reason: None,
        mend: Vec::new(),
        notes: Vec::new(),
    };
    HostState { result: Some(result), ..host(phase, false) }
}

#[test]
fn what_failed_counts_wherever_its_host_stands() {
    use HostPhase::{Acting, Halted, Held, New, Old, Owed, Prepared, Spared, Undoing, Untouched};
    let failed = [
        host(Halted(2), true),
        host(Prepared, true),
        host(Acting(1), true),
        host(Undoing, true),
        host(Old, true),
        host(Owed(OwedIn::Forward), true),
        host(Held, false),
        settled(Spared, HostStatus::Failed),
    ];
    for host in failed {
        assert!(has_failed(&host), "{host:?}");
    }
    let not = [
        host(Untouched, false),
        host(Halted(2), false),
        host(Prepared, false),
        host(Old, false),
        host(New, true),
        settled(Spared, HostStatus::Skipped),
        settled(Spared, HostStatus::Unreachable),
    ];
    for host in not {
        assert!(!has_failed(&host), "{host:?}");
    }
}

#[test]
fn what_failed_goes_forward_only_where_the_old_one_must_not_come_back() {
    use HostPhase::{Acting, Between, Committing, Halted, Owed, Prepared, Preparing, Untouched};
    for phase in [Untouched, Preparing, Prepared, Acting(1), Between(1), Committing, Owed(OwedIn::Forward)] {
        assert!(goes_forward(&host(phase, false), false), "{phase:?}");
        assert!(!goes_forward(&host(phase, true), false), "{phase:?}");
        assert!(goes_forward(&host(phase, true), true), "{phase:?}");
    }
    for fell in [false, true] {
        assert!(!goes_forward(&host(Halted(1), fell), false));
        assert!(goes_forward(&host(Halted(1), fell), true));
        assert!(!goes_forward(&host(HostPhase::Undoing, fell), true));
    }
}
