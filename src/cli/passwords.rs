//! Passwords for logins and for sudo: read from the inventory's sources, each once a run, or asked for.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::{Mutex, OnceCell};

use super::CliError;
use super::prompt::Terminal;
use crate::model::{SecretSource, chain};
use crate::remote::Passwords;
use crate::secret::{PromptError, Redactor, Sources};

/// What the sources gave, so that a program or a person is asked once for many hosts.
pub(super) struct FromSources {
    sources: Sources,
    redactor: Redactor,
    read: Mutex<HashMap<SecretSource, Arc<Answer>>>,
}

/// What a source gave, once it was asked.
type Answer = OnceCell<Result<SecretString, String>>;

impl FromSources {
    pub(super) fn new(sources: &Sources, redactor: &Redactor) -> Arc<Self> {
        Arc::new(Self { sources: sources.clone(), redactor: redactor.clone(), read: Mutex::default() })
    }
}

impl Passwords for FromSources {
    fn read<'a>(&'a self, what: &'a str, source: &'a SecretSource) -> BoxFuture<'a, Result<SecretString, String>> {
        Box::pin(async move {
            let slot = Arc::clone(self.read.lock().await.entry(source.clone()).or_default());
            let read = slot.get_or_init(|| async {
                let value = self.sources.read(what, source).await.map_err(|error| chain(&error))?;
                self.redactor.register_bytes(what, value.expose());
                Ok(SecretString::from(value.expose_text()))
            });
            read.await.clone()
        })
    }
}

/// Asks for the one password of `-K`.
pub(super) fn ask(terminal: &Terminal, redactor: &Redactor) -> Result<SecretString, CliError> {
    match terminal.hidden("password for becoming root (sudo) on the hosts") {
        Ok(text) => {
            redactor.register_bytes("password for becoming root", text.as_bytes());
            Ok(SecretString::from(text.as_str()))
        }
        Err(PromptError::NoTerminal) => Err(CliError::usage(
            "-K needs a terminal to ask on; `become_password` in the inventory names a source instead",
        )),
        Err(PromptError::Declined) => Err(CliError::Declined),
        Err(PromptError::Io(error)) => Err(CliError::internal("cannot ask", error)),
    }
}
