//! Asking the person at the terminal.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::CliError;
use crate::remote::ssh::AskPassphrase;
use crate::report::{Hold, Screen, sanitize};
use crate::secret::{Prompt, PromptError};

/// The terminal that keyswap was started on. While it is asked on, nothing else is drawn there.
#[derive(Clone)]
pub(super) struct Terminal(Screen);

impl Terminal {
    /// Whether there is somebody to ask.
    pub(super) fn is_there() -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    pub(super) fn new(screen: &Screen) -> Self {
        Self(screen.clone())
    }

    /// Asks a yes-or-no question; anything but yes is no.
    pub(super) fn confirm(&self, question: &str) -> Result<(), CliError> {
        if !Self::is_there() {
            return Err(CliError::usage(format!("{question} needs a terminal to ask on, or --yes")));
        }
        let question = sanitize::line(question, usize::MAX);
        let _held = self.put(&question).map_err(|error| CliError::internal("cannot ask", error))?;
        match Self::yes().map_err(|error| CliError::internal("cannot read the answer", error))? {
            true => Ok(()),
            false => Err(CliError::Declined),
        }
    }

    /// Puts a yes-or-no question, for [`yes`](Self::yes) to wait for its answer. Nothing is drawn over it until what is
    /// given back is dropped.
    pub(super) fn put(&self, question: &str) -> std::io::Result<Hold> {
        let question = format!("{question} [y/N] ");
        let held = self.0.ask(&question);
        write(&question)?;
        Ok(held)
    }

    /// Waits for an answer, and tells whether it is yes.
    pub(super) fn yes() -> std::io::Result<bool> {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// As [`confirm`](Self::confirm), until somebody stops it: who presses Ctrl-C at the question has declined.
    pub(super) async fn confirm_unless(&self, question: String, cancel: &CancellationToken) -> Result<(), CliError> {
        let (reply, answer) = oneshot::channel();
        let terminal = self.clone();
        // A thread that nobody waits for: a read from a terminal cannot be called off.
        std::thread::spawn(move || drop(reply.send(terminal.confirm(&question))));
        tokio::select! {
            answer = answer => answer.unwrap_or(Err(CliError::Declined)),
            () = cancel.cancelled() => Err(CliError::Declined),
        }
    }

    pub(super) fn hidden(&self, question: &str) -> Result<Zeroizing<String>, PromptError> {
        if !Self::is_there() {
            return Err(PromptError::NoTerminal);
        }
        // Before the question is there to be answered: what is pasted at once must not be shown either.
        let _quiet = Quiet::new().map_err(PromptError::Io)?;
        let question = format!("{}: ", sanitize::line(question.trim_end_matches([':', ' ']), usize::MAX));
        let _held = self.0.ask(&question);
        write(&question).map_err(PromptError::Io)?;
        let config = rpassword::ConfigBuilder::new().input_reader(Keys).output_discard().build();
        let typed = rpassword::read_password_with_config(config);
        // The line's end is not shown, either.
        write("\n").map_err(PromptError::Io)?;
        match typed {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::Interrupted) => {
                Err(PromptError::Declined)
            }
            Err(error) => Err(PromptError::Io(error)),
        }
    }
}

/// What is typed on a terminal that is [`Quiet`], key by key.
struct Keys;

impl Read for Keys {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        const CTRL_C: u8 = 3;
        let length = rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut *bytes))?;
        match bytes.get(..length) {
            // An end like any other: the terminal is put right before anybody leaves.
            Some(read) if read.contains(&CTRL_C) => Err(ErrorKind::Interrupted.into()),
            _ => Ok(length),
        }
    }
}

fn write(question: &str) -> std::io::Result<()> {
    let mut err = std::io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()
}

/// A terminal that does not show what is typed, and gives each key as it comes, Ctrl-C too, until this is dropped: a signal would
/// end the process, and the terminal would stay so.
struct Quiet(Termios);

impl Quiet {
    fn new() -> std::io::Result<Self> {
        let was = tcgetattr(std::io::stdin())?;
        let mut quiet = was.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Self(was))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing else can be done for a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Prompt for Terminal {
    fn ask_hidden(&self, question: &str) -> Result<Zeroizing<String>, PromptError> {
        self.hidden(question)
    }
}

impl AskPassphrase for Terminal {
    fn ask(&self, prompt: &str) -> Option<SecretString> {
        match self.hidden(prompt) {
            Ok(text) => Some(SecretString::from(text.as_str())),
            // One of many hosts asks: the answer is meant for all of them, as Ctrl-C at any other moment.
            Err(PromptError::Declined) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
                None
            }
            Err(_) => None,
        }
    }
}
