//! The one writer of a journal, and the handle through which everybody appends.
//!
//! Records of many hosts arrive at once; a thread of its own takes all that wait, checks each against the table,
//! writes them with one call and syncs once (group commit).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::error::JournalError;
use super::fold::RunState;
use super::line::{LineHash, Log, encode};
use super::record::{Entry, Record};
use crate::model::{HostName, RunId};

/// Where lines go: a file, or memory in a simulation.
pub trait Medium: Send {
    /// Adds bytes at the end, all or (after an error) any part of them.
    ///
    /// # Errors
    /// When they cannot be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything that was appended would survive a loss of power.
    ///
    /// # Errors
    /// When that cannot be had.
    fn sync(&mut self) -> io::Result<()>;
}

/// Where a record came to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub seq: u64,
    /// The chain's head after it: what an act leaves on its host.
    pub head: LineHash,
}

/// The way into one run's journal. Clones write the same one.
#[derive(Clone)]
pub struct Journal {
    run: RunId,
    way: Arc<Way>,
    /// The lines that were there when it was opened again.
    earlier: Option<Arc<HashSet<String>>>,
}

enum Way {
    /// To the writer's thread.
    Thread(Sender<Message>),
    /// Written at once by whoever appends: for simulations with thousands of journals.
    Inline(Box<Mutex<Writer>>),
}

enum Message {
    Append {
        host: Option<HostName>,
        record: Box<Record>,
        reply: Option<Reply>,
    },
    /// Syncs what was appended lazily; after it the writer ends if told so.
    Sync {
        reply: Reply,
        end: bool,
    },
}

type Reply = oneshot::Sender<Result<Appended, JournalError>>;

impl Journal {
    pub(super) fn threaded(run: RunId, writer: Writer) -> Result<Self, JournalError> {
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("keyswap-journal".to_owned())
            .spawn(move || serve(writer, &receiver))
            .map_err(JournalError::io("start a thread for", "the journal"))?;
        Ok(Self { run, way: Arc::new(Way::Thread(sender)), earlier: None })
    }

    /// A journal without thread or file, for simulations: every record is written to the medium at once. The
    /// first line is written here unless `state` says that there are records already.
    ///
    /// # Errors
    /// When the medium refuses.
    pub fn inline(
        run: RunId,
        medium: Box<dyn Medium>,
        state: RunState,
        head: Option<LineHash>,
    ) -> Result<Self, JournalError> {
        let mut writer = Writer::new(medium, state, head);
        writer.begin(&run)?;
        Ok(Self { run, way: Arc::new(Way::Inline(Box::new(Mutex::new(writer)))), earlier: None })
    }

    /// Goes on from a log that was read and checked.
    pub(super) fn after(mut self, log: &Log) -> Self {
        self.earlier = Some(Arc::new(log.hashes.iter().map(|hash| hash.as_str().to_owned()).collect()));
        self
    }

    /// Whether a head that a host has kept is that of another history than the one that this journal went on from: a
    /// line was changed and all after it written anew, or lines were cut off. Of a journal that was begun here nobody
    /// has kept a head yet.
    #[must_use]
    pub fn contradicts(&self, head: &str) -> bool {
        // Nothing is said by a file that was cut short by a loss of power.
        let whole = head.len() == 64 && head.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole && self.earlier.as_ref().is_some_and(|earlier| !earlier.contains(head))
    }

