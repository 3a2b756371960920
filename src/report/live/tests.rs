//! Frames of recorded runs at given moments and sizes.

use proptest::prelude::*;

use super::super::tests::{Sink, TOKEN, redactor};
use super::super::{Human, Reporter, Screen};
use super::*;
use crate::model::{HostResult, RunStatus, StepRef};

const SIZES: [(usize, usize); 3] = [(80, 24), (40, 10), (200, 50)];

const STEPS: [&str; 5] = [
    "Back up the current token",
    "Place the new token",
    "Point the runner at it",
    "Restart the runner",
    "Verify that publishing still works",
];

/// A run, event by event.
struct Tale {
    events: Vec<Event>,
    /// Seconds since it began.
    at: i64,
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_323_045 + seconds).unwrap()
}

fn host(number: usize) -> HostName {
    format!("runner-{number:02}").parse().unwrap()
}

fn step(index: u32) -> StepRef {
    StepRef { index, name: STEPS[index as usize - 1].into() }
}

impl Tale {
    fn new(command: &str, hosts: usize, batches: u32) -> Self {
        let mut tale = Self { events: Vec::new(), at: 0 };
        let hosts = (1..=hosts).map(host).collect();
        tale.all(EventKind::RunStarted {
            command: command.into(),
            playbook: "Rotate the token".into(),
            hosts,
            batches,
        });
        tale
    }

    fn add(&mut self, host: Option<HostName>, step: Option<StepRef>, kind: EventKind) {
        let seq = self.events.len() as u64 + 1;
        let run = "20260102-030405-a1b2c3".parse().unwrap();
        self.events.push(Event { ts: moment(self.at), run, seq, host, step, kind });
    }

    fn all(&mut self, kind: EventKind) {
        self.add(None, None, kind);
    }

    fn ready(&mut self, hosts: impl Iterator<Item = usize>) {
        hosts.for_each(|at| self.add(Some(host(at)), None, EventKind::HostReady { detail: "ops".into() }));
    }

    fn batch(&mut self, batch: u32, of: u32, hosts: impl Iterator<Item = usize>) {
        self.all(EventKind::BatchStarted { batch, of, hosts: hosts.map(host).collect() });
    }

    fn begin(&mut self, at: usize, index: u32) {
        self.add(Some(host(at)), Some(step(index)), EventKind::StepStarted);
    }

    fn waits(&mut self, at: usize, index: u32, detail: &str) {
        self.add(Some(host(at)), Some(step(index)), EventKind::StepProgress { detail: detail.into() });
    }

    fn end(&mut self, at: usize, index: u32, status: StepStatus, detail: &str) {
        let kind = EventKind::StepFinished { status, detail: detail.into(), elapsed_ms: 2_100 };
        self.add(Some(host(at)), Some(step(index)), kind);
    }

    fn done(&mut self, at: usize, status: HostStatus) {
        let (credentials, reason, mend, notes) = (Vec::new(), None, Vec::new(), Vec::new());
        let result = HostResult { host: host(at), status, batch: 1, credentials, reason, mend, notes };
        self.add(Some(host(at)), None, EventKind::HostFinished { result });
    }

    fn live(&self) -> Live {
        let mut live = Live::new(Cleaner::new(&redactor()), "");
        self.events.iter().for_each(|event| live.event(event));
        live
    }

    /// The frame at this moment, in each size. A bar at a row's end shows where the terminal ends.
    fn frames(&self) -> String {
        let live = self.live();
        let mut out = String::new();
        for (width, height) in SIZES {
            out.push_str(&format!("{width}x{height}\n"));
            for line in live.frame(moment(self.at), Size { width, height }) {
                let text = line.plain();
                out.push_str(&format!("{text}{}|\n", " ".repeat(width - columns(&text))));
            }
        }
        out
    }
}

/// The second batch of a rotation: one host drains, the others restart or are done.
fn under_way() -> Tale {
    let mut tale = Tale::new("run", 12, 3);
    tale.ready(1..=12);
    tale.batch(1, 3, 1..=1);
    tale.begin(1, 4);
    tale.end(1, 4, StepStatus::Changed, "");
    tale.done(1, HostStatus::Changed);
    tale.all(EventKind::BatchFinished { batch: 1, of: 3, hosts_done: 1, hosts_total: 12 });
    tale.at = 20;
    tale.batch(2, 3, 2..=6);
    for at in 2..=6 {
        tale.begin(at, 4);
    }
    tale.waits(
        3,
        4,
        "waiting for 1 job: the runner works on docker-publish of owner/repo, as the forge says it has for 12 minutes",
    );
    tale.at = 62;
    tale.end(4, 4, StepStatus::Changed, "");
    tale.end(2, 4, StepStatus::Changed, "");
    tale.at = 95;
    tale
}

#[test]
fn looking_at_the_hosts() {
    let mut tale = Tale::new("run", 60, 3);
    tale.ready(1..=21);
    tale.done(22, HostStatus::Unreachable);
    tale.at = 4;
    insta::assert_snapshot!(tale.frames());
}

