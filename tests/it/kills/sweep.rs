//! Cases that differ by a number alone, each on a host that is as before, several hosts at a time.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bench::{Bench, Stand};

/// A row of cases: counted from 1, up to the first that does not exist.
pub(super) trait Row: Sync {
    /// What the case is, for a failure.
    fn name(&self, at: u32) -> String;

    /// One case; `None` when there is no such point.
    fn case(&self, bench: &Bench, at: u32) -> Option<Result<Stand, String>>;
}

/// How many cases there were, and how many ended old and new.
pub(super) struct Count {
    pub(super) cases: u32,
    pub(super) old: u32,
    pub(super) new: u32,
}

/// Goes through all rows, and says how many cases there were and how many violations, of which there must be none.
pub(super) fn sweep<R: Row>(what: &str, rows: &[R]) -> Count {
    let rows: Vec<(&R, AtomicU32, AtomicU32)> =
        rows.iter().map(|row| (row, AtomicU32::new(1), AtomicU32::new(u32::MAX))).collect();
    let (cases, violations) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let (old, new) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let bench = Bench::start();
                for (row, next, end) in &rows {
                    loop {
                        let at = next.fetch_add(1, Ordering::SeqCst);
                        if at >= end.load(Ordering::SeqCst) {
                            break;
                        }
                        let Some(result) = row.case(&bench, at) else {
                            end.fetch_min(at, Ordering::SeqCst);
                            break;
                        };
                        cases.fetch_add(1, Ordering::SeqCst);
                        match result {
                            Ok(Stand::Old) => old.fetch_add(1, Ordering::SeqCst),
                            Ok(Stand::New) => new.fetch_add(1, Ordering::SeqCst),
                            Err(why) => {
                                violations.lock().unwrap().push(format!("{}: {why}", row.name(at)));
                                0
                            }
                        };
                    }
                }
            });
        }
    });
    let violations = violations.into_inner().unwrap();
    let count = Count { cases: cases.into_inner(), old: old.into_inner(), new: new.into_inner() };
    // Past the harness, which keeps what a passing test says to itself.
    let _ = writeln!(
        std::io::stderr(),
        "{what}: {} cases, {} violations ({} ended old, {} new)",
        count.cases,
        violations.len(),
        count.old,
        count.new,
    );
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    count
}
