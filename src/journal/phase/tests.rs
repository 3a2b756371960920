//! Every phase with every record.

use std::fmt::Write as _;

use super::*;
use crate::journal::record::{Operator, ReopenCommand};
use crate::model::{HostName, HostResult, RunStatus, StepRef};

pub(in crate::journal) fn phases() -> Vec<HostPhase> {
    use HostPhase::*;
    vec![
        Untouched,
        Spared,
        Preparing,
        Prepared,
        Acting(2),
        Between(2),
        Halted(2),
        Committing,
        New,
        Held,
        Undoing,
        Old,
        Dirty,
        Owed(OwedIn::Preparing),
        Owed(OwedIn::Forward),
        Owed(OwedIn::Committing),
        Owed(OwedIn::Undoing),
    ]
}

pub(in crate::journal) fn host() -> HostName {
    "runner-01".parse().unwrap()
}

/// Every record in every variation that the table could tell apart, with a name for the snapshot.
pub(in crate::journal) fn records() -> Vec<(String, Record)> {
    let step = |index| StepRef { index, name: format!("step {index}") };
    let mut records = vec![
        Record::RunStarted {
            command: "run".into(),
            playbook: "p".into(),
            digest: "d".into(),
            hosts: vec![host()],
            by: Operator::default(),
        },
        Record::PlanApproved {
            what: "run".into(),
            plan: "sha256:p".into(),
            approvals: Vec::new(),
            allowed_signers: Vec::new(),
        },
        Record::SecretKnown { name: "token".into(), fingerprint: crate::model::Fingerprint::of(b"test-token-1") },
        Record::TokenRequested {
            secret: "token".into(),
            name: "n".into(),
            identity: "i".into(),
            identity_name: "runner".into(),
            server: "https://infisical.example.net".into(),
        },
        Record::TokenMinted {
            id: "t".into(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: crate::model::Fingerprint::of(b"test-token-1"),
        },
        Record::TokenRevoked { ids: vec!["t".into()], detail: "d".into() },
        Record::Proved { secret: "token".into(), narrow: true, summary: "s".into(), rows: Vec::new() },
        Record::RetireStarted { revoke: true, by: Operator::default() },
        Record::OldRevoked {
            fingerprint: crate::model::Fingerprint::of(b"test-token-0"),
            id: "o".into(),
            minted_by: "r".into(),
            detail: "d".into(),
        },
        Record::CopiesRemoved { at: vec!["/c".into()] },
        Record::Retired,
        Record::PrepareStarted,
        Record::HostPrepared {
            undo_digest: "u".into(),
            machine: None,
            epoch: None,
            credentials: Vec::new(),
            state_dir: None,
        },
        Record::CommitStarted { batch: 1, hosts: vec![host()] },
        Record::UndoStarted { reason: "r".into(), with_rest: false },
        Record::UndoFinished { step: None, label: "l".into(), status: StepStatus::Changed, detail: String::new() },
        Record::RunFinished { status: RunStatus::Succeeded, exit_code: Some(0) },
        Record::RunReopened { command: ReopenCommand::Resume, by: Operator::default() },
        Record::Note { text: "n".into() },
    ]
    .into_iter()
    .map(|record| (record.name().to_owned(), record))
    .collect::<Vec<_>>();
    for index in 1..=3 {
        let record = Record::StepStarted { step: step(index), intent: "i".into(), action: None };
        records.push((format!("step-started {index}"), record));
    }
    let ends = [StepStatus::Ok, StepStatus::Changed, StepStatus::Failed, StepStatus::Unknown, StepStatus::Skipped];
    for (index, status) in [(1, StepStatus::Ok), (3, StepStatus::Ok)].into_iter().chain(ends.map(|end| (2, end))) {
        let record =
            Record::StepFinished { step: step(index), status, detail: String::new(), seen: Vec::new(), stopped: false };
        records.push((format!("step-finished {index} {status}"), record));
    }
    for status in [
        HostStatus::Ok,
        HostStatus::Changed,
        HostStatus::Failed,
        HostStatus::RolledBack,
        HostStatus::Dirty,
        HostStatus::Owed,
        HostStatus::Unreachable,
        HostStatus::Skipped,
    ] {
        let result = HostResult {
            host: host(),
            status,
            batch: 1,
            credentials: Vec::new(),
            reason: None,
            mend: Vec::new(),
            notes: Vec::new(),
        };
        records.push((format!("host-settled {status}"), Record::HostSettled { result }));
    }
    records
}

#[test]
fn the_whole_table() {
    let mut text = String::new();
    for phase in phases() {
        writeln!(text, "{phase:?}").unwrap();
        let mut illegal = Vec::new();
        for (name, record) in records() {
            match phase.next(&record) {
                Ok(next) if next == phase => writeln!(text, "  {name}: stays").unwrap(),
                Ok(next) => writeln!(text, "  {name}: {next:?}").unwrap(),
                Err(error) => {
                    assert_eq!(error, IllegalTransition { phase, record: record.name() });
                    illegal.push(name);
                }
            }
        }
        writeln!(text, "  illegal: {}", illegal.join(", ")).unwrap();
    }
    insta::assert_snapshot!(text);
}

/// What must hold of any table, whatever the snapshot says.
#[test]
fn the_table_keeps_the_invariants() {
    for phase in phases() {
        for (name, record) in records() {
            let Ok(next) = phase.next(&record) else { continue };
            let case = format!("{phase:?} -> {name} -> {next:?}");
            if next != phase {
                match next {
                    HostPhase::New | HostPhase::Held => assert_eq!(phase, HostPhase::Committing, "{case}"),
                    HostPhase::Old | HostPhase::Dirty => assert_eq!(phase, HostPhase::Undoing, "{case}"),
                    HostPhase::Acting(_) => {
                        let from = [HostPhase::Prepared, HostPhase::Between(2), HostPhase::Halted(2)];
                        assert!(from.contains(&phase), "no act before the undo is there: {case}");
                    }
                    HostPhase::Spared => {
                        let refused = name == "host-settled skipped" && phase == HostPhase::Preparing;
                        assert!(refused || phase == HostPhase::Untouched, "{case}");
                    }
                    HostPhase::Untouched => panic!("nothing is forgotten: {case}"),
                    _ => {}
                }
            }
            if matches!(record, Record::RunFinished { .. }) {
                assert!(phase.is_settled() || phase == HostPhase::Untouched, "a run ends settled: {case}");
            }
        }
        let reopen = Record::RunReopened { command: ReopenCommand::Rollback, by: Operator::default() };
        let reopened = phase.next(&reopen).unwrap();
        let back = reopened.next(&Record::UndoStarted { reason: String::new(), with_rest: true });
        assert_eq!(back.is_ok(), phase.can_go_back(), "what was touched can always go back: {phase:?}");
    }
}
