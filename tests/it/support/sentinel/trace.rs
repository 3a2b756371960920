//! An exact trace of program starts: every `execve` of a process tree with its whole argv and environment.
//!
//! It is strace's log, parsed back to bytes. Where a line is cut short, holds an address instead of a text, or is not
//! understood, reading fails: a trace with a hole proves nothing.
//!
//! Tracing root's processes needs root. Under a tracer that is not root, `sudo` gains nothing, so what is traced must
//! not need it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

const OPTIONS: [&str; 9] = ["-f", "-qq", "-v", "-e", "trace=execve,execveat", "-e", "signal=none", "-s", "1048576"];
const PATIENCE: Duration = Duration::from_secs(30);

/// One start of a program, also one that failed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The process, as the tracer's process namespace numbers it.
    pub(crate) pid: u32,
    /// The path that was executed; empty where a descriptor was.
    pub(crate) program: Vec<u8>,
    /// All arguments, the name first.
    pub(crate) argv: Vec<Vec<u8>>,
    /// The whole environment, `NAME=value` each.
    pub(crate) env: Vec<Vec<u8>>,
}

/// A program that is started under the tracer.
pub(crate) struct Trace {
    log: PathBuf,
}

/// Running processes to which the tracer is attached. Dropping it detaches.
pub(crate) struct Attached {
    log: PathBuf,
    tracers: Vec<(Child, PathBuf)>,
}

impl Trace {
    /// A trace that is logged to `log`, a new file outside of everything that the sentinel will search.
    pub(crate) fn to(log: impl Into<PathBuf>) -> Self {
        Self { log: log.into() }
    }

    /// Begins the command line that runs `program` under the tracer: add arguments, environment and streams to it. It
    /// ends, with the program's exit status, when the program and all that it started have ended.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("strace");
        command.args(OPTIONS).arg("-o").arg(&self.log).arg("--").arg(program);
        command
    }

    /// The traced program's own process id, once it has started: the command's is the tracer's.
    pub(crate) fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.log).ok()?;
        let (line, _) = text.split_once('\n')?;
        line.split_once(' ')?.0.parse().ok()
    }

    /// Every start so far, the traced program's own first.
    pub(crate) fn starts(&self) -> Result<Vec<Start>, String> {
        let log = fs::read(&self.log).map_err(|e| format!("{}: {e}", self.log.display()))?;
        parse(&log)
    }

    /// Attaches to processes and all their descendants; returns when each of them is traced. Logs go to `log` with a
    /// number after it.
    pub(crate) fn attach(log: impl Into<PathBuf>, roots: &[u32]) -> Result<Attached, String> {
        let mut attached = Attached { log: log.into(), tracers: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let loose: Vec<u32> = tree(roots).into_iter().filter(|&pid| is_loose(pid)).collect();
            if loose.is_empty() {
                break;
            }
            attached.trace(&loose, deadline)?;
        }
        if attached.tracers.is_empty() {
            return Err(format!("no process to trace among {roots:?}"));
        }
        Ok(attached)
    }
}

impl Attached {
    fn trace(&mut self, pids: &[u32], deadline: Instant) -> Result<(), String> {
        let log = PathBuf::from(format!("{}.{}", self.log.display(), self.tracers.len()));
        let mut command = Command::new("strace");
        command.args(OPTIONS).arg("-o").arg(&log);
        for pid in pids {
            command.arg("-p").arg(pid.to_string());
        }
        let errors = log.with_extension("stderr");
        let stderr = fs::File::create(&errors).map_err(|e| format!("{}: {e}", errors.display()))?;
        let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().map_err(|e| format!("strace: {e}"))?;
        let held = loop {
            if !pids.iter().any(|&pid| is_loose(pid)) {
                break Ok(());
            }
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() && pids.iter().any(|&pid| is_loose(pid)) {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                break Err(format!("strace ended, {}: {said}", ended.unwrap_or_default()));
            }
            if Instant::now() > deadline {
                break Err(format!("strace did not get hold of all of {pids:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        };
        self.tracers.push((child, log));
        held
    }

    /// Lets the processes go and reads what they started meanwhile.
    pub(crate) fn detach(mut self) -> Result<Vec<Start>, String> {
        self.release();
        let mut starts = Vec::new();
        for (_, log) in &self.tracers {
            starts.extend(parse(&fs::read(log).map_err(|e| format!("{}: {e}", log.display()))?)?);
        }
        Ok(starts)
    }

    fn release(&mut self) {
        for (child, _) in &mut self.tracers {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
                && matches!(child.try_wait(), Ok(None))
            {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            }
            child.wait().ok();
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.release();
    }
}

impl Start {
    /// The program and its arguments, for people.
    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
        format!("{} ({})", words.join(" "), String::from_utf8_lossy(&self.program))
    }
}

/// The processes and all their descendants that are there now.
fn tree(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found: Vec<u32> = parents.iter().map(|(pid, _)| *pid).filter(|pid| roots.contains(pid)).collect();
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == at).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// All process ids.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid, 4)?.try_into().ok()
}

/// When a process started, in ticks since the machine did.
pub(crate) fn start(pid: u32) -> Option<u64> {
    stat(pid, 22)
}

/// One field of `/proc/PID/stat`, numbered as proc(5) does.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets, field 2, may hold anything: what follows the last bracket counts.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3)?.parse().ok()
}

/// Whether a living thread of this process has no tracer.
fn is_loose(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).any(|status| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let dead = field("State:").is_none_or(|state| state.starts_with(['Z', 'X']));
        !dead && field("TracerPid:") == Some("0")
    })
}

