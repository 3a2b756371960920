//! A program started over SSH, as a [`Pipe`].
//!
//! Two tasks serve it. One takes everything that the host sends, at once and until the channel is closed, so that
//! neither a talkative program nor a slow reader ever stops the connection; what nobody has read is bounded, and a
//! host that exceeds the bound loses its connection. The other feeds the program's input, so that a program that
//! does not read never stops anybody else. The end counts as orderly only if the host has said how the program ended
//! *and* closed the channel; in whatever order it says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{Problem, clean};
use super::session::Session;
use super::stream::Fate;
use crate::remote::{Exit, Lost, Pipe};

/// How many bytes of output may wait for a reader.
const MAX_UNREAD: usize = 16 * 1024 * 1024;
/// What a piece of output costs beside its bytes, so that many tiny pieces count too.
const PIECE: usize = 64;
/// How much of standard error is kept.
const STDERR_TAIL: usize = 4096;
/// How long a program has to end by itself once its input has ended.
const GRACE: Duration = Duration::from_millis(1000);
/// How long the host has to confirm that the channel is closed.
const CLOSING: Duration = Duration::from_millis(500);

/// A started program.
pub(super) struct Program {
    state: Arc<State>,
    input: Option<mpsc::Sender<Bytes>>,
    /// Told when the program is no longer wanted.
    closing: CancellationToken,
    session: Option<Arc<Session>>,
}

struct State {
    output: Mutex<Output>,
    /// There is something new for a reader.
    news: Notify,
    /// The channel is over, one way or the other.
    ended: CancellationToken,
}

#[derive(Default)]
struct Output {
    stdout: VecDeque<Bytes>,
    unread: usize,
    stderr: Vec<u8>,
    exit: Option<Exit>,
    end: Option<Result<(), Lost>>,
}

impl State {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, end: Result<(), Lost>) {
        self.output().end.get_or_insert(end);
        self.ended.cancel();
        self.news.notify_one();
    }
}

impl Output {
    /// Takes a piece of output; `false` if too much is waiting.
    fn push(&mut self, data: Bytes) -> bool {
        self.unread += data.len() + PIECE;
        self.stdout.push_back(data);
        self.unread <= MAX_UNREAD
    }

    fn pop(&mut self) -> Option<Bytes> {
        let data = self.stdout.pop_front()?;
        self.unread = self.unread.saturating_sub(data.len() + PIECE);
        Some(data)
    }

    fn push_stderr(&mut self, data: &[u8]) {
        let new = data.get(data.len().saturating_sub(STDERR_TAIL)..).unwrap_or(data);
        let excess = (self.stderr.len() + new.len()).saturating_sub(STDERR_TAIL);
        self.stderr.drain(..excess.min(self.stderr.len()));
        self.stderr.extend_from_slice(new);
    }
}

impl Program {
    /// Runs a command on a fresh channel; returns once the host has said yes.
    pub(super) async fn start(session: Arc<Session>, channel: Channel<Msg>, command: &[u8]) -> Result<Self, Problem> {
        let (read, write) = channel.split();
        let state = Arc::new(State { output: Mutex::default(), news: Notify::new(), ended: CancellationToken::new() });
        let closing = CancellationToken::new();
        let (started, answer) = oneshot::channel();
        tokio::spawn(drain(read, Arc::clone(&state), session.fate.clone(), started));
        if write.exec(true, command).await.is_err() {
            return Err(Problem::Lost { reason: session.reason("the connection has ended") });
        }
        let (input, pieces) = mpsc::channel(4);
        tokio::spawn(feed(write, pieces, Arc::clone(&state), closing.clone()));
        // From here on dropping it closes the channel.
        let program = Self { state, input: Some(input), closing, session: Some(session) };
        match answer.await {
            Ok(true) => Ok(program),
            Ok(false) => Err(Problem::CommandRefused),
            Err(_) => Err(Problem::Lost { reason: program.lost().reason }),
        }
    }

    /// What is known about the loss of the connection.
    fn lost(&self) -> Lost {
        let known = match &self.state.output().end {
            Some(Err(lost)) => Some(lost.clone()),
            Some(Ok(())) => Some(Lost { reason: "the program has ended".to_owned() }),
            None => None,
        };
        let mut lost = known.unwrap_or_else(|| Lost { reason: "the connection has ended".to_owned() });
        // A hop that failed explains more than the silence behind it.
        if let Some(session) = &self.session
            && session.via.is_some()
            && !matches!(self.state.output().end, Some(Ok(())))
        {
            lost.reason = session.reason(&lost.reason);
        }
        lost
    }
}