#[test]
fn a_batch_under_way() {
    insta::assert_snapshot!(under_way().frames());
}

#[test]
fn a_batch_that_waits_for_its_verification() {
    let mut tale = under_way();
    for at in [3, 5, 6] {
        tale.end(at, 4, StepStatus::Changed, "");
    }
    tale.add(None, Some(step(5)), EventKind::StepStarted);
    let detail = "run #41 (http://127.0.0.1:3000/owner/repo/actions/runs/41) waits for a runner".into();
    tale.add(None, Some(step(5)), EventKind::StepProgress { detail });
    tale.at = 140;
    insta::assert_snapshot!(tale.frames());
}

#[test]
fn a_batch_that_fails() {
    let mut tale = under_way();
    let why = "the restart failed with status 1: the runner did not start";
    tale.end(5, 4, StepStatus::Failed, why);
    tale.at = 97;
    tale.end(3, 4, StepStatus::Unknown, "the connection was lost");
    for at in [2, 5] {
        tale.add(Some(host(at)), None, EventKind::UndoStarted { reason: why.into() });
    }
    tale.add(
        Some(host(5)),
        Some(step(2)),
        EventKind::UndoFinished { status: StepStatus::Changed, detail: "put back".into() },
    );
    tale.done(4, HostStatus::RolledBack);
    tale.all(EventKind::Warning { message: format!("{STOPPING}: no new step begins") });
    tale.at = 101;
    insta::assert_snapshot!(tale.frames());
}

#[test]
fn a_thousand_hosts() {
    let mut tale = Tale::new("run", 1_000, 5);
    tale.ready(1..=1_000);
    tale.batch(3, 5, 201..=500);
    for at in 1..=200 {
        tale.done(at, if at % 50 == 0 { HostStatus::RolledBack } else { HostStatus::Changed });
    }
    for at in 201..=300 {
        tale.at += 1;
        tale.begin(at, 4);
        if at % 4 == 0 {
            tale.end(at, 4, StepStatus::Changed, "");
        }
    }
    tale.at = 7_500;
    insta::assert_snapshot!(tale.frames());
}

#[test]
fn a_rollback() {
    let mut tale = Tale::new("rollback", 4, 1);
    tale.ready(1..=4);
    let reason = "asked for by the operator".to_owned();
    (1..=3).for_each(|at| tale.add(Some(host(at)), None, EventKind::UndoStarted { reason: reason.clone() }));
    tale.done(1, HostStatus::RolledBack);
    tale.at = 9;
    insta::assert_snapshot!(tale.frames());
}

#[test]
fn nothing_is_drawn_before_a_run_and_after_it() {
    let size = Size { width: 80, height: 24 };
    assert_eq!(Live::new(Cleaner::new(&redactor()), "").frame(moment(0), size), []);
    let mut tale = under_way();
    assert!(!tale.live().frame(moment(99), size).is_empty());
    tale.all(EventKind::RunFinished { status: RunStatus::Succeeded, exit_code: 0, hosts: Vec::new() });
    assert_eq!(tale.live().frame(moment(99), size), []);
}

#[test]
fn a_clock_that_was_put_back_harms_nothing() {
    let frame = under_way().live().frame(moment(-500), Size { width: 80, height: 24 });
    assert!(frame.last().is_some());
}

/// A terminal of endless height: what stands in its rows after these bytes. Panics at a code that is not allowed.
fn terminal(bytes: &str, width: usize) -> Vec<String> {
    let (mut rows, mut row, mut column) = (vec![Vec::<char>::new()], 0_usize, 0_usize);
    let mut chars = bytes.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => (row, column) = (row + 1, 0),
            '\r' => column = 0,
            '\u{1b}' => {
                assert_eq!(chars.next(), Some('['));
                let code: String = chars.by_ref().take_while(|c| !"AJKm".contains(*c)).collect();
                let last = bytes[..bytes.len() - chars.as_str().len()].chars().last().unwrap();
                assert!(code.chars().all(|c| c.is_ascii_digit() || (last == 'm' && c == ';')), "{code:?}{last}");
                match last {
                    'A' => row = row.checked_sub(code.parse().unwrap()).expect("never above the first row"),
                    'J' => {
                        rows.truncate(row + 1);
                        rows[row].truncate(column);
                    }
                    'K' => rows[row].truncate(column),
                    _ => {}
                }
            }
            c => {
                assert!(!c.is_control(), "{c:?}");
                if column + columns(c.encode_utf8(&mut [0; 4])) > width {
                    (row, column) = (row + 1, 0);
                }
                rows.resize(rows.len().max(row + 1), Vec::new());
                // Wide and combining characters do not stand in the texts whose places are looked at.
                let line = &mut rows[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += columns(c.encode_utf8(&mut [0; 4]));
            }
        }
        rows.resize(rows.len().max(row + 1), Vec::new());
    }
    rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