/// Reads strace's log.
pub(crate) fn parse(log: &[u8]) -> Result<Vec<Start>, String> {
    let mut starts = Vec::new();
    let mut unnamed = std::collections::BTreeSet::new();
    let lines = log.split(|&b| b == b'\n').enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let parsed = match unnamed_call(line, &mut unnamed) {
            Ok(true) => continue,
            Ok(false) => parse_line(line),
            Err(what) => Err(what),
        };
        starts.extend(parsed.map_err(|what| {
            format!(
                "line {} of the trace: {what}: {}",
                number + 1,
                String::from_utf8_lossy(&line[..line.len().min(200)])
            )
        })?);
    }
    Ok(starts)
}

/// Whether the line begins a call whose name strace never saw: it came, or went, in the middle of it. Such a call must not
/// turn out to be a program start, whose arguments would be missing.
fn unnamed_call(line: &[u8], unnamed: &mut std::collections::BTreeSet<u32>) -> Result<bool, String> {
    let mut rest = Rest(line);
    let Some(pid) = rest.number() else { return Ok(false) };
    rest.skip_blanks();
    if rest.takes("???(") {
        unnamed.insert(pid);
        return Ok(true);
    }
    let was = unnamed.remove(&pid);
    if was && rest.takes("<... execve") {
        return Err("a program start that was not shown".to_owned());
    }
    Ok(false)
}

fn parse_line(line: &[u8]) -> Result<Option<Start>, String> {
    let mut rest = Rest(line);
    let pid = rest.number().ok_or("no process id")?;
    rest.skip_blanks();
    if rest.takes("<... ") || rest.takes("+++ ") || rest.takes("--- ") {
        return Ok(None);
    }
    let at = rest.takes("execveat(");
    if at {
        rest.until(b", ")?;
    } else if !rest.takes("execve(") {
        return Err("not a program start".to_owned());
    }
    let program = rest.string()?;
    rest.expect(", ")?;
    let argv = rest.list()?;
    rest.expect(", ")?;
    let env = rest.list()?;
    Ok(Some(Start { pid, program, argv, env }))
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn takes(&mut self, text: &str) -> bool {
        let found = self.0.strip_prefix(text.as_bytes());
        self.0 = found.unwrap_or(self.0);
        found.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.takes(text) { Ok(()) } else { Err(format!("{text:?} expected")) }
    }

    fn skip_blanks(&mut self) {
        while self.takes(" ") {}
    }

    fn number(&mut self) -> Option<u32> {
        let end = self.0.iter().position(|b| !b.is_ascii_digit())?;
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn until(&mut self, text: &[u8; 2]) -> Result<(), String> {
        let at = self.0.windows(2).position(|window| window == text).ok_or("cut short")?;
        self.0 = &self.0[at + 2..];
        Ok(())
    }

    fn next(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.0.split_first().ok_or("cut short")?;
        self.0 = rest;
        Ok(first)
    }

    fn list(&mut self) -> Result<Vec<Vec<u8>>, String> {
        if self.takes("NULL") {
            return Ok(Vec::new());
        }
        self.expect("[")?;
        let mut all = Vec::new();
        if self.takes("]") {
            return Ok(all);
        }
        loop {
            all.push(self.string()?);
            if self.takes("]") {
                return Ok(all);
            }
            self.expect(", ")?;
        }
    }

    /// A text in quotes, back to the bytes it stands for.
    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.expect("\"")?;
        let mut out = Vec::new();
        loop {
            match self.next()? {
                b'"' if self.0.starts_with(b"...") => return Err("a text is cut short".to_owned()),
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape()?),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, String> {
        let before = self.0;
        Ok(match self.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            byte @ (b'"' | b'\\') => byte,
            b'x' => self.digits(2, 16)?,
            b'0'..=b'7' => {
                self.0 = before;
                self.digits(3, 8)?
            }
            other => return Err(format!("unknown escape {:?}", char::from(other))),
        })
    }

    fn digits(&mut self, most: usize, radix: u32) -> Result<u8, String> {
        let is_digit = |b: &&u8| char::from(**b).is_digit(radix);
        let count = self.0.iter().take(most).take_while(is_digit).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        let text = std::str::from_utf8(digits).map_err(|_| "bad escape")?;
        u8::from_str_radix(text, radix).map_err(|_| "bad escape".to_owned())
    }
}
