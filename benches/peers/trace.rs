//! What each of keyswap's requests starts on its host, by strace on one host: `benches/peers/forks`.
//!
//! A process belongs to the request during which it was forked off the privileged shell, and so do its children, however
//! late: a guard's work counts to the request that started the guard, and what the hands do, syncs above all, to the session.
//! What the login and sudo do before the shell is there has rows of its own. The times are those of a traced run and compare
//! among each other only.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, PORT};
use crate::group::Group;
use crate::tools::Tool;

const CALLS: &str = "trace=execve,fork,vfork,clone,clone3,read,write,fsync,fdatasync,sync,syncfs";

/// What one request cost.
#[derive(Default)]
struct Row {
    what: String,
    began: f64,
    ended: f64,
    forks: usize,
    syncs: usize,
    programs: BTreeMap<String, usize>,
}

/// Prints the table; false if the rotation did not go well.
pub(crate) fn forks() -> bool {
    let fleet = Fleet::start(1, false);
    let group = Group::new("controller");
    let trace = fleet.files.join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "--pidns-translation", "-ttt", "-s", "4096", "-e", CALLS, "-o"])
        .arg(&trace)
        .args(["-p", &fleet.sshd().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("strace can be run");
    attached(fleet.sshd());
    let output = Tool::Keyswap.command(&fleet, PORT, &group.dir).stdin(Stdio::null()).output().unwrap();
    let faults = fleet.faults();
    if let Some(pid) = i32::try_from(strace.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = strace.wait();
    if !output.status.success() || !faults.is_empty() {
        println!("{}\n{faults:?}", String::from_utf8_lossy(&output.stdout));
        return false;
    }
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let calls = calls_of(&text);
    let children = calls.iter().filter(|call| call.forks()).map(|call| (u32::try_from(call.result).unwrap(), call.pid));
    let mut reader = Reader { parents: children.collect(), ..Reader::default() };
    for call in &calls {
        reader.call(call);
    }
    print(&reader.rows);
    true
}

/// Waits until a process is traced.
fn attached(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|by| by.trim() != "0"))
    };
    while !traced() {
        assert!(Instant::now() < deadline, "strace does not trace");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn print(rows: &[Row]) {
    println!("| request | forks | programs | syncs | traced ms | which |\n|---|---|---|---|---|---|");
    let (mut forks, mut programs, mut syncs) = (0, 0, 0);
    for row in rows {
        let started: usize = row.programs.values().sum();
        (forks, programs, syncs) = (forks + row.forks, programs + started, syncs + row.syncs);
        let which: Vec<_> = row.programs.iter().map(|(name, times)| format!("{name} {times}")).collect();
        let ms = (row.ended - row.began) * 1000.0;
        println!("| {} | {} | {started} | {} | {ms:.0} | {} |", row.what, row.forks, row.syncs, which.join(", "));
    }
    println!("| all | {forks} | {programs} | {syncs} | | |");
}

/// A call that has returned.
struct Call {
    pid: u32,
    at: f64,
    name: String,
    arguments: String,
    result: i64,
}

impl Call {
    fn forks(&self) -> bool {
        ["fork", "vfork", "clone", "clone3"].contains(&self.name.as_str())
            && self.result > 0
            && !self.arguments.contains("CLONE_THREAD")
    }
}

/// The calls of a trace, in the order of their ends.
fn calls_of(trace: &str) -> Vec<Call> {
    // Calls in whose midst the trace shows other processes.
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((at, call)) = rest.trim_start().split_once(' ') else { continue };
        let (Ok(pid), Ok(at)) = (pid.parse::<u32>(), at.parse::<f64>()) else { continue };
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, first.to_owned());
            continue;
        }
        let whole = match call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => begun.remove(&pid).unwrap_or_default() + rest,
            None => call.to_owned(),
        };
        let Some((call, result)) = whole.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        // `12 /* 3456 in strace's PID ns */`: the hosts number their processes in their own way.
        let outer = result.split_once("/* ").and_then(|(_, rest)| rest.split_once(" in strace's")).map(|(pid, _)| pid);
        let result = outer.or_else(|| result.split(' ').next()).and_then(|word| word.parse().ok()).unwrap_or(-1);
        found.push(Call { pid, at, name: name.to_owned(), arguments: arguments.trim_end().to_owned(), result });
    }
    found
}

