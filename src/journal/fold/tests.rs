//! Whole histories and random ones, folded.

use proptest::prelude::*;

use super::*;
use crate::journal::phase::tests::{host, records};

fn entry(seq: u64, record: Record) -> Entry {
    let of_host = matches!(
        record,
        Record::PrepareStarted
            | Record::HostPrepared { .. }
            | Record::StepStarted { .. }
            | Record::StepFinished { .. }
            | Record::UndoStarted { .. }
            | Record::UndoFinished { .. }
            | Record::CopiesRemoved { .. }
            | Record::HostSettled { .. }
    );
    Entry { seq, ts: Timestamp::UNIX_EPOCH, host: of_host.then(host), record }
}

fn named(names: &[&str]) -> Vec<Entry> {
    let all = records();
    let find = |name: &str| all.iter().find(|(known, _)| known == name).expect(name).1.clone();
    (1..).zip(names).map(|(seq, name)| entry(seq, find(name))).collect()
}

const FORWARD: &[&str] = &[
    "run-started",
    "secret-known",
    "prepare-started",
    "host-prepared",
    "step-started 2",
    "step-finished 2 changed",
    "commit-started",
    "host-settled changed",
    "run-finished",
];

#[test]
fn a_run_that_went_well() {
    let state = RunState::fold(&named(FORWARD)).unwrap();
    assert_eq!(state.phase, RunPhase::Finished(RunStatus::Succeeded));
    assert!(!state.needs_settling());
    assert_eq!(state.can_go_back().count(), 1);
    let host = state.hosts.get(&host()).unwrap();
    assert_eq!((host.phase, host.steps_done().count()), (HostPhase::New, 1));
    assert!(host.in_flight().is_none());
    assert_eq!(state.last_seq, 9);
    assert_eq!(state.secrets.len(), 1);
}

#[test]
fn a_host_has_failed_once_its_step_has() {
    let fell = |end: &str, stopped: bool| {
        let mut entries = named(&[&FORWARD[..5], &[end]].concat());
        if let Record::StepFinished { stopped: of, .. } = &mut entries[5].record {
            *of = stopped;
        }
        RunState::fold(&entries).unwrap().hosts.get(&host()).unwrap().fell
    };
    assert!(fell("step-finished 2 failed", false) && fell("step-finished 2 unknown", false));
    assert!(!fell("step-finished 2 changed", false));
    assert!(!fell("step-finished 2 failed", true), "it was stopped");
}

#[test]
fn a_run_that_was_cut_off_in_a_step_and_taken_back() {
    let mut names = FORWARD[..5].to_vec();
    let state = RunState::fold(&named(&names)).unwrap();
    assert!(state.needs_settling());
    assert_eq!(state.unsettled().count(), 1);
    assert_eq!(state.hosts.get(&host()).unwrap().in_flight().unwrap().step.index, 2);
    names.extend(["run-reopened", "undo-started", "undo-finished", "host-settled rolled-back", "run-finished"]);
    let state = RunState::fold(&named(&names)).unwrap();
    assert_eq!(state.hosts.get(&host()).unwrap().phase, HostPhase::Old);
    assert_eq!((state.can_go_back().count(), state.needs_settling()), (0, false));
}

#[test]
fn what_cannot_have_happened_is_refused_with_its_number() {
    let fault = |names: &[&str]| RunState::fold(&named(names)).unwrap_err();
    assert_eq!(fault(&["note"]).fault, FoldFault::NotStarted);
    assert_eq!(fault(&["run-started", "run-started"]).fault, FoldFault::Started);
    assert_eq!(fault(&["run-started", "run-finished", "prepare-started"]).fault, FoldFault::Ended);
    let act = fault(&["run-started", "step-started 1"]);
    assert_eq!(act.seq, 2);
    assert_eq!(
        act.to_string(),
        "record 2 (`step-started`): host `runner-01`: `step-started` cannot follow while the host is Untouched"
    );
    assert!(fault(&["run-started", "host-prepared", "run-finished"]).to_string().contains("Prepared"));

    let with = |change: fn(&mut Entry), record: &str| {
        let mut entries = named(&["run-started", record]);
        change(entries.last_mut().unwrap());
        RunState::fold(&entries).unwrap_err().fault
    };
    let other: HostName = "other".parse().unwrap();
    assert_eq!(with(|e| e.seq = 3, "note"), FoldFault::Number(2));
    assert_eq!(with(|e| e.host = None, "prepare-started"), FoldFault::NoHost);
    assert_eq!(with(|e| e.host = Some(host()), "secret-known"), FoldFault::OneHost);
    assert_eq!(with(|e| e.host = "other".parse().ok(), "host-prepared"), FoldFault::UnknownHost(other.clone()));
    assert_eq!(with(|e| e.host = "other".parse().ok(), "note"), FoldFault::UnknownHost(other));
    assert!(matches!(with(|e| e.host = None, "step-finished 2 ok"), FoldFault::StepNotBegun(_)));
}

