use crate::journal::{Entry, LineHash, Log, Record};
use crate::secret::{Redactor, SecretValue};

use super::*;

/// A run in which everything happens that can: entries as they stand in a journal, without the chain.
const MIXED: &str = include_str!("../../../tests/fixtures/report-mixed.jsonl");

pub(in crate::report) fn mixed() -> Vec<Entry> {
    MIXED.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(in crate::report) fn tell(entries: Vec<Entry>, at_work: bool) -> Story {
    let log = Log { header: None, entries, hashes: vec![LineHash::of(b"the last line")], good_bytes: 0, torn: false };
    let run = "20260317-020411-5a1c0d".parse().unwrap();
    let told = "2026-03-17T09:30:00Z".parse().unwrap();
    Story::of(&Source { run: &run, log: &log, at_work, told }).unwrap()
}

fn until(last: &str) -> Vec<Entry> {
    let entries = mixed();
    let end = entries.iter().position(|entry| entry.record.name() == last).unwrap();
    entries.into_iter().take(end + 1).collect()
}

#[test]
fn a_run_in_which_everything_happens() {
    insta::assert_json_snapshot!(tell(mixed(), false).cleaned(&Redactor::new()));
}

#[test]
fn what_was_cut_off_is_not_told_as_settled() {
    // In the midst of the second batch.
    let entries = until("commit-started");
    let cut = tell(entries.clone(), false);
    assert_eq!(cut.status, "cut-off");
    assert_eq!(cut.hosts[0].status, "owed", "let go or not: nobody has seen it");
    assert_eq!(cut.hosts[0].credentials[0].now, None, "nobody has read it back");
    assert!(cut.sentence.ends_with("It was cut off and is not settled."), "{}", cut.sentence);
    assert_eq!(cut.left[0].level, Level::Must);
    assert_eq!(
        cut.left[0].here,
        ["keyswap resume 20260317-020411-5a1c0d", "keyswap resume --back 20260317-020411-5a1c0d"]
    );
    let read = "The new credential was read back from the host";
    assert!(cut.proofs.iter().all(|proof| proof.what != read));
    // The same records, while somebody works on.
    let works = tell(entries, true);
    assert_eq!((works.status, works.hosts[0].status, works.left.len()), ("at-work", "at-work", 0));
}

#[test]
fn a_run_that_never_began_is_told_too() {
    let story = tell(Vec::new(), false);
    assert_eq!((story.status, story.sentence.as_str()), ("not-begun", "The run was cut off before anything was done."));
    assert_eq!((story.hosts.len(), story.sittings.len(), story.left.len()), (0, 0, 0));
}

#[test]
fn an_older_journal_loads_and_proves_less() {
    // As keyswap wrote them before it told actions and what was seen.
    let strip = |entry: Entry| {
        let mut line = serde_json::to_value(entry).unwrap();
        let fields = line.as_object_mut().unwrap();
        fields.shift_remove("action");
        fields.shift_remove("seen");
        serde_json::from_value(line).unwrap()
    };
    let story = tell(mixed().into_iter().map(strip).collect(), false);
    let what: Vec<(&str, Verdict)> = story.proofs.iter().map(|proof| (proof.what.as_str(), proof.verdict)).collect();
    assert_eq!(
        what,
        [
            ("Secret `token` reads its keys and nothing else", Verdict::Pass),
            ("The new credential was read back from the host", Verdict::Pass),
            ("The old credential was read back from the host", Verdict::Pass),
        ]
    );
}

#[test]
fn a_restart_that_was_not_looked_at_is_no_proof() {
    let mut entries = mixed();
    for entry in &mut entries {
        if let Record::StepFinished { seen, .. } = &mut entry.record {
            seen.clear();
        }
    }
    let story = tell(entries, false);
    let process = story.proofs.iter().find(|proof| proof.what.starts_with("The running process")).unwrap();
    assert_eq!((process.verdict, process.said.as_str()), (Verdict::CouldNotLook, "on 0 of 1 hosts"));
    assert_eq!(process.hosts, ["runner-01"], "it is named");
}

#[test]
fn a_publish_run_of_nobody_knows_whom_is_no_proof() {
    let with = |before: &str, after: &str| {
        let mut entries = mixed();
        for entry in &mut entries {
            if let Record::StepFinished { detail, .. } = &mut entry.record
                && detail.starts_with("run #412")
            {
                *detail = format!("{before}{detail}{after}");
            }
        }
        entries
    };
    let verdict = |entries| {
        let story = tell(entries, false);
        let proof = story.proofs.iter().find(|proof| proof.what.ends_with("(verify-publish)"));
        proof.map(|proof| proof.verdict)
    };
    assert_eq!(verdict(with("unverified: ", "")), Some(Verdict::CouldNotLook));
    assert_eq!(verdict(with("", "; it is not known whether it ran on runner-01")), Some(Verdict::CouldNotLook));
    assert_eq!(verdict(mixed()), Some(Verdict::Pass));
}

#[test]
fn files_without_a_restart_after_them_are_left_to_do() {
    let mut entries = mixed();
    for entry in &mut entries {
        // On the first host it did not succeed, and the host was let go all the same.
        let first = entry.host.as_ref().is_some_and(|host| host.as_str() == "runner-01");
        if let Record::StepStarted { action, .. } = &mut entry.record
            && first
            && action.as_deref() == Some("restart")
        {
            *action = Some("command".to_owned());
        }
    }
    let story = tell(entries, false);
    let task = story.left.iter().find(|task| task.title.starts_with("Restart")).unwrap();
    assert_eq!((task.level, task.hosts.as_slice()), (Level::Should, ["runner-01".to_owned()].as_slice()));
    assert!(tell(mixed(), false).left.iter().all(|task| !task.title.starts_with("Restart")));
}

#[test]
fn secrets_and_controls_do_not_get_out() {
    let redactor = Redactor::new();
    let token = "test-token-report-4f1d";
    redactor.register(&SecretValue::new(token.as_bytes().to_vec().into()).unwrap());
    let mut story = tell(mixed(), false);
    story.hosts[0].steps[0].detail = format!("it said\u{1b}[2J {token}\u{202e}\0 and more");
    let told = story.cleaned(&redactor).to_string();
    assert!(!told.contains(token) && told.contains("[secret sha256:"), "it is replaced by its fingerprint");
    assert!(!told.chars().any(|c| c.is_control() || c == '\u{202e}') && !told.contains("[2J"));
}
