//! Asking the person at the terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::CliError;
use crate::remote::ssh::AskPassphrase;
use crate::secret::{Prompt, PromptError};

/// The terminal that keyswap was started on.
#[derive(Clone, Default)]
pub(super) struct Terminal;

impl Terminal {
    /// Whether there is somebody to ask.
    pub(super) fn is_there() -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks a yes-or-no question; anything but yes is no.
    pub(super) fn confirm(question: &str) -> Result<(), CliError> {
        if !Self::is_there() {
            return Err(CliError::usage(format!("{question} needs a terminal to ask on, or --yes")));
        }
        let mut err = std::io::stderr().lock();
        let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
        asked.map_err(|error| CliError::internal("cannot ask", error))?;
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| CliError::internal("cannot read the answer", error))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(CliError::Declined),
        }
    }

    pub(super) fn hidden(question: &str) -> Result<Zeroizing<String>, PromptError> {
        if !Self::is_there() {
            return Err(PromptError::NoTerminal);
        }
        let mut err = std::io::stderr().lock();
        write!(err, "{question}: ").and_then(|()| err.flush()).map_err(PromptError::Io)?;
        drop(err);
        match rpassword::read_password() {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(PromptError::Declined),
            Err(error) => Err(PromptError::Io(error)),
        }
    }
}

impl Prompt for Terminal {
    fn ask_hidden(&self, question: &str) -> Result<Zeroizing<String>, PromptError> {
        Self::hidden(question)
    }
}

impl AskPassphrase for Terminal {
    fn ask(&self, prompt: &str) -> Option<SecretString> {
        Self::hidden(prompt).ok().map(|text| SecretString::from(text.as_str()))
    }
}

/// The terminal as those below know it.
pub(super) fn terminal() -> Arc<Terminal> {
    Arc::new(Terminal)
}
