//! All cases, side by side on the cores that there are.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::case::{Case, Result};
use super::controller::Life;
use super::coverage::Coverage;
use super::fault::{Fault, Kind, Point};
use super::setting::{Setting, Story};

/// What came of all cases.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) cases: usize,
    pub(super) failed: Vec<(Case, Vec<String>)>,
    /// Which places were passed, and which faults were let loose there.
    pub(super) coverage: Coverage,
}

impl Tally {
    pub(super) fn all() -> Self {
        let mut tally = Self::default();
        let settings = settings();
        let whole = |&setting: &Setting| Case { setting, lives: vec![Life::Run], faults: Vec::new(), late: false };
        let runs = tally.tell(&settings.iter().map(whole).collect::<Vec<_>>());
        tally.first_order(&runs);
        if std::env::var_os("KEYSWAP_SIM_FIRST").is_none() {
            tally.second_order(&runs);
        }
        tally.dirty_and_away(&runs);
        tally.failed.sort_by_key(|(case, _)| (case.faults.len(), case.to_string()));
        tally
    }

    /// Each fault at each place of a run, and each way to settle it: at once and after the guard's time, forward and back.
    /// Where the story differs only in a part, it is settled forward at once and back late.
    fn first_order(&mut self, runs: &[(Case, Result)]) {
        let mut cases = Vec::new();
        for (whole, result) in runs {
            let setting = whole.setting;
            let plain = setting.story == Story::Replace && setting.up && setting.guard;
            for (at, point) in result.trace(0).iter().enumerate() {
                for fault in Fault::at(point.kind) {
                    for (late, second) in [(false, Life::Resume), (true, Life::Back)] {
                        let lives = vec![Life::Run, second];
                        cases.push(Case { setting, lives, faults: vec![(0, at, fault)], late });
                        if plain {
                            let case = Case { late: !late, ..cases[cases.len() - 1].clone() };
                            cases.push(case);
                        }
                    }
                }
            }
        }
        self.tell(&cases);
    }

    /// A way back that breaks off leaves a host dirty; when somebody comes to settle it, it cannot be reached.
    fn dirty_and_away(&mut self, runs: &[(Case, Result)]) {
        let mut dirty = Vec::new();
        for (whole, result) in runs.iter().filter(|(whole, _)| whole.setting.hosts == 1 && !whole.setting.verifies) {
            let undo = |point: &Point| point.kind == Kind::Micro && point.op == "undo";
            for (at, _) in result.trace(0).iter().enumerate().filter(|(_, point)| undo(point)) {
                for life in [Life::Resume, Life::Back, Life::Rollback] {
                    let faults = vec![(0, at, Fault::FailBefore)];
                    dirty.push(Case { lives: vec![Life::Run, life], faults, ..whole.clone() });
                }
            }
        }
        let mut away = Vec::new();
        for (base, result) in self.tell(&dirty) {
            let connects = result.trace(1).iter().position(|point| point.op == "connect");
            away.extend(connects.map(|at| {
                let faults = [base.faults.as_slice(), &[(1, at, Fault::LinkGone)]].concat();
                Case { faults, ..base }
            }));
        }
        assert!(away.len() > 20 || std::env::var_os("KEYSWAP_SIM_ONLY").is_some(), "hosts are dirty at all");
        self.tell(&away);
    }

    /// The settling is crashed too: a `rollback` of a run that has ended, and what settles a run that was cut off anywhere,
    /// at once or after the host's own guard, which is crashed with it.
    fn second_order(&mut self, runs: &[(Case, Result)]) {
        let (mut bases, mut others) = (Vec::new(), Vec::new());
        for (whole, result) in runs {
            let again = |life, crash: Option<usize>, late| Case {
                lives: vec![Life::Run, life],
                faults: crash.into_iter().map(|at| (0, at, Fault::Kill)).collect(),
                late,
                ..whole.clone()
            };
            bases.push(again(Life::Rollback, None, false));
            let kills = result.trace(0).iter().enumerate().filter(|(_, point)| Fault::Kill.fits(point.kind).is_ok());
            for (at, _) in kills {
                // Another secret is given: it goes back, or on where nothing is to be written any more.
                others.push(again(Life::ResumeOther, Some(at), false));
                for life in [Life::Resume, Life::Back] {
                    if crashed_again(&whole.setting) {
                        bases.push(again(life, Some(at), false));
                        if whole.setting.guard {
                            bases.push(again(life, Some(at), true));
                        }
                    }
                }
            }
        }
        self.tell(&others);
        let mut ways = Ways::default();
        for (base, result) in self.tell(&bases) {
            ways.add(&base, 1, 0, result.trace(1), &result.unsynced.first());
        }
        // A link that was lost is a run's own recovery.
        let mut lost = Vec::new();
        let plain = |setting: &Setting| crashed_again(setting) && setting.story != Story::Restore;
        for (whole, result) in runs.iter().filter(|(whole, _)| plain(&whole.setting)) {
            for (at, _) in result.trace(0).iter().enumerate().filter(|(_, point)| point.kind != Kind::Journal) {
                let lives = vec![Life::Run, Life::Resume];
                lost.push(Case { lives, faults: vec![(0, at, Fault::LinkBack)], ..whole.clone() });
            }
        }
        for (base, result) in self.tell(&lost) {
            // From where the run has found the host again.
            let lost = base.faults.first().map_or(0, |(_, at, _)| at + 1);
            let found = result.trace(0).iter().skip(lost).position(|point| point.op == "hello");
            let Some(first) = found.map(|found| lost + found) else { continue };
            ways.add(&base, 0, first, result.trace(0).get(first..).unwrap_or_default(), &());
        }
        self.tell(&ways.cases);
    }

