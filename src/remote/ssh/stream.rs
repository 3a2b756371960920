//! The byte stream under one SSH connection, with a switch that really ends it.
//!
//! The library does not look at its commands while keys are exchanged, and dropping its future leaves its task and
//! socket behind. So the stream itself can be killed: reads and writes fail from then on, the task ends, the socket
//! is closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::clean;

/// How much of the server's first words is kept.
const FIRST_WORDS: usize = 512;

/// What one connection's parts tell each other: the switch, and why it ended.
#[derive(Clone, Default)]
pub(super) struct Fate {
    kill: CancellationToken,
    /// Set when the server has said that it speaks SSH.
    spoke: CancellationToken,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    reason: Option<String>,
    disconnect: Option<String>,
    open_refusal: Option<String>,
    first_words: Vec<u8>,
}

impl Fate {
    /// Ends the connection, and says why unless it ended already.
    pub(super) fn kill(&self, why: &str) {
        self.ended(why);
        self.kill.cancel();
    }

    /// A guard that ends the connection when dropped.
    pub(super) fn guard(&self) -> tokio_util::sync::DropGuard {
        self.kill.clone().drop_guard()
    }

    /// Records why the connection ended; the first reason stays.
    pub(super) fn ended(&self, why: &str) {
        self.with(|notes| {
            notes.reason.get_or_insert_with(|| clean(why));
        });
    }

    /// Records the server's own words of farewell.
    pub(super) fn disconnected(&self, message: &str) {
        let message = clean(message);
        self.ended(&format!("the host said: {message}"));
        self.with(|notes| notes.disconnect = Some(message));
    }

    /// Records the server's words about a channel that it did not open.
    pub(super) fn open_refused(&self, description: &str) {
        self.with(|notes| notes.open_refusal = Some(clean(description)));
    }

    /// Why the connection ended, if it did and somebody knows.
    pub(super) fn reason(&self) -> Option<String> {
        self.with(|notes| notes.reason.clone())
    }

    /// The server's own words of farewell.
    pub(super) fn farewell(&self) -> Option<String> {
        self.with(|notes| notes.disconnect.clone()).filter(|text| !text.is_empty())
    }

    /// The server's words about a channel that it did not open.
    pub(super) fn refusal(&self) -> Option<String> {
        self.with(|notes| notes.open_refusal.take()).filter(|text| !text.is_empty())
    }

    /// What the server said first, and whether it was an SSH server's first line.
    pub(super) fn first_words(&self) -> (Option<String>, bool) {
        self.with(|notes| {
            let is_ssh = notes.first_words.split(|b| *b == b'\n').any(|line| line.starts_with(b"SSH-2.0-"));
            let text = clean(&String::from_utf8_lossy(&notes.first_words));
            (Some(text).filter(|t| !t.is_empty()), is_ssh)
        })
    }

    /// Waits until the server has said its first words.
    pub(super) async fn banner(&self) {
        self.spoke.cancelled().await;
    }

    fn heard(&self, bytes: &[u8]) {
        self.with(|notes| {
            let room = FIRST_WORDS.saturating_sub(notes.first_words.len());
            notes.first_words.extend(bytes.iter().take(room));
        });
        if self.first_words().1 {
            self.spoke.cancel();
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Notes) -> T) -> T {
        f(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a connection runs over: TCP, or a channel through another connection.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Called after each read.
    fn acknowledge(&self) {}
}

impl Carrier for TcpStream {
    /// Without this the kernel holds back its acknowledgements, and a server that waits for them (sshd does, until
    /// the session is open) loses 40 ms. The option does not stick, so it is set each time; a failure costs time only.
    fn acknowledge(&self) {
        let _ = rustix::net::sockopt::set_tcp_quickack(self, true);
    }
}

impl Carrier for russh::ChannelStream<russh::client::Msg> {}

/// The carrier with the switch.
pub(super) struct Stream<S> {
    carrier: S,
    fate: Fate,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    listening: bool,
}

impl<S> Stream<S> {
    pub(super) fn new(carrier: S, fate: &Fate) -> Self {
        let killed = Box::pin(fate.kill.clone().cancelled_owned());
        Self { carrier, fate: fate.clone(), killed, listening: true }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.killed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up")),
            Poll::Pending => Ok(()),
        }
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(e)) = &result {
            self.fate.ended(&e.to_string());
        }
        result
    }
}

impl<S: Carrier> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let result = Pin::new(&mut self.carrier).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.carrier.acknowledge();
            let new = buf.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                self.fate.ended("the host closed the connection");
            }
            if self.listening {
                self.fate.heard(new);
                self.listening = self.fate.with(|notes| notes.first_words.len() < FIRST_WORDS);
            }
        }
        self.note(result)
    }
}

impl<S: Carrier> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let result = Pin::new(&mut self.carrier).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let result = Pin::new(&mut self.carrier).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Without the switch's error: the library skips its last callback when this fails.
        let _ = self.check(cx);
        match Pin::new(&mut self.carrier).poll_shutdown(cx) {
            Poll::Pending if !self.fate.kill.is_cancelled() => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}
