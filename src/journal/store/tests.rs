//! Real directories: modes, locks, torn and changed journals.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::journal::phase::tests::{host, records};
use crate::journal::record::Record;

fn by() -> Operator {
    Operator { user: "ops".into(), host: "laptop".into(), pid: 42, version: "0.0.0".into() }
}

fn record(name: &str) -> Record {
    records().into_iter().find(|(known, _)| known == name).expect(name).1
}

const RUN: &[&str] = &["run-started", "host-prepared", "step-started 2", "step-finished 2 changed"];

async fn sample(store: &Store, run: &RunId) -> Journal {
    let journal = store.create(run, &serde_json::json!({ "steps": 2 }), "run", &by()).unwrap();
    for name in RUN {
        let of = (*name != "run-started").then(host);
        journal.append(of.as_ref(), record(name)).await.unwrap();
    }
    journal
}

fn run(text: &str) -> RunId {
    text.parse().unwrap()
}

#[tokio::test]
async fn everything_in_a_run_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/state");
    let store = Store::open(&state).unwrap();
    let id = run("20260102-030405-a1b2c3");
    let journal = sample(&store, &id).await;
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    let run_dir = store.dir(&id);
    for path in [&state, &state.join("runs"), run_dir.path()] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    for path in [run_dir.journal_path(), run_dir.plan_path(), run_dir.lock_path()] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(std::fs::read_dir(run_dir.path()).unwrap().count(), 3, "no temporary file is left");
    assert_eq!(store.plan::<serde_json::Value>(&id).unwrap(), serde_json::json!({ "steps": 2 }));
    journal.close().await.unwrap();
    assert!(store.create(&id, &(), "run", &by()).is_err(), "a run is made once");

    std::fs::set_permissions(state.join("runs"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Store::open(&state), Err(JournalError::UnsafeDir { .. })));
}

#[tokio::test]
async fn a_run_has_one_worker_and_says_who() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = run("20260102-030405-a1b2c3");
    let journal = sample(&store, &id).await;
    let held = store.reopen(&id, "resume", &by()).unwrap_err();
    let JournalError::Locked(holder) = &held else { panic!("{held}") };
    assert_eq!((holder.pid, holder.host.as_str(), holder.command.as_str()), (42, "laptop", "run"));
    assert!(held.to_string().contains("`keyswap run` of ops on laptop, process 42, since 2"), "{held}");
    let listed = store.list().unwrap();
    assert!(listed.iter().all(|summary| summary.locked && !summary.needs_settling()));
    journal.close().await.unwrap();

    let (journal, state) = store.reopen(&id, "resume", &by()).unwrap();
    assert_eq!(state, store.state(&id).unwrap());
    assert!(journal.append(None, record("run-reopened")).await.is_ok());
    journal.close().await.unwrap();
    let listed = store.list().unwrap();
    assert!(listed.iter().all(|summary| !summary.locked && summary.needs_settling()));
    assert_eq!(store.read(&id).unwrap().entries.len(), RUN.len() + 1, "the chain goes on across processes");
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_found_by_a_unique_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(store.find(None), Err(JournalError::NoRuns(_))));
    for text in ["20260102-030405-a1b2c3", "20260103-000000-000000", "20260102-030405-a1ffff"] {
        sample(&store, &run(text)).await.close().await.unwrap();
    }
    std::fs::create_dir(dir.path().join("runs/lost+found")).unwrap();
    let ids: Vec<String> = store.ids().unwrap().into_iter().map(String::from).collect();
    assert_eq!(ids, ["20260103-000000-000000", "20260102-030405-a1ffff", "20260102-030405-a1b2c3"]);
    assert_eq!(store.find(None).unwrap().as_str(), "20260103-000000-000000");
    assert_eq!(store.find(Some("20260103")).unwrap().as_str(), "20260103-000000-000000");
    assert_eq!(store.find(Some("20260102-030405-a1b")).unwrap().as_str(), "20260102-030405-a1b2c3");
    let many = store.find(Some("20260102")).unwrap_err();
    assert_eq!(many.to_string(), "`20260102` could be any of 20260102-030405-a1ffff, 20260102-030405-a1b2c3");
    assert!(matches!(store.find(Some("2027")), Err(JournalError::NoSuchRun(_))));
}

