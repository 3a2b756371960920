//! The program as it was run: what it said, and how it ended.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output, line by line, as JSON. Lines that are none are strings.
    pub(crate) events: Vec<Value>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Said {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command, args: &[&str]) -> Self {
        let output = command.args(args).output().expect("keyswap can be run");
        Self::new(output.status.code(), output.stdout, output.stderr)
    }

    /// Of a program that has ended.
    pub(crate) fn new(code: Option<i32>, stdout: Vec<u8>, stderr: Vec<u8>) -> Self {
        let stdout = String::from_utf8(stdout).unwrap();
        let event = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line));
        let events = stdout.lines().map(event).collect();
        Self { code, events, stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    /// All of it, for a failing test's message.
    pub(crate) fn all(&self) -> String {
        format!("exit {:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }

    /// The last line, which must be `run-finished`.
    pub(crate) fn last(&self) -> &Value {
        let last = self.events.last().unwrap_or_else(|| panic!("nothing was said: {}", self.all()));
        assert_eq!(last["event"], "run-finished", "{}", self.all());
        last
    }

    /// The host's end state in the last line.
    pub(crate) fn host(&self) -> &Value {
        &self.last()["hosts"][0]
    }

    /// How each step ended: name and status, in order.
    pub(crate) fn steps(&self) -> Vec<(String, String)> {
        let ended = self.events.iter().filter(|event| event["event"] == "step-finished");
        ended.map(|event| (text(&event["step"]), text(&event["status"]))).collect()
    }

    /// Exit code and the words of run and host.
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, run: &str, host: &str) {
        assert_eq!(self.code, Some(code), "{}", self.all());
        let said = (text(&self.last()["status"]), text(&self.host()["status"]));
        assert_eq!(said, (run.to_owned(), host.to_owned()), "{}", self.all());
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The program at work, to be disturbed.
pub(crate) struct AtWork {
    child: Child,
    files: PathBuf,
}

impl AtWork {
    /// Starts it.
    pub(crate) fn start(command: &mut Command, args: &[&str]) -> Self {
        let files = tempfile::Builder::new().prefix("keyswap-said-").tempdir().unwrap().keep();
        let file = |name: &str| fs::File::create(files.join(name)).unwrap();
        let child = command.args(args).stdout(file("out")).stderr(file("err")).spawn().expect("keyswap can be run");
        Self { child, files }
    }

    /// Sends it a signal: `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What it has said so far.
    pub(crate) fn so_far(&self) -> String {
        fs::read_to_string(self.files.join("out")).unwrap()
    }

    /// Waits for its end, for at most a minute.
    pub(crate) fn end(mut self) -> Said {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let code = self.child.try_wait().unwrap();
            let read = |name: &str| fs::read(self.files.join(name)).unwrap();
            if let Some(status) = code {
                return Said::new(status.code(), read("out"), read("err"));
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("it does not end: {}", Said::new(None, read("out"), read("err")).all());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.files);
    }
}