#[test]
fn a_secret_keeps_its_fingerprint_through_a_run() {
    let mut entries = named(&["run-started", "secret-known", "secret-known"]);
    assert!(RunState::fold(&entries).is_ok());
    let other = Fingerprint::of(b"test-token-2");
    entries.last_mut().unwrap().record = Record::SecretKnown { name: "token".into(), fingerprint: other };
    assert_eq!(RunState::fold(&entries).unwrap_err().fault, FoldFault::SecretChanged("token".into()));
}

#[test]
fn a_step_of_the_batch_is_kept_apart_from_the_hosts() {
    let mut entries = named(&["run-started", "step-started 3", "step-finished 3 ok"]);
    entries.iter_mut().for_each(|entry| entry.host = None);
    let state = RunState::fold(&entries).unwrap();
    assert_eq!(state.shared_steps.first().unwrap().status, Some(StepStatus::Ok));
    assert_eq!(state.hosts.get(&host()).unwrap().phase, HostPhase::Untouched);
}

proptest! {
    #[test]
    fn any_records_fold_or_are_refused_and_leave_no_trace(picks in proptest::collection::vec(0_usize..1000, 0..80)) {
        let all = records();
        let mut state = RunState::default();
        let mut legal: Vec<Entry> = Vec::new();
        state.apply(&entry(1, all.first().unwrap().1.clone())).unwrap();
        legal.push(entry(1, all.first().unwrap().1.clone()));
        for pick in picks {
            let (_, record) = &all[pick % all.len()];
            let next = entry(state.last_seq + 1, record.clone());
            let before = state.clone();
            match state.apply(&next) {
                Ok(()) => legal.push(next),
                Err(_) => prop_assert_eq!(&state, &before),
            }
        }
        prop_assert_eq!(RunState::fold(&legal).unwrap(), state);
        for end in 0..legal.len() {
            prop_assert!(RunState::fold(&legal[..end]).is_ok(), "every beginning of a legal history is legal");
        }
    }
}

#[test]
fn a_token_that_no_host_can_hold_is_owed_until_it_is_dead() {
    let asked = ["run-started", "token-requested"];
    let state = RunState::fold(&named(&asked)).unwrap();
    assert!(state.owed_token().is_some(), "it may have been minted, and nobody knows its id");
    let minted = ["run-started", "token-requested", "token-minted", "prepare-started"];
    let state = RunState::fold(&named(&minted)).unwrap();
    assert!(state.owed_token().is_none(), "the host may hold it");
    let back = [&minted[..], &["run-reopened", "undo-started", "host-settled rolled-back", "run-finished"]].concat();
    let state = RunState::fold(&named(&back)).unwrap();
    assert!(state.owed_token().is_some() && state.needs_settling());
    let dead = [&back[..], &["token-revoked"]].concat();
    let state = RunState::fold(&named(&dead)).unwrap();
    assert!(state.owed_token().is_none() && !state.needs_settling());
    for wrong in [
        &["run-started", "token-minted"][..],
        &["run-started", "token-revoked"],
        &["run-started", "token-requested", "token-requested"],
        &["run-started", "token-requested", "token-minted", "token-minted"],
        &["run-started", "token-requested", "token-revoked", "token-minted"],
    ] {
        assert!(matches!(RunState::fold(&named(wrong)).unwrap_err().fault, FoldFault::Token(_)), "{wrong:?}");
    }
}

#[test]
fn past_the_point_of_no_return_nothing_is_taken_up_again() {
    let retired = [FORWARD, &["retire-started", "old-revoked", "copies-removed", "retired"]].concat();
    let state = RunState::fold(&named(&retired)).unwrap();
    assert!(state.retired.as_ref().is_some_and(|retired| retired.finished.is_some()) && !state.needs_settling());
    for next in ["run-reopened", "undo-started"] {
        assert!(RunState::fold(&named(&[&retired[..], &[next]].concat())).is_err(), "{next}");
    }
    let cut = [FORWARD, &["retire-started", "run-reopened"]].concat();
    assert_eq!(RunState::fold(&named(&cut)).unwrap_err().fault, FoldFault::Retired);
    let open = [&FORWARD[..5], &["retire-started"]].concat();
    assert_eq!(RunState::fold(&named(&open)).unwrap_err().fault, FoldFault::Retired, "it must have ended");
    let again = [FORWARD, &["retire-started", "retire-started", "copies-removed", "retired"]].concat();
    assert!(RunState::fold(&named(&again)).is_ok(), "what was cut off is gone on with");
}
