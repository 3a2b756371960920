//! Sample runs in every format, whole.

use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::*;
use crate::event::EventKind;
use crate::model::{CredentialState, Fingerprint, HostName, HostResult, HostStatus, RunStatus, StepRef, StepStatus};
use crate::secret::{Redactor, SecretValue};

#[derive(Clone, Default)]
pub(super) struct Sink(pub(super) Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) const TOKEN: &str = "test-token-\"new\\0123456789x";

pub(super) fn redactor() -> Redactor {
    let redactor = Redactor::new();
    redactor.register(&SecretValue::new(Zeroizing::new(TOKEN.as_bytes().to_vec())).unwrap());
    redactor
}

/// The events in each format: plain, coloured, JSON lines.
fn shown(events: &[Event]) -> String {
    type Make = fn(Sink) -> Box<dyn Reporter>;
    let make: [(&str, Make); 3] = [
        ("plain", |sink| Box::new(Plain::new(Printer::new(sink, &redactor())))),
        ("human", |sink| Box::new(Human::new(Screen::new(Box::new(sink), &redactor()), true, false))),
        ("jsonl", |sink| Box::new(Jsonl::new(Printer::new(sink, &redactor())))),
    ];
    let mut all = String::new();
    for (name, make) in make {
        let sink = Sink::default();
        let mut reporter = make(sink.clone());
        events.iter().for_each(|event| reporter.event(event));
        reporter.finish().unwrap();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        match name {
            "plain" => assert!(!text.contains('\u{1b}'), "{text}"),
            "jsonl" => text.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap())),
            _ => {}
        }
        all.push_str(&format!("==> {name}\n{}", text.replace('\u{1b}', "\\e")));
    }
    all
}

struct Story {
    events: Vec<Event>,
}

impl Story {
    fn new(hosts: &[&str], batches: u32) -> Self {
        let mut story = Self { events: Vec::new() };
        story.run(EventKind::RunStarted {
            command: "run".into(),
            playbook: "Rotate the token".into(),
            hosts: names(hosts),
            batches,
        });
        story
    }

    fn add(&mut self, host: Option<&str>, step: Option<StepRef>, kind: EventKind) {
        let seq = self.events.len() as u64 + 1;
        let host = host.map(name);
        let run = "20260102-030405-a1b2c3".parse().unwrap();
        let ts = jiff::Timestamp::from_second(1_767_323_045 + i64::try_from(seq).unwrap()).unwrap();
        self.events.push(Event { ts, run, seq, host, step, kind });
    }

    fn run(&mut self, kind: EventKind) {
        self.add(None, None, kind);
    }

    fn host(&mut self, host: &str, kind: EventKind) {
        self.add(Some(host), None, kind);
    }

    fn step(&mut self, host: &str, index: u32, status: StepStatus, detail: &str) {
        self.add(Some(host), Some(step(index)), EventKind::StepStarted);
        let elapsed_ms = u64::from(index) * 1234;
        self.add(Some(host), Some(step(index)), EventKind::StepFinished { status, detail: detail.into(), elapsed_ms });
    }

    fn end(&mut self, status: RunStatus, exit_code: u8, hosts: Vec<HostResult>) -> String {
        for result in &hosts {
            self.host(result.host.as_str(), EventKind::HostFinished { result: result.clone() });
        }
        self.run(EventKind::RunFinished { status, exit_code, hosts });
        shown(&self.events)
    }
}

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<HostName> {
    texts.iter().map(|text| name(text)).collect()
}

fn step(index: u32) -> StepRef {
    let names = ["Back up the current token", "Place the new token", "Point the runner at it", "Restart the runner"];
    StepRef { index, name: names.get(index as usize - 1).copied().unwrap_or("Verify publishing").into() }
}

fn result(host: &str, status: HostStatus, before: &[u8], now: &[u8]) -> HostResult {
    let state = CredentialState {
        path: "/srv/runner/token".into(),
        before: Some(Fingerprint::of(before)),
        now: Some(Fingerprint::of(now)),
        unread: false,
    };
    HostResult {
        host: name(host),
        status,
        batch: 1,
        credentials: vec![state],
        reason: None,
        mend: Vec::new(),
        notes: Vec::new(),
    }
}

fn unseen(host: &str, status: HostStatus, reason: &str) -> HostResult {
    HostResult { batch: 0, credentials: Vec::new(), reason: Some(reason.into()), ..result(host, status, b"", b"") }
}

#[test]
fn a_run_that_succeeds() {
    let mut story = Story::new(&["runner-01", "rs2000-docker"], 1);
    story.run(EventKind::BatchStarted { batch: 1, of: 1, hosts: names(&["runner-01", "rs2000-docker"]) });
    for host in ["runner-01", "rs2000-docker"] {
        story.host(host, EventKind::HostReady { detail: "ops, sudo, dash, systemd".into() });
        story.step(host, 1, StepStatus::Changed, "/srv/runner/token kept as sha256:3f1c09b2a4de");
        story.step(host, 2, StepStatus::Changed, "/srv/runner/token, mode 0600");
        story.step(host, 3, StepStatus::Ok, "already there");
        story.add(Some(host), Some(step(4)), EventKind::StepProgress { detail: "waiting for 1 job".into() });
        story.step(host, 4, StepStatus::Changed, "");
    }
    story.add(None, Some(step(5)), EventKind::StepStarted);
    let status = StepStatus::Ok;
    let detail = "run 17 succeeded".into();
    story.add(None, Some(step(5)), EventKind::StepFinished { status, detail, elapsed_ms: 83_000 });
    story.run(EventKind::BatchFinished { batch: 1, of: 1, hosts_done: 2, hosts_total: 2 });
    let mut second = result("rs2000-docker", HostStatus::Changed, b"test-token-old", TOKEN.as_bytes());
    second.notes.push("process not checked".into());
    let hosts = vec![result("runner-01", HostStatus::Changed, b"test-token-old", TOKEN.as_bytes()), second];
    insta::assert_snapshot!(story.end(RunStatus::Succeeded, 0, hosts));
}