    /// Tells cases side by side.
    fn tell(&mut self, cases: &[Case]) -> Vec<(Case, Result)> {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(self.failed.len()));
        // For mutants: one violation is enough.
        let stop = std::env::var_os("KEYSWAP_SIM_STOP").is_some();
        let results: Mutex<BTreeMap<usize, Result>> = Mutex::default();
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(at) else { return };
                        if stop && failed.load(Ordering::Relaxed) > 0 {
                            return;
                        }
                        let result = case.run();
                        if !result.violations.is_empty() {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        results.lock().unwrap().insert(at, result);
                    }
                });
            }
        });
        let mut told = Vec::new();
        for (at, mut result) in results.into_inner().unwrap() {
            let case = cases[at].clone();
            self.cases += 1;
            self.coverage.add(&case, &mut result);
            if !result.violations.is_empty() {
                self.failed.push((case.clone(), std::mem::take(&mut result.violations)));
            }
            told.push((case, result));
        }
        told
    }
}

/// Places in the settling of runs. Two that were reached by the same way, from the same beginning, are one: what goes wrong
/// there is tried once.
#[derive(Default)]
struct Ways {
    known: HashSet<u64>,
    cases: Vec<Case>,
}

impl Ways {
    /// `beginning`: what may differ although the places passed are the same.
    fn add(&mut self, base: &Case, life: usize, first: usize, trace: &[Point], beginning: &impl Hash) {
        let mut way = DefaultHasher::new();
        (base.setting, &base.lives, base.late, beginning).hash(&mut way);
        for (at, point) in (first..).zip(trace) {
            point.hash(&mut way);
            if self.known.insert(way.finish()) {
                self.cases.extend(Fault::at(point.kind).map(|fault| {
                    let mut case = base.clone();
                    case.faults.push((life, at, fault));
                    case
                }));
            }
        }
    }
}

/// Whose settling is crashed at each place with each fault: with and without a guard, where the run was cut off on its way
/// forward and on its way back.
fn crashed_again(setting: &Setting) -> bool {
    let story = (setting.story, setting.verifies);
    setting.hosts == 1 && setting.up && matches!(story, (Story::Replace | Story::Restore, true) | (Story::Move, false))
}

/// Stories, guard on and off, runner up and stopped, going forward and going back.
fn settings() -> Vec<Setting> {
    let mut out = Vec::new();
    for story in [Story::Replace, Story::Move, Story::Restore] {
        for (guard, up, verifies) in
            [(true, true, true), (true, true, false), (false, true, true), (false, true, false)]
        {
            out.push(Setting { story, hosts: 1, guard, up, verifies, staged: false });
        }
    }
    for verifies in [true, false] {
        out.push(Setting { story: Story::Move, hosts: 2, guard: true, up: true, verifies, staged: true });
    }
    // More hosts in a batch than are worked on at a time.
    for (story, verifies) in [(Story::Slow, true), (Story::Move, false)] {
        out.push(Setting { story, hosts: 2, guard: true, up: true, verifies, staged: false });
    }
    for (guard, verifies) in [(true, true), (true, false), (false, true), (false, false)] {
        out.push(Setting { story: Story::Replace, hosts: 1, guard, up: false, verifies, staged: false });
    }
    // For work on one of them: `KEYSWAP_SIM_ONLY=replace/1/guard/up/good`.
    if let Ok(only) = std::env::var("KEYSWAP_SIM_ONLY") {
        let name = |setting: &Setting| {
            Case { setting: *setting, lives: vec![Life::Run], faults: Vec::new(), late: false }.to_string()
        };
        out.retain(|setting| name(setting).starts_with(&only));
    }
    out
}
