//! Becoming root: what is started in the login shell, the password where one is wanted, and why it was refused.
//!
//! Invariants: a password goes to the channel's standard input and nowhere else, only in answer to our own question and
//! once to each: the prompt is a random word that we chose, so neither a lecture nor a banner nor another program's question
//! gets it, and a host that asks a second time has refused it. Nothing else is sent before the shell has said that it is there.
//! Whoever repeats the command line (a login shell that traces, a wrapper that logs) says none of these words ([`Word`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::frame::MAX_NOISE;
use super::{BOOT, ShellError, quote};
use crate::model::Become;
use crate::remote::ssh::last_words;
use crate::remote::{Exit, Leave, Lost, Pipe, Trial};

/// How often standard error is looked at while a question may come; a piece of standard output is seen at once.
const LOOK: Duration = Duration::from_millis(10);
/// A question that is not ours is taken for one when nothing has come after it for so long.
const PATIENCE: Duration = Duration::from_secs(4);

/// The status with which the boot command says that sudo would record what is sent.
pub(crate) const RECORDS: u32 = 78;

/// What the login shell is asked to start.
pub struct Boot {
    command: String,
    password: Option<Admission>,
}

/// The password, and the words by which its question and the shell's beginning are known.
struct Admission {
    password: SecretString,
    /// What other hosts made of the password, and what this one is called.
    trial: (Arc<Trial>, String),
    question: String,
    admitted: String,
}

/// A random word in two halves. They stand apart in the command line, and only the shell that it starts puts them together:
/// so the word is said by nobody but who was told to say it.
struct Word {
    first: String,
    second: String,
}

impl Word {
    fn new() -> Self {
        let (first, second) = uuid::Uuid::new_v4().as_u64_pair();
        Self { first: format!("{first:016x}"), second: format!("{second:016x}") }
    }

    /// What sets the variables of which [`SAID`](Self::SAID) is made.
    fn set(&self) -> String {
        format!("a={} b={}", self.first, self.second)
    }

    /// The word in a shell that has set its variables.
    const SAID: &str = "\"$a$b\"";

    fn whole(&self) -> String {
        format!("{}{}", self.first, self.second)
    }
}

impl Boot {
    /// The remote command for a way to become root, without a password.
    ///
    /// A sudo that records standard input (`log_input`) would write the secret into its log; on such a host the shell
    /// does not start ([`sudo`]).
    #[must_use]
    pub fn new(become_method: Become) -> Self {
        let shell = format!("sh -c {}", quote::word(BOOT));
        let command = match become_method {
            Become::None => format!("exec {shell}"),
            Become::Sudo => sudo("", "sudo -n", BOOT),
            Become::Doas => format!("exec doas -n {shell}"),
        };
        Self { command, password: None }
    }

    /// The remote command for sudo with a password. Others than sudo ask a terminal, and there is none.
    #[must_use]
    pub(crate) fn with_password(become_method: Become, password: SecretString, trial: Arc<Trial>, host: &str) -> Self {
        if become_method != Become::Sudo {
            return Self::new(become_method);
        }
        let (question, admitted) = (Word::new(), Word::new());
        let said = Word::SAID;
        let command = sudo(
            &format!("{}; ", question.set()),
            &format!("sudo -S -p {said}"),
            &format!("{}; echo {said}; {BOOT}", admitted.set()),
        );
        let (question, admitted) = (question.whole(), admitted.whole());
        Self { command, password: Some(Admission { password, trial: (trial, host.to_owned()), question, admitted }) }
    }

    /// The command line.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Gets past the questions, if there may be any; returns what came after the shell's first word, and the deadline for what
    /// follows: it is later by the time that another host was waited for.
    pub(super) async fn admit(self, pipe: &mut dyn Pipe, deadline: Instant) -> Result<(BytesMut, Instant), ShellError> {
        match self.password {
            None => Ok((BytesMut::new(), deadline)),
            Some(admission) => admission.pass(pipe, deadline).await,
        }
    }
}