    /// Whose journal it is.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Appends a record and returns when it, and all before it, would survive a loss of power. When the future
    /// is dropped the record may still be written.
    ///
    /// # Errors
    /// When the table forbids the record (nothing is written), or it cannot be written or synced: then nothing
    /// more will be, and no act may follow.
    pub async fn append(&self, host: Option<&HostName>, record: Record) -> Result<Appended, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Append { host: host.cloned(), record: Box::new(record), reply: Some(reply) })?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// Appends a record that needs no sync of its own: it lies on the disk at the latest with the next one that
    /// does. A fault is told by the next [`append`](Self::append) or [`close`](Self::close).
    ///
    /// # Errors
    /// When the journal is closed.
    pub fn append_lazy(&self, host: Option<&HostName>, record: Record) -> Result<(), JournalError> {
        self.send(Message::Append { host: host.cloned(), record: Box::new(record), reply: None })
    }

    /// Syncs what is there and tells the chain's head.
    ///
    /// # Errors
    /// When an earlier record could not be written.
    pub async fn sync(&self) -> Result<Appended, JournalError> {
        self.settle(false).await
    }

    /// Syncs, ends the writer and lets go of the run's lock. Whoever appends later is told that it is closed.
    ///
    /// # Errors
    /// When an earlier record could not be written.
    pub async fn close(&self) -> Result<Appended, JournalError> {
        self.settle(true).await
    }

    async fn settle(&self, end: bool) -> Result<Appended, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Sync { reply, end })?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    fn send(&self, message: Message) -> Result<(), JournalError> {
        match &*self.way {
            Way::Thread(sender) => sender.send(message).map_err(|_| JournalError::Closed),
            Way::Inline(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.group(vec![message]);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Takes groups of messages until the last handle is gone or somebody closes the journal.
fn serve(mut writer: Writer, receiver: &Receiver<Message>) {
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        group.extend(receiver.try_iter().take(255));
        if writer.group(group) {
            break;
        }
    }
}

/// Writes lines and keeps the chain and the fold.
pub(super) struct Writer {
    /// `None` once closed: the file's lock goes with it.
    medium: Option<Box<dyn Medium>>,
    state: RunState,
    head: Option<LineHash>,
    /// The fault of a lazy record that nobody was told of yet.
    untold: Option<JournalError>,
    broken: Option<Arc<io::Error>>,
}

impl Writer {
    pub(super) fn new(medium: Box<dyn Medium>, state: RunState, head: Option<LineHash>) -> Self {
        Self { medium: Some(medium), state, head, untold: None, broken: None }
    }

    /// Writes the first line if there is none.
    pub(super) fn begin(&mut self, run: &RunId) -> Result<(), JournalError> {
        if self.head.is_some() {
            return Ok(());
        }
        let header = super::line::Header::new(run.clone(), Timestamp::now());
        let mut line = serde_json::to_vec(&header).map_err(|e| JournalError::io("write", "the journal")(e.into()))?;
        self.head = Some(LineHash::of(&line));
        line.push(b'\n');
        let medium = self.medium.as_mut().ok_or(JournalError::Closed)?;
        medium.append(&line).and_then(|()| medium.sync()).map_err(JournalError::io("begin", "the journal"))
    }

    /// Writes a group of messages with one write and at most one sync. True when the writer shall end.
    fn group(&mut self, messages: Vec<Message>) -> bool {
        let mut lines = Vec::new();
        let mut waiting: Vec<(Reply, Result<Appended, JournalError>)> = Vec::new();
        let mut end = false;
        for message in messages {
            match message {
                Message::Append { reply, .. } if self.medium.is_none() || end => {
                    if let Some(reply) = reply {
                        waiting.push((reply, Err(JournalError::Closed)));
                    }
                }
                Message::Append { host, record, reply } => {
                    let added = self.add(host, *record, &mut lines);
                    match (reply, added) {
                        (Some(reply), added) => waiting.push((reply, added)),
                        (None, Err(error)) => self.untold = Some(error),
                        (None, Ok(_)) => {}
                    }
                }
                Message::Sync { reply, end: ends } => {
                    end |= ends;
                    waiting.push((reply, self.position()));
                }
            }
        }
        self.write(&lines, !waiting.is_empty());
        if end {
            // Before the answer: who was told that the journal is closed may take its lock at once.
            self.medium = None;
        }
        for (reply, answer) in waiting {
            let answer = match (&self.broken, answer) {
                (Some(broken), Ok(_)) => Err(JournalError::Broken(Arc::clone(broken))),
                (_, answer) => self.untold.take().map_or(answer, Err),
            };
            // Nobody waits any more: the record is written all the same.
            let _ = reply.send(answer);
        }
        end
    }

    fn add(&mut self, host: Option<HostName>, record: Record, lines: &mut Vec<u8>) -> Result<Appended, JournalError> {
        if let Some(broken) = &self.broken {
            return Err(JournalError::Broken(Arc::clone(broken)));
        }
        let prev = self.head.clone().ok_or(JournalError::Closed)?;
        let entry = Entry { seq: self.state.last_seq + 1, ts: Timestamp::now(), host, record };
        // Encoded before the fold takes it in, so that the two cannot come apart.
        let line = encode(&entry, &prev).map_err(|e| JournalError::io("write", "the journal")(e.into()))?;
        self.state.apply(&entry)?;
        self.head = Some(LineHash::of(line.as_bytes()));
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
        self.position()
    }

    fn position(&self) -> Result<Appended, JournalError> {
        let head = self.head.clone().ok_or(JournalError::Closed)?;
        Ok(Appended { seq: self.state.last_seq, head })
    }

    fn write(&mut self, lines: &[u8], sync: bool) {
        let Some(medium) = self.medium.as_mut().filter(|_| self.broken.is_none()) else { return };
        let mut write = || {
            if !lines.is_empty() {
                medium.append(lines)?;
            }
            if sync { medium.sync() } else { Ok(()) }
        };
        if let Err(error) = write() {
            self.broken = Some(Arc::new(error));
        }
    }
}

#[cfg(test)]
mod tests;
