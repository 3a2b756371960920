//! Requests and answers over a [`Pipe`].
//!
//! An answer carries a nonce that only the shell knows, so that noise before the hello (a banner, a talkative
//! `.bashrc`) and a forged answer in a command's output are both told apart from the real thing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{Boot, LIBRARY};
use crate::remote::ssh::last_words;
use crate::remote::{Exit, Lost, Pipe};

/// The most that noise before the hello, or one answer, may hold.
pub(super) const MAX_NOISE: usize = 64 * 1024;
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a shell could not be started, or a request not be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// The link ended: what the request did is unknown.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// No answer came in time: what the request did is unknown.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The program ended where the shell should have spoken.
    #[error("the remote shell did not start{}", .stderr.as_deref().map(|text| format!(": {}", last_words(text))).unwrap_or_default())]
    NotStarted {
        /// Its exit status, where it had one.
        status: Option<u32>,
        /// The end of what it wrote to standard error.
        stderr: Option<String>,
    },
    /// The password for escalation was refused.
    #[error("the password was refused")]
    WrongPassword,
    /// Escalation asks something else than the password.
    #[error("the way to root asks something else than a password: {0}")]
    Question(String),
    /// The other side does not speak the protocol.
    #[error("the remote shell answered out of turn: {0}")]
    Protocol(&'static str),
}

/// A started privileged shell.
pub(crate) struct Shell {
    pipe: Box<dyn Pipe>,
    nonce: String,
    next: u64,
    buffer: BytesMut,
}

impl Shell {
    /// Gets past `boot`'s questions, sends the library and waits for the hello. `state_dir` overrides the usual place of the host's state.
    pub(crate) async fn start(
        pipe: Box<dyn Pipe>,
        boot: Option<Boot>,
        state_dir: Option<&str>,
        limit: Duration,
    ) -> Result<Self, ShellError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut shell = Self { pipe, nonce, next: 0, buffer: BytesMut::new() };
        let library = format!("K={}\n{}", super::quote::word(state_dir.unwrap_or_default()), LIBRARY.as_str());
        let hello = format!("{} {}\n{library}", shell.nonce, library.len());
        let deadline = Instant::now() + limit;
        let started = async {
            if let Some(boot) = boot {
                shell.buffer = boot.admit(&mut *shell.pipe, deadline).await?;
            }
            shell.pipe.send(Bytes::from(hello)).await?;
            let wanted = format!("H {} ", shell.nonce);
            let mut noise = 0;
            loop {
                let line = shell.line(MAX_NOISE).await?;
                // A banner without a line end may stand before the hello.
                if line.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                    return Ok(());
                }
                noise += line.len();
                if noise > MAX_NOISE {
                    return Err(ShellError::Protocol("too much noise before the hello"));
                }
            }
        };
        match timeout_at(deadline, started).await {
            Ok(Ok(())) => Ok(shell),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ShellError::Silent(limit)),
        }
    }

    /// Sends one request and waits for its answer: the exit status and what it printed.
    ///
    /// `body` is one line of calls with quoted words ([`super::quote`]). `data` goes to its standard input and is the
    /// only road of a secret.
    ///
    /// # Errors
    /// Every error means that the outcome is unknown; the shell cannot be used afterwards.
    pub(crate) async fn request(
        &mut self,
        body: &str,
        data: &[u8],
        limit: Duration,
    ) -> Result<(i32, String), ShellError> {
        self.next += 1;
        let id = self.next;
        let mut frame = Zeroizing::new(Vec::with_capacity(body.len() + data.len() + 64));
        frame.extend_from_slice(format!("R {id} {} {}\n{body}\n", body.len(), data.len()).as_bytes());
        frame.extend_from_slice(data);
        let deadline = Instant::now() + limit;
        let exchange = async {
            self.pipe.send(Bytes::from_owner(frame)).await?;
            let head = self.line(256).await?;
            let head = std::str::from_utf8(&head).map_err(|_| ShellError::Protocol("a head that is no text"))?;
            let mut words = head.split(' ');
            let ours = words.next() == Some("A")
                && words.next() == Some(self.nonce.as_str())
                && words.next().and_then(|word| word.parse().ok()) == Some(id);
            let status = words.next().and_then(|word| word.parse().ok());
            let length = words.next().and_then(|word| word.parse().ok());
            match (ours, status, length, words.next()) {
                (true, Some(status), Some(length), None) if length <= MAX_ANSWER => {
                    let text = self.exactly(length).await?;
                    Ok((status, String::from_utf8_lossy(&text).into_owned()))
                }
                _ => Err(ShellError::Protocol("a head that is not an answer to this request")),
            }
        };
        timeout_at(deadline, exchange).await.unwrap_or(Err(ShellError::Silent(limit)))
    }

    /// Ends the shell's input, so that it ends itself, and lets go of the connection.
    pub(crate) async fn close(self) {
        self.pipe.close().await;
    }

    async fn fill(&mut self) -> Result<(), ShellError> {
        match self.pipe.recv().await? {
            Some(piece) => {
                self.buffer.extend_from_slice(&piece);
                Ok(())
            }
            None if self.next == 0 => {
                let stderr = self.pipe.stderr_tail();
                let status = match self.pipe.exit() {
                    Some(Exit::Status(status)) => Some(status),
                    _ => None,
                };
                Err(ShellError::NotStarted { status, stderr: (!stderr.is_empty()).then_some(stderr) })
            }
            None => Err(Lost { reason: "the remote shell ended".to_owned() }.into()),
        }
    }

    async fn line(&mut self, max: usize) -> Result<BytesMut, ShellError> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(at + 1);
                line.truncate(at);
                return Ok(line);
            }
            if self.buffer.len() > max {
                return Err(ShellError::Protocol("a line that does not end"));
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<BytesMut, ShellError> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length))
    }
}
