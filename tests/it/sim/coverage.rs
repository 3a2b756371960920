//! Which operation met which fault: each pair is done, or excused with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::case::{Case, Result};
use super::controller::Life;
use super::fault::{Fault, Kind, Point};
use super::world::LEFT_OVER;

/// Where a story was going when something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Going {
    Forward,
    Back,
    Resuming,
    ResumingBack,
    RollingBack,
    Guarded,
}

/// At how many of so many places a fault was let loose, or why not.
type Said = std::result::Result<(usize, usize), &'static str>;

/// With or without a guard.
type Way = (Going, bool);

impl Going {
    fn of(case: &Case, life: usize, point: &Point) -> Self {
        match case.life(life) {
            _ if point.op == "guard" => Self::Guarded,
            Life::Run if is_back(point) => Self::Back,
            Life::Run => Self::Forward,
            Life::Resume | Life::ResumeOther => Self::Resuming,
            Life::Back => Self::ResumingBack,
            Life::Rollback => Self::RollingBack,
        }
    }
}

fn is_back(point: &Point) -> bool {
    point.op == "undo" || point.what.starts_with("undo")
}

impl fmt::Display for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "run, going forward",
            Self::Back => "run, going back",
            Self::Resuming => "resume",
            Self::ResumingBack => "resume --back",
            Self::RollingBack => "rollback",
            Self::Guarded => "the host by itself",
        })
    }
}

/// What no story does.
const EXCUSED: &[(&str, &str)] = &[
    ("unlock", "an operator's own command outside of every run; tests/it/kills/unlock.rs and the guard's model"),
    ("what a controller that is gone has left at work", "crashed where it was asked for; here it only goes on"),
];

/// Which places were passed, and which faults were let loose there.
#[derive(Default)]
pub(super) struct Coverage {
    places: BTreeSet<(Way, Point)>,
    done: BTreeSet<(Way, Point, Fault)>,
}

impl Coverage {
    pub(super) fn add(&mut self, case: &Case, result: &mut Result) {
        let way = |life, point: &Point| (Going::of(case, life, point), case.setting.guard);
        for (life, trace) in result.traces.iter().enumerate() {
            for point in trace.iter().filter(|point| !point.op.starts_with(LEFT_OVER)) {
                let place = (way(life, point), point.clone());
                if !self.places.contains(&place) {
                    self.places.insert(place);
                }
            }
        }
        for (life, point, fault) in std::mem::take(&mut result.hits) {
            self.done.insert((way(life, &point), point, fault));
        }
    }

    /// Each operation with each fault, each way: at how many of its places, or why not.
    fn pairs(&self) -> Vec<(Way, &str, Kind, Fault, Said)> {
        let mut operations: BTreeMap<(Way, &str, Kind), usize> = BTreeMap::new();
        for (way, point) in &self.places {
            *operations.entry((*way, &point.op, point.kind)).or_default() += 1;
        }
        let mut hits: BTreeMap<(Way, &str, Kind, Fault), usize> = BTreeMap::new();
        for (way, point, fault) in &self.done {
            *hits.entry((*way, &point.op, point.kind, *fault)).or_default() += 1;
        }
        let all = operations.into_iter().flat_map(|((way, op, kind), places)| {
            let hits = &hits;
            Fault::ALL.iter().map(move |&fault| {
                let hit = hits.get(&(way, op, kind, fault)).copied().unwrap_or_default();
                (way, op, kind, fault, fault.fits(kind).map(|()| (hit, places)))
            })
        });
        all.collect()
    }

    /// Pairs that are neither done nor excused.
    pub(super) fn missing(&self) -> Vec<String> {
        let pairs = self.pairs().into_iter().filter(|(.., said)| matches!(said, Ok((0, _))));
        pairs
            .map(|((going, guard), op, kind, fault, _)| format!("{going}, guard {guard}: {op} ({kind:?}) {fault}"))
            .collect()
    }

    pub(super) fn report(&self) -> String {
        let mut out = String::new();
        let mut last = None;
        for ((going, guard), op, kind, fault, said) in self.pairs() {
            if last.replace((going, guard, op, kind)) != Some((going, guard, op, kind)) {
                let _ = writeln!(out, "\n{op} ({kind:?}); {going}, guard {}", if guard { "on" } else { "off" });
            }
            let _ = match said {
                Ok((0, _)) => writeln!(out, "  {fault:<12} MISSING"),
                Ok((hit, places)) => writeln!(out, "  {fault:<12} done at {hit} of {places} places"),
                Err(why) => writeln!(out, "  {fault:<12} excused: {why}"),
            };
        }
        for (op, why) in EXCUSED {
            let _ = writeln!(out, "\n{op}\n  every fault  excused: {why}");
        }
        out
    }
}
