//! The host's state under fire: real shells arm, renew, commit, take over and put back at the same time, and exactly one wins.
//!
//! The library is the real one, without the loop that answers requests. Each process writes down what it did; the order of
//! the lines in one file is the order in which it was done.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SHELLS;
use crate::remote::shell::PIECES;

const RUN: &str = "20260101-000000-abcdef";

/// What every process begins with. The way back is a stand-in, which says when it begins and settles like the real one.
const BEGIN: &str = r#"
ks_init
ks_owner "$KS_OWNER_PID"
cd /
L=$K/../log
say() { printf '%s\n' "$1" >>"$L"; }
ks_guard_install() { :; }
ks_guard_start() { :; }
ks_guard_remove() { :; }
ks_undo() {
  say back
  sleep 0.02
  ks_cas_look
  [ "$RUN.$OWN.$BT" = "$1.$KS_OWNER_SELF.$KS_BOOT" ] || exit 1
  ks_release old "$1"
  say fired
}
# Acts a few times and commits; each request asks first whether this session still holds the host.
work() {
  for pause in $PAUSES; do
    (ks_own "$R" '' 25) >/dev/null || { say refused; exit 0; }
    say act
    sleep "$pause"
  done
  (ks_own "$R" '' 25 && ks_release new "$R" && say committed) >/dev/null || say refused
}
"#;

const CONTROLLER: &str = r#"
ks_run_dir "$R"
ks_cas_look
ks_seen
ks_arm "$R" 25 "$KS_SEEN"
say armed
work
"#;

const SECOND: &str = r#"
until grep -q -e act -e refused -e fired "$L" 2>/dev/null; do sleep 0.01; done
sleep "$PAUSE"
(ks_takeover "$R" 25 held) >/dev/null || { say refused; exit 0; }
say took
work
"#;

const WATCHER: &str = r#"
until grep -q armed "$L" 2>/dev/null; do sleep 0.01; done
ks_watch
"#;

/// The library up to the loop, with `ks_init` of that.
fn library() -> String {
    let (last, pieces) = PIECES.split_last().unwrap();
    let init = last.split("# ks_loop").next().unwrap();
    format!("{}\n{init}\n", pieces.join("\n"))
}

fn start(shell: &[&str], dir: &Path, role: &str, pauses: [&str; 4]) -> Child {
    let [a, b, c, pause] = pauses;
    let head = format!("K={}/k R={RUN} PAUSES='{a} {b} {c}' PAUSE={pause}\n", dir.display());
    let file = tempfile::Builder::new().suffix(".sh").tempfile_in(dir).unwrap().into_temp_path().keep().unwrap();
    std::fs::write(&file, format!("{head}{}{BEGIN}{role}", library())).unwrap();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// One race; what is wrong with it, and how it ended.
fn race(shell: &[&str], round: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("k/runs").join(RUN);
    let made = start(shell, dir.path(), "ks_state_init\n", ["0"; 4]).wait().unwrap();
    assert!(made.success());
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("ready"), "1\n").unwrap();
    std::fs::write(run.join("undo"), "end\n").unwrap();
    // A lease is 0.25 s: the controller is as often too late as in time, and every so often just on the edge.
    let last = ["0", "0.2", "0.24", "0.25", "0.26", "0.3"][round % 6];
    let pause = ["0", "0.1", "0.22", "0.26"][round % 4];
    let mut all = vec![
        start(shell, dir.path(), CONTROLLER, ["0.05", "0.1", last, pause]),
        start(shell, dir.path(), WATCHER, ["0", "0", "0", pause]),
        start(shell, dir.path(), WATCHER, ["0", "0", "0", pause]),
    ];
    let second = !round.is_multiple_of(3);
    if second {
        all.push(start(shell, dir.path(), SECOND, ["0.01", "0.1", last, pause]));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut hung = false;
    for child in &mut all {
        while child.try_wait().unwrap().is_none() && !hung {
            hung = Instant::now() > deadline;
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let names: Vec<_> = std::fs::read_dir(dir.path().join("k/cas")).unwrap().flatten().map(|n| n.file_name()).collect();
    let context = format!("{shell:?} round {round}: {names:?}\n{log}");
    assert!(!hung, "it does not end: {context}");
    let lines: Vec<&str> = log.lines().collect();
    let ends: Vec<&str> = lines.iter().copied().filter(|line| matches!(*line, "committed" | "fired")).collect();
    let [name] = names.as_slice() else { panic!("one name: {context}") };
    let phase = name.to_str().unwrap().split('.').nth(2).unwrap();
    // Whom a second session ends between its rename and its word has won all the same.
    let unsaid = ends.is_empty() && second && phase == "new";
    let end = if unsaid { "committed" } else { ends.first().copied().unwrap_or("nobody") };
    assert!(ends.len() == usize::from(!unsaid), "exactly one wins: {context}");
    let began = lines.iter().position(|line| *line == "back");
    let acted = lines.iter().rposition(|line| matches!(*line, "act" | "committed" | "took"));
    // On a busy machine the first act may already come too late.
    assert!(began.is_none_or(|began| acted.is_none_or(|acted| acted < began)), "fenced: {context}");
    assert_eq!(phase == "new", end == "committed", "{context}");
    end.to_owned()
}

#[test]
fn of_all_that_race_for_a_host_exactly_one_wins() {
    let began = Instant::now();
    let workers = std::thread::scope(|scope| {
        let work = |shell: &'static [&'static str]| move || (0..24).map(|round| race(shell, round)).collect::<Vec<_>>();
        let all: Vec<_> = SHELLS.iter().map(|&shell| scope.spawn(work(shell))).collect();
        all.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let count = |word: &str| workers.iter().filter(|end| *end == word).count();
    eprintln!(
        "{} races in {:.1?}: {} committed, {} fired",
        workers.len(),
        began.elapsed(),
        count("committed"),
        count("fired")
    );
    // Both must have been possible, or nothing was shown.
    assert!(count("committed") > 0 && count("fired") > 0);
}