/// The controller was killed in between: there is no plan, and nothing was done.
#[tokio::test]
async fn a_run_whose_making_was_cut_off_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (whole, cut) = (run("20260102-030405-a1b2c3"), run("20260103-000000-000000"));
    sample(&store, &whole).await.close().await.unwrap();
    std::fs::create_dir(store.dir(&cut).path()).unwrap();
    for made in ["", "lock", "plan.json.tmp"] {
        std::fs::write(store.dir(&cut).path().join(made), "").ok();
        assert_eq!(store.ids().unwrap(), std::slice::from_ref(&whole), "{made}");
        assert_eq!(store.find(None).unwrap(), whole, "{made}");
        assert!(matches!(store.find(Some(cut.as_str())), Err(JournalError::NoSuchRun(_))), "{made}");
    }
    std::fs::write(store.dir(&cut).plan_path(), "{}").unwrap();
    assert_eq!(store.find(None).unwrap(), cut, "it has a plan, and no journal yet");
    assert!(store.state(&cut).unwrap().hosts.is_empty());
    std::fs::remove_file(store.dir(&whole).plan_path()).unwrap();
    assert_eq!(store.ids().unwrap(), [cut, whole], "what has lost its plan holds hosts all the same");
}

#[tokio::test]
async fn a_journal_cut_anywhere_is_read_up_to_its_last_whole_line_and_goes_on() {
    // Two thousand journals with five syncs each: in memory where there is such a place.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = run("20260102-030405-a1b2c3");
    sample(&store, &id).await.close().await.unwrap();
    let path = store.dir(&id).journal_path();
    let whole = std::fs::read(&path).unwrap();
    let full = store.read(&id).unwrap();
    for cut in 0..=whole.len() {
        let bytes = &whole[..cut];
        std::fs::write(&path, bytes).unwrap();
        let log = store.read(&id).unwrap();
        let lines = bytes.iter().filter(|&&b| b == b'\n').count();
        assert_eq!(log.entries, full.entries[..lines.saturating_sub(1)], "cut at {cut}");
        assert_eq!(log.torn, !bytes.is_empty() && !bytes.ends_with(b"\n"), "cut at {cut}");
        let (journal, state) = store.reopen(&id, "resume", &by()).unwrap();
        assert_eq!(state, RunState::fold(&log.entries).unwrap());
        let again = if lines < 2 { "run-started" } else { "run-reopened" };
        journal.append(None, record(again)).await.unwrap();
        journal.close().await.unwrap();
        let log = store.read(&id).unwrap();
        assert_eq!((log.torn, log.entries.len()), (false, lines.max(1)), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_changed_line_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = run("20260102-030405-a1b2c3");
    sample(&store, &id).await.close().await.unwrap();
    let path = store.dir(&id).journal_path();
    let whole = std::fs::read_to_string(&path).unwrap();
    let last = whole.trim_end().rfind('\n').unwrap();
    for at in 0..last {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] ^= 1;
        let line = bytes[..at].iter().filter(|&&b| b == b'\n').count() as u64 + 1;
        match Log::parse(&path, &bytes).unwrap_err() {
            JournalError::NotAJournal { .. } | JournalError::NewerFormat { .. } => assert_eq!(line, 1, "byte {at}"),
            JournalError::BadLine { line: told, .. } | JournalError::BrokenChain { line: told } => {
                assert!(told == line || told == line + 1, "byte {at} in line {line}, told {told}");
            }
            other => panic!("byte {at}: {other}"),
        }
    }
    let lines: Vec<&str> = whole.lines().collect();
    let without = |gone: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| format!("{line}\n"));
        Log::parse(&path, kept.collect::<String>().as_bytes())
    };
    assert!(matches!(without(2), Err(JournalError::BrokenChain { line: 3 })));

    std::fs::write(&path, whole.replace("\"keyswap-journal\":1", "\"keyswap-journal\":2")).unwrap();
    let newer = store.reopen(&id, "resume", &by()).unwrap_err();
    assert_eq!(newer.to_string(), "the journal has format 2, this keyswap reads up to 1; use the newer keyswap");
    assert!(store.list().unwrap().iter().all(|summary| summary.state.is_err()), "it does not hide the others");
}
