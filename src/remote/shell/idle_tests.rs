//! Whether a runner works, and which tasks it took: asked of a program that is called like a real runner.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::{SHELLS, ask, remote};
use crate::model::RestartHow;
use crate::remote::{BackFact, BusyFact, Fact, Probe};

/// Waits at a fifo without a child; `job` and `done` start and end one.
const PROGRAM: &str = "#!/bin/sh\ncd \"${0%/*}\" || exit 1\n[ -s pid ] || echo $$ >pid\n: >up\n\
    while :; do read -r word <orders || continue; case $word in\n\
    job) sleep 300 & job=$!; : >busy ;;\n\
    done) kill \"$job\"; wait \"$job\" 2>/dev/null; rm -f busy ;;\nesac; done\n";

struct Program {
    dir: tempfile::TempDir,
    child: Child,
}

impl Program {
    /// Started by its name, or below a shell that stands for a container's init.
    fn start(name: &str, below_init: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, PROGRAM).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new("mkfifo").arg(dir.path().join("orders")).status().unwrap().success());
        let mut command = if below_init {
            let mut command = Command::new("sh");
            command.arg("-c").arg("echo $$ >\"$1/pid\"; \"$2\"; :").arg("init").arg(dir.path()).arg(&file);
            command
        } else {
            Command::new(&file)
        };
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let program = Self { dir, child };
        program.until("up", true);
        program
    }

    fn until(&self, file: &str, there: bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.dir.path().join(file).exists() != there {
            assert!(Instant::now() < end, "{file}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn order(&self, word: &str) {
        std::fs::write(self.dir.path().join("orders"), format!("{word}\n")).unwrap();
        self.until("busy", word == "job");
    }

    fn how(&self) -> RestartHow {
        let pid_file = Some(remote(&self.dir.path().join("pid")));
        RestartHow::Command { command: "false".to_owned(), check: Some("false".to_owned()), pid_file }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.dir.path().join("busy").exists() {
            self.order("done");
        }
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap();
        let _ = Command::new("pkill").args(["-P", pid.trim()]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn busy(shell: &[&str], program: &Program) -> BusyFact {
    match ask(shell, Probe::Busy { how: program.how() }).await {
        Fact::Busy(fact) => fact,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_is_a_process_below_the_runners_own() {
    // A release's own file name, of which the kernel keeps 15 characters.
    let names = [("forgejo-runner", false), ("forgejo-runner", true), ("forgejo-runner-12.1.2-linux-amd64", false)];
    for (name, below_init) in names {
        let program = Program::start(name, below_init);
        for shell in SHELLS {
            let idle = busy(shell, &program).await;
            assert!(idle.jobs.is_empty() && idle.looked.contains(&"processes".to_owned()), "{shell:?}: {idle:?}");
        }
        program.order("job");
        for shell in SHELLS {
            let fact = busy(shell, &program).await;
            let [job] = fact.jobs.as_slice() else { panic!("{shell:?}: {fact:?}") };
            assert!(job.starts_with("process:") && job.ends_with("(sleep)"), "{job}");
        }
        program.order("done");
        assert!(busy(SHELLS[0], &program).await.jobs.is_empty());
    }
}

#[tokio::test]
async fn of_another_program_nothing_is_claimed() {
    let program = Program::start("something", false);
    program.order("job");
    for shell in SHELLS {
        let fact = busy(shell, &program).await;
        assert!(!fact.looked.contains(&"processes".to_owned()) && fact.jobs.is_empty(), "{shell:?}: {fact:?}");
    }
}

async fn tasks(shell: &[&str], log: &Path, tasks: &[u64]) -> Option<Vec<u64>> {
    let how = RestartHow::Command { command: "false".to_owned(), check: None, pid_file: None };
    let probe = Probe::Task { how, log: Some(remote(log)), repo: "owner/repo".to_owned(), tasks: tasks.to_owned() };
    match ask(shell, probe).await {
        Fact::Tasks(found) => found,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tasks_are_found_in_the_runners_log_by_number_and_repository() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let lines = "time=\"x\" level=info msg=\"task 177 repo is owner/repo https://a http://b\"\n\
                 time=\"x\" level=info msg=\"task 78 repo is owner/repository https://a http://b\"\n\
                 time=\"x\" level=info msg=\"task 79 repo is owner/repo https://a http://b\"\n";
    std::fs::write(&log, lines).unwrap();
    let (empty, missing, dir) = (dir.path().join("empty"), dir.path().join("missing"), dir.path());
    std::fs::write(&empty, "").unwrap();
    // The log of a runner that logs warnings only: it would not name a task that it took.
    let warnings = dir.join("warnings");
    std::fs::write(&warnings, "level=warning msg=\"the task was slow\"\n").unwrap();
    for shell in SHELLS {
        assert_eq!(tasks(shell, &log, &[77, 78, 79, 177]).await, Some(vec![79, 177]), "{shell:?}");
        assert_eq!(tasks(shell, &log, &[77]).await, Some(vec![]), "{shell:?}");
        // What cannot be read is no proof of absence.
        for log in [empty.as_path(), &missing, dir, &warnings] {
            assert_eq!(tasks(shell, log, &[77]).await, None, "{shell:?} {log:?}");
        }
        let other_case = dir.join("case");
        std::fs::write(&other_case, "level=info msg=\"task 5 repo is Owner/Repo https://a\"\n").unwrap();
        assert_eq!(tasks(shell, &other_case, &[5]).await, Some(vec![5]), "{shell:?}");
    }
}

async fn back(shell: &[&str], how: RestartHow, log: Option<&Path>) -> BackFact {
    match ask(shell, Probe::Back { how, log: log.map(remote) }).await {
        Fact::Back(fact) => fact,
        other => panic!("{other:?}"),
    }
}

/// What each kind of runner prints when it has reached its forge.
const CONNECTED: [&str; 4] = [
    "level=info msg=\"runner: rs1, with version: v12.1.2, with labels: [docker], declared successfully\"",
    "level=info msg=\"runner: rs1, with version: v0.2.11, with labels: [docker], declare successfully\"",
    "level=info msg=\"[poller 0] launched\"",
    "level=info msg=\"Declared successfully\"",
];

#[tokio::test]
async fn a_runner_is_back_when_its_own_process_says_so() {
    let program = Program::start("forgejo-runner", false);
    let log = program.dir.path().join("log");
    let old = "time=\"2020-01-01T00:00:00Z\" level=info msg=\"Starting runner daemon\"\n\
               time=\"2020-01-01T00:00:01Z\" level=info msg=\"runner: rs1, declared successfully\"\n";
    let stamp = |zone: &str, form: &str| {
        let mut command = Command::new("date");
        let said = command.env("TZ", zone).arg(form).output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().to_owned()
    };
    let said = async |shell: &[&str], text: &str| {
        std::fs::write(&log, text).unwrap();
        back(shell, program.how(), Some(&log)).await
    };
    for shell in SHELLS {
        assert_eq!(said(shell, "").await, BackFact::Silent, "{shell:?}");
        assert_eq!(said(shell, old).await, BackFact::Silent, "{shell:?}: what an earlier process said");
        // With a fraction, and in another zone than the host's.
        let times = [
            stamp("UTC", "+%Y-%m-%dT%H:%M:%SZ"),
            stamp("UTC", "+%Y-%m-%dT%H:%M:%S.5Z"),
            stamp("XXX-5:45", "+%Y-%m-%dT%H:%M:%S+05:45"),
            stamp("XXX+3", "+%Y-%m-%dT%H:%M:%S-03:00"),
        ];
        for (line, time) in CONNECTED.iter().zip(&times) {
            let text = format!("{old}time=\"{time}\" {line}\n");
            assert_eq!(said(shell, &text).await, BackFact::Connected, "{shell:?} {text}");
        }
        let refused = format!("{old}time=\"{}\" level=error msg=\"unregistered runner\"\n", times[0]);
        assert_eq!(said(shell, &refused).await, BackFact::Unregistered, "{shell:?}");
        let begun = format!("{old}time=\"{}\" level=info msg=\"Starting runner daemon\"\n", times[0]);
        assert_eq!(said(shell, &begun).await, BackFact::Starting, "{shell:?}");
        // Without a time nobody knows which process said it.
        assert_eq!(said(shell, "[poller 0] launched\n").await, BackFact::Silent, "{shell:?}");
        std::fs::remove_file(&log).unwrap();
        assert_eq!(back(shell, program.how(), Some(&log)).await, BackFact::Unread, "{shell:?}");
        assert_eq!(back(shell, program.how(), None).await, BackFact::Unread, "{shell:?}: it has no log of its own");
    }
}