/// Sorts calls to the requests that they were made for.
#[derive(Default)]
struct Reader {
    rows: Vec<Row>,
    /// Whose child a process is; it may work before its parent's fork returns.
    parents: HashMap<u32, u32>,
    /// To which row a process belongs.
    owner: HashMap<u32, usize>,
    /// The privileged shell: it has said hello.
    shell: Option<u32>,
    /// What the shell has read of the request that comes.
    heard: String,
    /// The row of the latest request.
    current: usize,
}

impl Reader {
    fn row(&mut self, pid: u32) -> usize {
        if self.shell == Some(pid) {
            return self.current;
        }
        if let Some(row) = self.owner.get(&pid) {
            return *row;
        }
        let row = match self.parents.get(&pid) {
            Some(parent) if *parent != pid => self.row(*parent),
            _ => 0,
        };
        self.owner.insert(pid, row);
        row
    }

    fn call(&mut self, call: &Call) {
        if self.rows.is_empty() {
            self.open("sshd, login shell", call.at);
        }
        let row = self.row(call.pid);
        match call.name.as_str() {
            "execve" if call.result == 0 => {
                let program = text(&call.arguments);
                let program = program.rsplit('/').next().unwrap_or_default().to_owned();
                // The login shell becomes sudo, and what sudo starts is the privileged shell.
                let mut row = row;
                if program == "sudo" && self.shell.is_none() {
                    row = self.open("sudo, the library", call.at);
                    self.owner.insert(call.pid, row);
                }
                *self.rows[row].programs.entry(program).or_default() += 1;
                self.touch(row, call.at);
            }
            _ if call.forks() => {
                self.rows[row].forks += 1;
                self.touch(row, call.at);
            }
            "fsync" | "fdatasync" | "sync" | "syncfs" => {
                self.rows[row].syncs += 1;
                self.touch(row, call.at);
            }
            "read" if call.result == 1 && self.shell == Some(call.pid) => self.read(call.at, &call.arguments),
            // A shell puts a descriptor that it redirects to under another number: what is said tells, not where to.
            "write" if self.shell.is_none() && says(&call.arguments, "H") => {
                self.touch(row, call.at);
                self.shell = Some(call.pid);
                self.current = row;
            }
            "write" if self.shell == Some(call.pid) && says(&call.arguments, "A") => {
                self.rows[row].ended = call.at;
            }
            _ => {}
        }
    }

    /// The shell reads a head and a body, a byte at a time; the body says what is asked.
    fn read(&mut self, at: f64, arguments: &str) {
        // What it reads in larger pieces are the answers of its own children.
        if !arguments.ends_with(", 1)") {
            return;
        }
        self.heard.push_str(&text(arguments));
        let Some((head, body)) = self.heard.split_once('\n') else { return };
        // An answer of the hands, which were asked before the request's own process was there.
        if !head.starts_with("R ") {
            self.heard.clear();
            return;
        }
        if let Some(body) = body.strip_suffix('\n') {
            let what = asked(body);
            self.heard.clear();
            self.current = self.open(&what, at);
        }
    }

    fn open(&mut self, what: &str, at: f64) -> usize {
        self.rows.push(Row { what: what.to_owned(), began: at, ended: at, ..Row::default() });
        self.rows.len() - 1
    }

    /// What comes before the first request ends with its last act; a request ends with its answer.
    fn touch(&mut self, row: usize, at: f64) {
        if self.shell.is_none() {
            self.rows[row].ended = at;
        }
    }
}

/// Whether the shell says hello or answers: a letter, and the nonce.
fn says(arguments: &str, letter: &str) -> bool {
    let said = text(arguments);
    let mut words = said.split(' ');
    words.next() == Some(letter)
        && words.next().is_some_and(|nonce| nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The first text among a call's arguments.
fn text(arguments: &str) -> String {
    let inner = arguments.split_once('"').map(|(_, rest)| rest).unwrap_or_default();
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// The library's functions that a body calls, in its order.
fn asked(body: &str) -> String {
    let words = body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<(&str, usize)> = Vec::new();
    for word in words.filter_map(|word| word.strip_prefix("ks_")) {
        match names.last_mut() {
            Some((last, times)) if *last == word => *times += 1,
            _ => names.push((word, 1)),
        }
    }
    let shown =
        names.iter().map(|(name, times)| if *times == 1 { (*name).to_owned() } else { format!("{name} x{times}") });
    shown.collect::<Vec<_>>().join(" ")
}