/// One call of sudo. What records standard input reads it first and hands on a copy, so that root's shell has another one
/// than sudo was given: then it ends before anything was sent to it. Sudo is the process that the login's shell became, and
/// `$0` is its number. Where that process cannot be looked at, the policy itself is asked, and any word of recording counts.
/// The shells that are started trace nothing, whatever the login's shell has told those under it (`SHELLOPTS`).
fn sudo(before: &str, call: &str, script: &str) -> String {
    let check = format!(
        "[ /proc/$0/fd/0 -ef /proc/self/fd/0 ] || {{ p=log_input; [ -e /proc/$0/fd/0 ] || \
         p=$(sudo -n -l -U \"$SUDO_USER\" 2>&1 | sed 's/!log_[a-z]*//g; s/NOLOG_[A-Z]*//g'); \
         case $p in *log_input*|*LOG_INPUT*|*log_stdin*) p=;; *'may run the following commands'*) ;; *) p=;; esac; \
         [ -n \"$p\" ] || {{ echo 'keyswap: sudo records standard input here (log_input)' >&2; exit {RECORDS}; }}; }}; {script}"
    );
    let start = format!("exec {call} -- sh -c {} $$", quote::word(&check));
    format!("exec sh -c {}", quote::word(&format!("set +x; LC_ALL=C; export LC_ALL; {before}{start}")))
}

impl Admission {
    async fn pass(self, pipe: &mut dyn Pipe, mut deadline: Instant) -> Result<(BytesMut, Instant), ShellError> {
        let began = Instant::now();
        let mut leave: Option<Leave> = None;
        let mut said = BytesMut::new();
        let mut answered = false;
        // What standard error held when it last changed, and when that was.
        let (mut seen, mut since) = (String::new(), began);
        loop {
            if let Some(at) = find(&said, self.admitted.as_bytes()) {
                let rest = said.split_off(at + self.admitted.len());
                leave.into_iter().for_each(Leave::taken);
                return Ok((rest, deadline));
            }
            if said.len() > MAX_NOISE {
                return Err(ShellError::Protocol("too much noise before the hello"));
            }
            if Instant::now() >= deadline {
                return Err(ShellError::Silent(began.elapsed()));
            }
            // A pause is no loss: `recv` gives whole pieces or nothing.
            if let Ok(piece) = timeout(LOOK, pipe.recv()).await {
                match piece? {
                    Some(piece) => said.extend_from_slice(&piece),
                    None => {
                        let why = self.refused(pipe);
                        if why == ShellError::WrongPassword {
                            leave.into_iter().for_each(Leave::refused);
                        }
                        return Err(why);
                    }
                }
                continue;
            }
            let errors = pipe.stderr_tail();
            match errors.matches(self.question.as_str()).count() {
                0 => {}
                1 if !answered => {
                    answered = true;
                    // sudo waits at its question; the time is not this host's.
                    let asked = Instant::now();
                    leave = Some(self.trial.0.leave(&self.trial.1).await?);
                    deadline += asked.elapsed();
                    let mut line = Zeroizing::new(Vec::with_capacity(self.password.expose_secret().len() + 1));
                    line.extend_from_slice(self.password.expose_secret().as_bytes());
                    line.push(b'\n');
                    let sent = timeout_at(deadline, pipe.send(Bytes::from_owner(line))).await;
                    sent.unwrap_or_else(|_| Err(Lost { reason: "the password was not read".to_owned() }))?;
                    since = Instant::now();
                }
                1 => {}
                _ => {
                    leave.into_iter().for_each(Leave::refused);
                    return Err(ShellError::WrongPassword);
                }
            }
            if errors != seen {
                (seen, since) = (errors, Instant::now());
            } else if since.elapsed() >= PATIENCE
                && let Some(question) = self.foreign_question(&seen)
            {
                return Err(ShellError::Question(last_words(&question)));
            }
        }
    }

    /// A last line of standard error that waits for an answer and is not our question: what came before ours is done with.
    fn foreign_question(&self, errors: &str) -> Option<String> {
        let after = errors.rsplit(self.question.as_str()).next().unwrap_or_default();
        let last = after.rsplit('\n').next().unwrap_or_default().trim();
        (!last.is_empty()).then(|| last.to_owned())
    }