impl Pipe for Program {
    fn send(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Lost>> {
        async move {
            let Some(input) = &self.input else { return Err(self.lost()) };
            tokio::select! {
                biased;
                () = self.state.ended.cancelled() => Err(self.lost()),
                accepted = input.send(data) => accepted.map_err(|_| self.lost()),
            }
        }
        .boxed()
    }

    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Lost>> {
        async move {
            loop {
                let ended_well = {
                    let mut output = self.state.output();
                    if let Some(data) = output.pop() {
                        return Ok(Some(data));
                    }
                    output.end.as_ref().map(Result::is_ok)
                };
                match ended_well {
                    Some(true) => return Ok(None),
                    Some(false) => return Err(self.lost()),
                    None => self.state.news.notified().await,
                }
            }
        }
        .boxed()
    }

    fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.state.output().stderr).into_owned()
    }

    fn exit(&self) -> Option<Exit> {
        let output = self.state.output();
        if matches!(output.end, Some(Ok(()))) { output.exit.clone() } else { None }
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            self.input = None;
            self.closing.cancel();
            let _ = timeout(GRACE + CLOSING * 2, self.state.ended.cancelled()).await;
            // The connection goes with its last user.
            if let Some(session) = self.session.take().and_then(Arc::into_inner) {
                session.goodbye().await;
            }
        }
        .boxed()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Takes everything that comes, until the channel is closed or lost.
async fn drain(mut read: ChannelReadHalf, state: Arc<State>, fate: Fate, started: oneshot::Sender<bool>) {
    let mut started = Some(started);
    let mut closed = false;
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                let room = state.output().push(data);
                state.news.notify_one();
                if !room {
                    fate.kill("more than 16 MiB of output was waiting to be read");
                    break;
                }
            }
            ChannelMsg::ExtendedData { data, ext: 1 } => state.output().push_stderr(&data),
            ChannelMsg::ExitStatus { exit_status } => state.output().exit = Some(Exit::Status(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                state.output().exit = Some(Exit::Signal(signal(&signal_name)));
            }
            ChannelMsg::Success | ChannelMsg::Failure => {
                if let Some(started) = started.take() {
                    let _ = started.send(matches!(message, ChannelMsg::Success));
                }
            }
            ChannelMsg::Close => {
                closed = true;
                break;
            }
            _ => {}
        }
    }
    let lost = |reason: String| Err(Lost { reason });
    let end = match (closed, &state.output().exit) {
        (true, Some(_)) => Ok(()),
        (true, None) => lost("the host closed the channel without saying how the program ended".to_owned()),
        (false, _) => lost(fate.reason().unwrap_or_else(|| "the connection ended without a reason".to_owned())),
    };
    state.finish(end);
}

/// Feeds the program's input, and closes the channel when the program is no longer wanted.
async fn feed(
    write: ChannelWriteHalf<Msg>,
    mut pieces: mpsc::Receiver<Bytes>,
    state: Arc<State>,
    closing: CancellationToken,
) {
    let feeding = async {
        while let Some(data) = pieces.recv().await {
            if write.data_bytes(data).await.is_err() {
                return;
            }
        }
        let _ = write.eof().await;
    };
    let impatience = async {
        closing.cancelled().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        () = feeding => {}
        () = impatience => {}
        () = state.ended.cancelled() => return,
    }
    closing.cancelled().await;
    // A shell ends by itself when its input does. What does not end keeps running on the host, whatever we do.
    if timeout(GRACE, state.ended.cancelled()).await.is_err() {
        let _ = timeout(CLOSING, write.close()).await;
    }
}

fn signal(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => clean(name),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_stderr_is_bounded_and_is_the_tail() {
        let mut output = Output::default();
        for n in 0..2000 {
            output.push_stderr(format!("{n} ").as_bytes());
        }
        assert_eq!(output.stderr.len(), STDERR_TAIL);
        assert!(output.stderr.ends_with(b"1998 1999 "));
        output.push_stderr(&vec![b'x'; 3 * STDERR_TAIL]);
        assert_eq!(output.stderr, vec![b'x'; STDERR_TAIL]);
    }

    #[test]
    fn unread_output_counts_its_pieces_and_forgets_what_was_read() {
        let mut output = Output::default();
        assert!(output.push(Bytes::from(vec![0; MAX_UNREAD - PIECE])));
        assert!(!output.push(Bytes::from_static(b"x")));
        assert!(output.pop().is_some() && output.pop().is_some() && output.pop().is_none());
        assert_eq!(output.unread, 0);
        let tiny = (0..).take_while(|_| output.push(Bytes::new())).count();
        assert_eq!(tiny, MAX_UNREAD / PIECE, "empty pieces are not free");
    }

    #[test]
    fn signals_are_named_as_ssh_names_them() {
        assert_eq!(signal(&Sig::KILL), "KILL");
        assert_eq!(signal(&Sig::Custom("\x1b[2Jodd".to_owned())), "[2Jodd");
    }
}