/// What a person sees of a run whose events are told one by one, a tick after each.
fn seen(events: &[Event], size: Size, colour: bool, finish: bool) -> String {
    let sink = Sink::default();
    let screen = Screen::new(Box::new(sink.clone()), &redactor());
    let mut human = Human::new(screen, colour, false).live(Box::new(move || size));
    for event in events {
        human.event(event);
        human.tick(event.ts);
    }
    if finish {
        human.finish().unwrap();
    }
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn lines_stay_above_and_the_frame_below() {
    let mut tale = under_way();
    tale.end(5, 4, StepStatus::Failed, "the runner did not start");
    tale.at = 96;
    tale.end(6, 4, StepStatus::Changed, "");
    let size = Size { width: 80, height: 24 };
    let rows = terminal(&seen(&tale.events, size, true, false), 80);
    insta::assert_snapshot!(rows.join("\n"));
    let after = terminal(&seen(&tale.events, size, false, true), 80);
    insta::assert_snapshot!(after.join("\n"));
}

#[test]
fn of_many_hosts_only_what_went_wrong_stays() {
    let mut tale = Tale::new("run", 1_000, 1);
    tale.ready(1..=1_000);
    tale.batch(1, 1, 1..=1_000);
    for at in 1..=1_000 {
        tale.begin(at, 4);
        let (status, end) = if at == 500 {
            (StepStatus::Failed, HostStatus::RolledBack)
        } else {
            (StepStatus::Changed, HostStatus::Changed)
        };
        tale.end(at, 4, status, "as planned");
        tale.done(at, end);
    }
    let rows = terminal(&seen(&tale.events, Size { width: 80, height: 24 }, false, true), 80);
    let told: Vec<&String> = rows.iter().filter(|row| !row.is_empty()).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
}

#[test]
fn a_question_stands_below_what_is_said_meanwhile() {
    let sink = Sink::default();
    let screen = Screen::new(Box::new(sink.clone()), &redactor());
    let size = Size { width: 80, height: 24 };
    let mut human = Human::new(screen.clone(), false, false).live(Box::new(move || size));
    let mut tale = under_way();
    for event in &tale.events {
        human.event(event);
    }
    human.tick(moment(95));
    let text = || String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(terminal(&text(), 80).iter().any(|row| row.starts_with("batch 2/3, 1/12 hosts")));
    let held = screen.ask("Go on? [y/N] ");
    human.tick(moment(100));
    assert!(!terminal(&text(), 80).iter().any(|row| row.starts_with("batch 2/3, 1/12 hosts")));
    tale.at = 101;
    tale.end(5, 4, StepStatus::Failed, "the runner did not start");
    human.event(tale.events.last().unwrap());
    human.tick(moment(101));
    let rows = terminal(&text(), 80);
    assert!(rows[rows.len() - 2].contains("the runner did not start"), "{rows:#?}");
    assert_eq!(rows.last().unwrap(), "Go on? [y/N]");
    drop(held);
    human.tick(moment(102));
    assert!(terminal(&text(), 80).iter().any(|row| row.starts_with("batch 2/3, 1/12 hosts")));
}

#[test]
fn no_secret_is_drawn() {
    let mut tale = under_way();
    tale.waits(5, 4, &format!("the runner says {TOKEN}"));
    tale.at = 96;
    tale.waits(6, 4, &format!("{}{TOKEN}", "x".repeat(40)));
    for width in 20..120 {
        let text = seen(&tale.events, Size { width, height: 24 }, false, false);
        assert!(!text.contains("test-tok"), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_frame(
        texts in prop::collection::vec("[ -~]{0,30}|\\PC{0,30}|[\\x1b\\[\\]0-9;mAJK\r\n\t\u{9b}\u{202e}e\u{301}日a]{0,60}|(日本){0,90}", 5),
        width in 1_usize..120,
        height in 1_usize..40,
    ) {
        let mut tale = Tale::new(&texts[0], 30, 2);
        tale.batch(1, 2, 1..=30);
        for at in 1..=30 {
            let step = StepRef { index: 4, name: texts[1].clone() };
            tale.add(Some(host(at)), Some(step.clone()), EventKind::StepStarted);
            tale.add(Some(host(at)), Some(step.clone()), EventKind::StepProgress { detail: texts[2].clone() });
            if at % 3 == 0 {
                let kind = EventKind::StepFinished { status: StepStatus::Failed, detail: texts[3].clone(), elapsed_ms: 1 };
                tale.add(Some(host(at)), Some(step), kind);
                tale.add(Some(host(at)), None, EventKind::UndoStarted { reason: texts[4].clone() });
            }
            tale.at += 1;
        }
        let frame = tale.live().frame(moment(tale.at), Size { width, height });
        prop_assert!(frame.len() < height.max(1) || frame.is_empty(), "{} rows of {height}", frame.len());
        for line in &frame {
            prop_assert!(line.columns() < width.max(1) || line.columns() == 0, "{:?} is wider than {width}", line.plain());
        }
        // Panics at any control code but the few that are allowed.
        terminal(&seen(&tale.events, Size { width, height }, true, true), width.max(2));
    }
}
