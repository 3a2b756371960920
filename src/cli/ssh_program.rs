//! Asking OpenSSH's client what its settings say (`ssh -G`), for an inventory with `ssh_config`.
//!
//! Invariants: no shell reads the words; the program comes from PATH; its time and its output have a bound; it sees no variable
//! that holds a secret. It connects to nothing, but it runs what `Match exec` names, and asks the resolver where `CanonicalizeHostname` says so.

use std::cell::RefCell;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::load::{AskSsh, SshQuestion};
use crate::report::sanitize;
use crate::secret::Environment;

/// The program's name.
const SSH: &str = "ssh";
/// More than all settings of a host.
const MOST_OUTPUT: u64 = 256 * 1024;
/// What is kept of a complaint.
const MOST_COMPLAINT: usize = 4096;
/// How long one question may take; a resolver may have to be asked.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the rest of a complaint is waited for once the program has ended; what it started may hold the pipe.
const GRACE: Duration = Duration::from_millis(200);
/// Questions at once.
const AT_ONCE: usize = 8;

/// The program, as this process would start it.
pub(super) struct SshProgram {
    environment: Environment,
    limit: Duration,
}

impl SshProgram {
    pub(super) fn new(environment: &Environment) -> Self {
        Self { environment: environment.clone(), limit: LIMIT }
    }

    async fn one(&self, question: &SshQuestion) -> Result<String, String> {
        let mut command = self.environment.command(SSH);
        command.args(question.argv()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it starts ends with it.
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no `ssh` in PATH (OpenSSH's client; `ssh_config` needs it, and nothing else does)".to_owned()
            }
            _ => format!("`ssh` does not start: {error}"),
        })?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let complaint = RefCell::new(Vec::new());
        let complaining = async {
            let Some(mut stderr) = stderr else { return };
            let mut piece = [0; 1024];
            while let Ok(length @ 1..) = stderr.read(&mut piece).await {
                let mut kept = complaint.borrow_mut();
                let room = MOST_COMPLAINT - kept.len();
                kept.extend(piece.iter().take(length.min(room)));
            }
        };
        let answering = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MOST_OUTPUT + 1).read_to_end(&mut said).await.map_err(|error| error.to_string())?;
            }
            if said.len() as u64 > MOST_OUTPUT {
                return Err("it says more than all its settings".to_owned());
            }
            let status = child.wait().await.map_err(|error| error.to_string())?;
            Ok((said, status))
        };
        tokio::pin!(complaining, answering);
        let both = async {
            tokio::select! {
                answer = &mut answering => {
                    let _ = timeout(GRACE, &mut complaining).await;
                    answer
                }
                () = &mut complaining => (&mut answering).await,
            }
        };
        let answer = timeout(self.limit, both).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("it does not end within {} s", self.limit.as_secs())));
        let (said, status) = answer.inspect_err(|_| {
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        })?;
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complaint.borrow()).into_owned();
            let last: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let last = last.iter().rev().take(2).rev().copied().collect::<Vec<_>>().join("; ");
            return Err(if last.is_empty() { status.to_string() } else { sanitize::line(&last, 400).into_owned() });
        }
        String::from_utf8(said).map_err(|_| "its answer is not UTF-8".to_owned())
    }
}

impl AskSsh for SshProgram {
    fn ask(&self, questions: &[SshQuestion]) -> Vec<Result<String, String>> {
        let all = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            let asking = futures_util::stream::iter(questions.iter().map(|question| self.one(question)));
            Ok(runtime.block_on(asking.buffered(AT_ONCE).collect::<Vec<_>>()))
        };
        // On a thread of its own: whoever reads an inventory may stand in a runtime already.
        let asked = std::thread::scope(|scope| scope.spawn(all).join());
        let asked: Result<_, String> = asked.unwrap_or_else(|_| Err("asking it has failed".to_owned()));
        asked.unwrap_or_else(|why| questions.iter().map(|_| Err(why.clone())).collect())
    }

    fn withhold(&self, variable: &str) {
        self.environment.withhold(variable);
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name)?.into_string().ok()
    }

    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn uid(&self) -> u32 {
        rustix::process::getuid().as_raw()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a script in the program's place answers.
    fn ask(script: Option<&str>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        if let Some(script) = script {
            let file = dir.path().join(SSH);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = match script {
            Some(_) => format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap()),
            None => dir.path().display().to_string(),
        };
        let environment = Environment::new([("PATH".into(), path.into()), ("TOKEN".into(), "test-token-ssh-g".into())]);
        let program = SshProgram { environment, limit: Duration::from_secs(2) };
        program.withhold("TOKEN");
        let question = SshQuestion {
            host: "-oProxyCommand=x".to_owned(),
            file: None,
            user: Some("ops".to_owned()),
            port: Some(2222),
            address: Some("fe80::1%eth0".to_owned()),
        };
        program.ask(&[question]).pop().unwrap()
    }

    #[test]
    fn the_words_reach_it_as_they_are() {
        let said = ask(Some("printf '%s|' \"$@\" \"${TOKEN-withheld}\"")).unwrap();
        assert_eq!(said, "-G|-l|ops|-p|2222|-o|HostName=fe80::1%%eth0|--|-oProxyCommand=x|withheld|");
    }

    #[test]
    fn what_goes_wrong_is_told_and_bounded() {
        assert!(ask(None).unwrap_err().contains("no `ssh` in PATH"));
        let bad = ask(Some("echo 'x line 3: Bad \x1b[2Jconfiguration' >&2; exit 255")).unwrap_err();
        assert!(bad.contains("line 3: Bad") && !bad.contains('\x1b'), "{bad}");
        assert!(ask(Some("exit 3")).unwrap_err().contains('3'));
        assert!(ask(Some("yes")).unwrap_err().contains("more than"));
        assert!(ask(Some("sleep 600")).unwrap_err().contains("does not end"));
        assert_eq!(ask(Some("yes x | head -c 300000 >&2; echo port 7")).unwrap(), "port 7\n");
        assert_eq!(
            ask(Some("sleep 5 >/dev/null & echo port 8")).unwrap(),
            "port 8\n",
            "what it leaves behind is not waited for"
        );
    }
}