#[test]
fn a_run_that_fails_and_is_rolled_back() {
    let mut story = Story::new(&["runner-01", "runner-02", "runner-03"], 2);
    story.run(EventKind::BatchStarted { batch: 1, of: 2, hosts: names(&["runner-01"]) });
    story.step("runner-01", 2, StepStatus::Changed, "/srv/runner/token, mode 0600");
    // A hostile host answers with the token and with escape sequences.
    let answer = format!("\u{1b}[2Junit failed:\n{TOKEN} \u{202e}");
    story.step("runner-01", 4, StepStatus::Failed, &answer);
    story.host("runner-01", EventKind::UndoStarted { reason: "step 4 failed".into() });
    let undo = |status| EventKind::UndoFinished { status, detail: "put back".into() };
    story.add(Some("runner-01"), Some(step(2)), undo(StepStatus::Changed));
    story.run(EventKind::Warning { message: "the rollout stops: 1 failed host, 0 allowed".into() });
    let mut first = result("runner-01", HostStatus::RolledBack, b"test-token-old", b"test-token-old");
    first.reason = Some(format!("4. Restart the runner: unit failed: {TOKEN}"));
    let hosts = vec![
        first,
        unseen("runner-02", HostStatus::Unreachable, "connection refused"),
        unseen("runner-03", HostStatus::Skipped, "the rollout stopped"),
    ];
    let text = story.end(RunStatus::RolledBack, 2, hosts);
    assert!(!text.contains("0123456789x") && !text.contains("\\e[2J"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_run_that_leaves_a_host_dirty_and_one_owed() {
    let mut story = Story::new(&["runner-01", "runner-02"], 1);
    story.run(EventKind::BatchStarted { batch: 1, of: 1, hosts: names(&["runner-01", "runner-02"]) });
    story.step("runner-01", 3, StepStatus::Failed, "read-only file system");
    story.step("runner-02", 2, StepStatus::Unknown, "the connection was lost: timed out");
    let mut dirty = result("runner-01", HostStatus::Dirty, b"test-token-old", TOKEN.as_bytes());
    dirty.reason = Some("/srv/runner/token could not be put back: read-only file system".into());
    dirty.mend = vec![
        "mount -o remount,rw /srv".into(),
        format!("cp -p /var/lib/keyswap/runs/20260102-030405-a1b2c3/pre/1 /srv/runner/{}", "d/".repeat(300)),
        "systemctl restart forgejo-runner".into(),
    ];
    let mut owed = unseen("runner-02", HostStatus::Owed, "the connection was lost");
    owed.batch = 1;
    insta::assert_snapshot!(story.end(RunStatus::Dirty, 3, vec![dirty, owed]));
}

#[test]
fn a_check_shows_what_would_change() {
    let mut story = Story::new(&["runner-01"], 1);
    let diff = vec!["-INFISICAL_TOKEN_AUTH_FILE=/data/old".into(), "+INFISICAL_TOKEN_AUTH_FILE=/data/new".into()];
    let (status, detail) = (StepStatus::Changed, "would set one key".into());
    story.add(
        Some("runner-01"),
        Some(step(3)),
        EventKind::StepPlanned { status, detail, diff, at_most: Some(90), once: crate::model::Once::Host },
    );
    insta::assert_snapshot!(shown(&story.events));
}

#[test]
fn half_a_secret_leaves_no_half_of_an_escape() {
    let mut story = Story::new(&["runner-01"], 1);
    // Cut off behind its backslash, which JSON doubles.
    let cut = TOKEN.split_inclusive('\\').next().unwrap();
    assert!(cut.len() >= 16);
    story.host("runner-01", EventKind::Warning { message: format!("read {cut}") });
    let text = shown(&story.events);
    assert!(text.contains("\"message\":\"read [secret sha256:051dfd04b1ef]\""), "{text}");
}

#[test]
fn a_long_text_is_redacted_before_it_is_cut() {
    let mut story = Story::new(&["runner-01"], 1);
    let message = format!("{}{TOKEN}", "x ".repeat(sanitize::FIELD / 2 - 6));
    story.host("runner-01", EventKind::Warning { message });
    let text = shown(&story.events);
    assert!(!text.contains("test-tok") && text.contains("[secret"), "{text}");
}

#[test]
fn a_closed_pipe_is_told_at_the_end_and_stops_nothing() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut reporter = Plain::new(Printer::new(Closed, &redactor()));
    let story = Story::new(&["runner-01"], 1);
    story.events.iter().for_each(|event| reporter.event(event));
    assert_eq!(reporter.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
