//! All cases, side by side on the cores that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::case::{Case, Result};
use super::controller::Life;
use super::fault::{Fault, Kind, Point};
use super::setting::{Setting, Story};

/// What came of all cases.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) cases: usize,
    pub(super) failed: Vec<(Case, Vec<String>)>,
    /// Which faults were let loose at which operation.
    done: BTreeSet<(Point, Fault)>,
    /// Every place that a story passed.
    places: BTreeSet<Point>,
}

impl Tally {
    pub(super) fn all() -> Self {
        let mut tally = Self::default();
        tally.first_order();
        if std::env::var_os("KEYSWAP_SIM_FIRST").is_none() {
            tally.second_order();
        }
        tally.failed.sort_by_key(|(case, _)| (case.faults.len(), case.to_string()));
        tally
    }

    /// Each fault at each place of a run, and each way to settle it: at once and after the guard's time, forward and back.
    /// Where the story differs only in a part, it is settled forward at once and back late.
    fn first_order(&mut self) {
        let mut cases = Vec::new();
        for setting in settings() {
            for places in self.places_of(&Case { setting, lives: vec![Life::Run], faults: Vec::new(), late: false }, 0)
            {
                for late in [false, true] {
                    for second in [Life::Resume, Life::Back] {
                        let plain = setting.story == Story::Replace && setting.up && setting.guard;
                        if !plain && late != (second == Life::Back) {
                            continue;
                        }
                        let lives = vec![Life::Run, second];
                        cases.push(Case { setting, lives, faults: vec![(0, places.0, places.1)], late });
                    }
                }
            }
        }
        self.tell(&cases);
    }

    /// The settling is crashed too.
    fn second_order(&mut self) {
        let mut cases = Vec::new();
        for setting in settings() {
            let mut first = vec![(Life::Rollback, None)];
            let whole = Case { setting, lives: vec![Life::Run], faults: Vec::new(), late: false };
            for (at, fault) in self.places_of(&whole, 0).into_iter().filter(|(_, fault)| *fault == Fault::Kill) {
                first.extend([Life::Resume, Life::Back].map(|life| (life, Some((at, fault)))));
                // Another secret is given: it goes back, or on where nothing is to be written any more.
                cases.push(Case {
                    setting,
                    lives: vec![Life::Run, Life::ResumeOther],
                    faults: vec![(0, at, fault)],
                    late: false,
                });
            }
            // The shortest story that has everything which a way back must do in its order.
            if !setting.guard || !setting.verifies || setting.hosts != 1 || setting.story != Story::Move {
                first.truncate(1);
            }
            for (life, crash) in first {
                let faults: Vec<_> = crash.map(|(at, fault)| (0, at, fault)).into_iter().collect();
                let base = Case { setting, lives: vec![Life::Run, life], faults, late: false };
                for (at, fault) in self.places_of(&base, 1) {
                    if crash.is_some() && !matches!(fault, Fault::Kill | Fault::LinkBack) {
                        continue;
                    }
                    let mut case = base.clone();
                    case.faults.push((1, at, fault));
                    cases.push(case);
                }
            }
        }
        self.tell(&cases);
    }

    /// The places of a life, each with each fault that can happen there.
    fn places_of(&mut self, case: &Case, life: usize) -> Vec<(usize, Fault)> {
        let result = case.run();
        self.cases += 1;
        if !result.violations.is_empty() {
            self.failed.push((case.clone(), result.violations));
        }
        let trace = result.traces.get(life).cloned().unwrap_or_default();
        let fits = |point: &Point| Fault::ALL.iter().copied().filter(|fault| fault.fits(point.kind).is_ok()).collect();
        let pairs = trace.iter().enumerate().flat_map(|(at, point)| {
            let faults: Vec<Fault> = fits(point);
            faults.into_iter().map(move |fault| (at, fault))
        });
        let pairs = pairs.collect();
        self.places.extend(result.traces.into_iter().flatten());
        pairs
    }

    fn tell(&mut self, cases: &[Case]) {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(self.failed.len()));
        // For mutants: one violation is enough.
        let stop = std::env::var_os("KEYSWAP_SIM_STOP").is_some();
        let results: Mutex<Vec<(usize, Result)>> = Mutex::default();
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
                        let mut result = case.run();
                        if !result.violations.is_empty() {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        result.traces.clear();
                        results.lock().unwrap().push((at, result));
                    }
                });
            }
        });
        for (at, result) in results.into_inner().unwrap() {
            self.cases += 1;
            self.done.extend(result.hits);
            if let Some(case) = cases.get(at).filter(|_| !result.violations.is_empty()) {
                self.failed.push((case.clone(), result.violations));
            }
        }
    }

    /// Each operation with each fault: done so often at so many places, or excused and why.
    pub(super) fn report(&self) -> String {
        let mut out = format!("crash points: {} cases, {} violations\n", self.cases, self.failed.len());
        let mut operations: BTreeMap<(&str, Kind), BTreeSet<&str>> = BTreeMap::new();
        for point in &self.places {
            operations.entry((&point.op, point.kind)).or_default().insert(&point.what);
        }
        for ((op, kind), whats) in operations {
            let _ = writeln!(out, "\n{op} ({kind:?}): {}", whats.iter().copied().collect::<Vec<_>>().join(", "));
            for &fault in Fault::ALL {
                let hit =
                    self.done.iter().filter(|(point, known)| point.op == op && point.kind == kind && *known == fault);
                let said = match (hit.count(), fault.fits(kind)) {
                    (_, Err(why)) => format!("excused: {why}"),
                    (0, Ok(())) => "MISSING".to_owned(),
                    (places, Ok(())) => format!("done at {places} of {} places", whats.len()),
                };
                let _ = writeln!(out, "  {:<12} {said}", fault.word());
            }
        }
        out
    }
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
