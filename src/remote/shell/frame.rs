//! Requests and answers over a [`Pipe`].
//!
//! An answer carries a nonce that only the shell knows, so that noise before the hello (a banner, a talkative
//! `.bashrc`) and a forged answer in a command's output are both told apart from the real thing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{Boot, LIBRARY, LIBRARY_SUM};
use crate::remote::ssh::last_words;
use crate::remote::{Exit, KeptBack, Lost, Pipe};

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
    /// The password was refused elsewhere and is not given here.
    #[error(transparent)]
    KeptBack(#[from] KeptBack),
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
    /// It has said that it is there.
    started: bool,
    /// The request that was sent last, counted from 1.
    sent: u64,
    buffer: BytesMut,
}

impl Shell {
    /// Gets past `boot`'s questions, sends the library and waits for the hello. `state_dir` overrides the usual place of the
    /// host's state. With the library goes the `first` request, whose answer is [`Shell::answer`]'s: it costs no round trip.
    pub(crate) async fn start(
        pipe: Box<dyn Pipe>,
        boot: Option<Boot>,
        state_dir: Option<&str>,
        first: &str,
        limit: Duration,
    ) -> Result<Self, ShellError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut shell = Self { pipe, nonce, started: false, sent: 0, buffer: BytesMut::new() };
        let library = format!(
            "K={}\nKS_SUM={}\n{}",
            super::quote::word(state_dir.unwrap_or_default()),
            LIBRARY_SUM.as_str(),
            LIBRARY.as_str()
        );
        let mut hello = format!("{} {}\n{library}", shell.nonce, library.len()).into_bytes();
        hello.extend_from_slice(&shell.frame(first, b""));
        let mut deadline = Instant::now() + limit;
        if let Some(boot) = boot {
            (shell.buffer, deadline) = boot.admit(&mut *shell.pipe, deadline).await?;
        }
        let started = async {
            if let Err(lost) = shell.pipe.send(Bytes::from(hello)).await {
                return Err(shell.why_it_ended(lost).await);
            }
            let wanted = format!("H {} ", shell.nonce);
            let mut noise = 0;
            loop {
                let line = shell.line(MAX_NOISE).await?;
                // A banner without a line end may stand before the hello.
                if line.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                    shell.started = true;
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

    fn frame(&mut self, body: &str, data: &[u8]) -> Zeroizing<Vec<u8>> {
        self.sent += 1;
        let id = self.sent;
        let mut frame = Zeroizing::new(Vec::with_capacity(body.len() + data.len() + 64));
        frame.extend_from_slice(format!("R {id} {} {}\n{body}\n", body.len(), data.len()).as_bytes());
        frame.extend_from_slice(data);
        frame
    }

    /// Sends one request and waits for its answer: the exit status and what it printed. That of the request before has been
    /// taken.
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
        let frame = self.frame(body, data);
        let deadline = Instant::now() + limit;
        match timeout_at(deadline, self.pipe.send(Bytes::from_owner(frame))).await {
            Ok(sent) => sent?,
            Err(_) => return Err(ShellError::Silent(limit)),
        }
        self.answer(deadline, limit).await
    }

    /// Waits for the answer to the request that was sent last, until `deadline`, which is `limit` after that.
    ///
    /// # Errors
    /// As [`Shell::request`].
    pub(crate) async fn answer(&mut self, deadline: Instant, limit: Duration) -> Result<(i32, String), ShellError> {
        let id = self.sent;
        let exchange = async {
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

    /// Why nothing can be sent any more: a program that has ended by itself says more than that it has ended.
    async fn why_it_ended(&mut self, lost: Lost) -> ShellError {
        while self.buffer.len() <= MAX_NOISE {
            match self.fill().await {
                Ok(()) => {}
                Err(why @ ShellError::NotStarted { .. }) => return why,
                Err(_) => break,
            }
        }
        lost.into()
    }

    async fn fill(&mut self) -> Result<(), ShellError> {
        match self.pipe.recv().await? {
            Some(piece) => {
                self.buffer.extend_from_slice(&piece);
                Ok(())
            }
            None if !self.started => {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;

    use futures_util::future::BoxFuture;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    /// Says its pieces, then ends.
    struct Script(VecDeque<Bytes>);

    impl Pipe for Script {
        fn send(&mut self, _: Bytes) -> BoxFuture<'_, Result<(), Lost>> {
            Box::pin(async { Ok(()) })
        }

        fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Lost>> {
            let piece = self.0.pop_front();
            Box::pin(async { Ok(piece) })
        }

        fn stderr_tail(&self) -> String {
            String::new()
        }

        fn exit(&self) -> Option<Exit> {
            None
        }

        fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    /// One request to a shell that says these bytes, cut into pieces of these lengths.
    fn ask(said: &[u8], lengths: &[usize]) -> Result<(i32, String), ShellError> {
        let mut pieces = VecDeque::new();
        let mut rest = said;
        for length in lengths.iter().cycle().take(said.len()) {
            let (piece, more) = rest.split_at((*length).min(rest.len()));
            pieces.push_back(Bytes::copy_from_slice(piece));
            rest = more;
        }
        pieces.push_back(Bytes::copy_from_slice(rest));
        let mut shell = Shell {
            pipe: Box::new(Script(pieces)),
            nonce: "nonce".to_owned(),
            started: true,
            sent: 0,
            buffer: BytesMut::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(shell.request("true", b"", Duration::from_secs(10)))
    }

    /// Takes nothing any more, and has said why.
    struct Ended;

    impl Pipe for Ended {
        fn send(&mut self, _: Bytes) -> BoxFuture<'_, Result<(), Lost>> {
            Box::pin(async { Err(Lost { reason: "the program has ended".to_owned() }) })
        }

        fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Lost>> {
            Box::pin(async { Ok(None) })
        }

        fn stderr_tail(&self) -> String {
            "doas: a terminal is required\n".to_owned()
        }

        fn exit(&self) -> Option<Exit> {
            Some(Exit::Status(1))
        }

        fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn who_ends_before_he_was_told_anything_is_heard() {
        let started = Shell::start(Box::new(Ended), None, None, "true", Duration::from_secs(10)).await;
        let Err(why) = started else { panic!("nothing was started") };
        let stderr = Some("doas: a terminal is required\n".to_owned());
        assert_eq!(why, ShellError::NotStarted { status: Some(1), stderr });
    }

    /// An answer comes whole or not at all.
    #[test]
    fn fuzz_framing() {
        let asked = Cell::new(0);
        // One for each property: a runner counts its cases over all that it runs.
        let runner = || {
            TestRunner::new(Config {
                cases: Config::default().cases.max(1000),
                failure_persistence: None,
                ..Config::default()
            })
        };
        let pieces = || prop::collection::vec(1_usize..40, 1..8);
        let whole = (any::<i32>(), ".{0,200}", pieces());
        let sound = runner().run(&whole, |(status, text, lengths)| {
            asked.set(asked.get() + 1);
            let said = format!("A nonce 1 {status} {}\n{text}", text.len());
            prop_assert_eq!(ask(said.as_bytes(), &lengths), Ok((status, text)));
            // Cut anywhere, it is no answer.
            let cut = said.len().saturating_sub(1 + status.unsigned_abs() as usize % said.len());
            prop_assert!(ask(&said.as_bytes()[..cut], &lengths).is_err());
            Ok(())
        });
        sound.unwrap();
        // Heads that are nearly right: another nonce, another request, lengths that cannot be, more words.
        let word = prop::sample::select(vec![
            "A",
            "B",
            "nonce",
            "other",
            "1",
            "2",
            "0",
            "-1",
            "99999999999",
            "1048577",
            "x",
            "",
            "\u{1b}[2J",
            "\r",
        ]);
        let forged = (prop::collection::vec(word, 0..7), prop::collection::vec(any::<u8>(), 0..60), pieces());
        let refused = runner().run(&forged, |(words, tail, lengths)| {
            asked.set(asked.get() + 1);
            let mut said = words.join(" ").into_bytes();
            said.push(b'\n');
            said.extend(&tail);
            let sound = words.len() == 5
                && words[..3] == ["A", "nonce", "1"]
                && words[3].parse::<i32>().is_ok()
                && words[4].parse::<usize>().is_ok_and(|length| length <= tail.len());
            prop_assert_eq!(ask(&said, &lengths).is_ok(), sound, "{:?}", words);
            Ok(())
        });
        refused.unwrap();
        // A line that never ends, and an answer larger than any.
        assert!(matches!(ask(&[b'A'; 4096], &[7]), Err(ShellError::Protocol("a line that does not end"))));
        assert!(matches!(ask(b"A nonce 1 0 1048577\n", &[7]), Err(ShellError::Protocol(_))));
        println!("framing: {} inputs, 0 panics, each taken whole or refused", asked.get());
    }
}
