//! Runs a command for a channel the way sshd does without a terminal.
//!
//! - The command is `sh -c COMMAND` in a process group of its own, with an environment made from scratch.
//! - Output goes out only as fast as the client grants window for it; a slow client slows the command down.
//! - The exit status is sent when the command ends, the channel is closed when both outputs are at their end too: a
//!   daemon that keeps them open keeps the channel open.
//! - A channel or a link that goes away kills nothing: the command's input ends after what had arrived, and its next
//!   write to either output fails.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// The most that may wait for a command which does not read its input. russh grants a client new window before anybody
/// has taken the data, so this is memory; a client that goes beyond it loses its connection.
const INPUT_LIMIT: usize = 64 << 20;
const CHUNK: usize = 32 << 10;
const STDERR: u32 = 1;

/// Where and as whom commands run.
#[derive(Debug)]
pub(super) struct Place {
    /// The host's directory: working directory and `HOME`.
    pub(super) dir: PathBuf,
    /// What `USER` and `LOGNAME` say.
    pub(super) user: String,
    /// What runs commands, under the name `sh`.
    pub(super) shell: PathBuf,
    /// The commands' `PATH`.
    pub(super) path: OsString,
    /// Connections may pass through.
    pub(super) forwards: bool,
}

impl Place {
    /// The shell in the host's directory with the host's environment and nothing else.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.shell);
        command
            .arg0("sh")
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.dir)
            .env("USER", &self.user)
            .env("LOGNAME", &self.user)
            .env("SHELL", &self.shell)
            // Each is a machine of its own, which their files alone do not tell.
            .env("KS_MACHINE_FILE", self.dir.join("machine-id"))
            .process_group(0);
        command
    }
}

/// What the server keeps of a command in a channel. Dropping it says that nobody is there any more to read the output.
pub(super) struct Running {
    inlet: Option<Inlet>,
    group: Option<Pid>,
    ended: Arc<AtomicBool>,
    gone: CancellationToken,
}

impl Running {
    /// Starts a command, or the bare shell, for a channel.
    pub(super) fn start(
        place: &Place,
        command: Option<&OsStr>,
        channel: ChannelWriteHalf<Msg>,
        session: Handle,
    ) -> io::Result<Self> {
        let mut shell = place.command();
        if let Some(command) = command {
            shell.arg("-c").arg(command);
        }
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // A plain pipe tells when it is readable, so that an idle command costs no read buffer.
        let stdout = pipe::Receiver::from_owned_fd(stdout.into_owned_fd()?)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr.into_owned_fd()?)?;