    fn refused(&self, pipe: &dyn Pipe) -> ShellError {
        let stderr = pipe.stderr_tail().replace(self.question.as_str(), "");
        if stderr.contains("incorrect password attempt") {
            return ShellError::WrongPassword;
        }
        let status = match pipe.exit() {
            Some(Exit::Status(status)) => Some(status),
            _ => None,
        };
        ShellError::NotStarted { status, stderr: (!stderr.trim().is_empty()).then_some(stderr) }
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// Why a host gave no root, as far as its own words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A password is wanted, and there is none.
    Password,
    /// The rules do not allow it.
    NotAllowed,
    /// It works only with a terminal.
    Terminal,
    /// The program is not there.
    Missing,
    /// The login's account or password has expired.
    Expired,
    /// Something else.
    Other,
}

/// What a refusal's words mean; they were said in the C locale.
pub(crate) fn refusal(stderr: &str) -> Refusal {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if says(&["must have a tty", "a tty is required", "a terminal is required"]) {
        Refusal::Terminal
    } else if says(&["may not run sudo", "is not in the sudoers file", "is not allowed to", "not permitted"]) {
        Refusal::NotAllowed
    } else if says(&["account validation failure", "has expired", "is expired", "password expired"]) {
        Refusal::Expired
    } else if says(&["a password is required", "Authentication required", "Authorization required"]) {
        Refusal::Password
    } else if says(&["not found", "No such file"]) {
        Refusal::Missing
    } else {
        Refusal::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_their_words() {
        let table = [
            ("sudo: a password is required", Refusal::Password),
            ("doas: Authentication required", Refusal::Password),
            ("Sorry, user ops may not run sudo on h1.", Refusal::NotAllowed),
            ("ops is not in the sudoers file.", Refusal::NotAllowed),
            ("Sorry, user ops is not allowed to execute '/usr/bin/sh -c x' as root on h1.", Refusal::NotAllowed),
            ("doas: Operation not permitted", Refusal::NotAllowed),
            ("sudo: sorry, you must have a tty to run sudo", Refusal::Terminal),
            ("doas: a tty is required", Refusal::Terminal),
            ("sh: 1: sudo: not found", Refusal::Missing),
            (
                "sudo: Account expired or PAM config lacks an \"account\" section for sudo: it has expired",
                Refusal::Expired,
            ),
            ("", Refusal::Other),
        ];
        for (stderr, expected) in table {
            assert_eq!(refusal(stderr), expected, "{stderr}");
        }
    }

    #[test]
    fn a_question_after_ours_is_another_s() {
        let boot = Boot::with_password(Become::Sudo, SecretString::from("x"), Arc::default(), "h1");
        let Some(admission) = boot.password else { panic!("there is a password") };
        let ours = &admission.question;
        for (errors, expected) in [
            (String::new(), None),
            (format!("lecture\n{ours}"), None),
            (format!("{ours}sudo: a note\n"), None),
            ("One-time code: ".to_owned(), Some("One-time code:")),
            (format!("{ours}Verification code: "), Some("Verification code:")),
            (format!("{ours}\nTouch your key"), Some("Touch your key")),
        ] {
            assert_eq!(admission.foreign_question(&errors).as_deref(), expected, "{errors}");
        }
    }

    #[test]
    fn who_repeats_the_command_says_none_of_its_words() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let sudo = dir.path().join("sudo");
        std::fs::write(&sudo, "#!/bin/dash\nprintf '%s\\n' \"$3\" >asked\n").unwrap();
        std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o755)).unwrap();
        let sh = dir.path().join("sh");
        for (login, rc, inner) in [
            ("bash", "set -x", "/bin/dash"),
            ("bash", "set -xv", "/bin/bash"),
            ("bash", "set -xv; export SHELLOPTS", "/bin/bash"),
            ("dash", "set -x", "/bin/dash"),
            (
                "bash",
                "logged() { printf '%s\\n' \"$1\"; echo $1; printf '%q\\n' \"$1\"; }; logged \"$command\"",
                "/bin/bash",
            ),
        ] {
            let _ = std::fs::remove_file(&sh);
            symlink(inner, &sh).unwrap();
            let boot = Boot::with_password(Become::Sudo, SecretString::from("x"), Arc::default(), "h1");
            let path = format!("{}:/usr/bin:/bin", dir.path().display());
            // As sshd starts it: the line is the shell's own, after what it reads first.
            let ran = std::process::Command::new(login)
                .args(["-c", &format!("{rc}\n{}", boot.command())])
                .env("PATH", path)
                .env("command", boot.command())
                .current_dir(dir.path())
                .output()
                .unwrap();
            let Some(admission) = boot.password else { panic!("there is a password") };
            for said in [ran.stdout, ran.stderr].map(|said| String::from_utf8(said).unwrap()) {
                assert!(!said.contains(&admission.question), "{login} {rc}: {said}");
                assert!(!said.contains(&admission.admitted), "{login} {rc}: {said}");
            }
            let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
            assert_eq!(asked.trim(), admission.question, "{login} {rc}");
            std::fs::remove_file(dir.path().join("asked")).unwrap();
        }
    }

    #[test]
    fn no_password_stands_in_a_command_or_in_debug_text() {
        let with =
            |method| Boot::with_password(method, SecretString::from("test-token-password"), Arc::default(), "h1");
        let boot = with(Become::Sudo);
        assert!(!boot.command().contains("test-token"));
        assert!(boot.command().contains("sudo -S -p ") && !boot.command().contains("exec sudo -n"));
        for other in [Become::None, Become::Doas] {
            assert_eq!(with(other).command(), Boot::new(other).command());
        }
    }
}