        let (inlet, outlet) = inlet();
        let ended = Arc::new(AtomicBool::new(false));
        let gone = CancellationToken::new();
        let feed = tokio::spawn(outlet.into_writer(stdin));
        tokio::spawn({
            let (ended, gone) = (Arc::clone(&ended), gone.clone());
            async move {
                attend(child, stdout, stderr, channel, session, &ended, &gone).await;
                feed.abort();
                gone.cancel();
            }
        });
        Ok(Self { inlet: Some(inlet), group, ended, gone })
    }

    /// Queues input for the command.
    pub(super) fn input(&self, data: &[u8]) -> Result<(), TooMuchInput> {
        self.inlet.as_ref().map_or(Ok(()), |inlet| inlet.send(data))
    }

    /// Ends the command's input after what is queued.
    pub(super) fn end_input(&mut self) {
        self.inlet = None;
    }

    /// Signals the command and what it started, unless it has ended.
    pub(super) fn signal(&self, signal: &Sig) {
        let (Some(group), Some(signal)) = (self.group, to_system(signal)) else { return };
        if !self.ended.load(Ordering::Acquire) {
            // The group may have ended this instant.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Whether the channel is done with.
    pub(super) fn finished(&self) -> bool {
        self.gone.is_cancelled()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// Waits for the command and carries its output out, until both are at their end or the client is gone.
async fn attend(
    mut child: Child,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    channel: ChannelWriteHalf<Msg>,
    session: Handle,
    ended: &AtomicBool,
    gone: &CancellationToken,
) {
    let outputs = async {
        // The pipes move in here: when the client is gone they are dropped, and the command's next write fails.
        let both = async { tokio::join!(carry(stdout, &channel, None), carry(stderr, &channel, Some(STDERR))) };
        tokio::select! {
            () = gone.cancelled() => false,
            _ = both => true,
        }
    };
    let status = async {
        let status = child.wait().await;
        ended.store(true, Ordering::Release);
        if let (Ok(status), false) = (status, gone.is_cancelled()) {
            report(status, &channel, &session).await;
        }
    };
    let (listened, ()) = tokio::join!(outputs, status);
    if listened {
        // These fail only when the connection has just ended.
        let _ = channel.eof().await;
        let _ = channel.close().await;
    }
}

async fn carry(from: pipe::Receiver, channel: &ChannelWriteHalf<Msg>, stream: Option<u32>) {
    loop {
        if from.readable().await.is_err() {
            return;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match from.try_read_buf(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        let sent = match stream {
            None => channel.data_bytes(chunk.freeze()).await,
            Some(number) => channel.extended_data_bytes(number, chunk.freeze()).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn report(status: ExitStatus, channel: &ChannelWriteHalf<Msg>, session: &Handle) {
    // A client that is gone does not hear it.
    if let Some(code) = status.code() {
        let _ = channel.exit_status(code.unsigned_abs()).await;
    } else if let Some(number) = status.signal() {
        let name = to_ssh(number);
        let _ =
            session.exit_signal_request(channel.id(), name, status.core_dumped(), String::new(), String::new()).await;
    }
}

fn to_system(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(_) => return None,
    })
}

fn to_ssh(number: i32) -> Sig {
    match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => Sig::ABRT,
        Some(Signal::ALARM) => Sig::ALRM,
        Some(Signal::FPE) => Sig::FPE,
        Some(Signal::HUP) => Sig::HUP,
        Some(Signal::ILL) => Sig::ILL,
        Some(Signal::INT) => Sig::INT,
        Some(Signal::KILL) => Sig::KILL,
        Some(Signal::PIPE) => Sig::PIPE,
        Some(Signal::QUIT) => Sig::QUIT,
        Some(Signal::SEGV) => Sig::SEGV,
        Some(Signal::TERM) => Sig::TERM,
        Some(Signal::USR1) => Sig::USR1,
        _ => Sig::Custom(format!("{number}@keyswap")),
    }
}

/// A client sent more than [`INPUT_LIMIT`] to something that does not read it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuchInput;

/// The end into which the session puts what a client sends. It never waits: a session that waited for one channel's
/// reader could not carry the output that this very reader is stuck on.
pub(super) struct Inlet {
    queue: UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// The other end of an [`Inlet`].
pub(super) struct Outlet {
    queue: UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn inlet() -> (Inlet, Outlet) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inlet { queue: sender, waiting: Arc::clone(&waiting) }, Outlet { queue: receiver, waiting })
}

impl Inlet {
    pub(super) fn send(&self, data: &[u8]) -> Result<(), TooMuchInput> {
        let before = self.waiting.fetch_add(data.len(), Ordering::Relaxed);
        if before + data.len() > INPUT_LIMIT && !self.queue.is_closed() {
            return Err(TooMuchInput);
        }
        // Nobody reads any more: the data has no use.
        let _ = self.queue.send(Bytes::copy_from_slice(data));
        Ok(())
    }
}

impl Outlet {
    /// Writes all input out and then closes the writer; ends early when the reader behind it is gone.
    pub(super) async fn into_writer(mut self, mut to: impl AsyncWrite + Unpin) {
        while let Some(data) = self.queue.recv().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
            self.waiting.fetch_sub(data.len(), Ordering::Relaxed);
        }
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_nobody_reads_is_bounded() {
        let (inlet, outlet) = inlet();
        let chunk = vec![0; 1 << 20];
        let accepted = (0..100).take_while(|_| inlet.send(&chunk).is_ok()).count();
        assert_eq!(accepted, INPUT_LIMIT >> 20);
        drop(outlet);
        assert_eq!(inlet.send(&chunk), Ok(()), "input for nobody is dropped, not refused");
    }

    #[test]
    fn signals_have_the_names_of_ssh() {
        assert!(matches!(to_ssh(9), Sig::KILL));
        assert!(matches!(to_ssh(15), Sig::TERM));
        assert_eq!(to_system(&Sig::USR1), Some(Signal::USR1));
        assert_eq!(to_system(&Sig::Custom("X".to_owned())), None);
    }
}
