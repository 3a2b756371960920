//! The writer on a medium that can be stopped and made to fail.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::journal::line::Log;
use crate::journal::phase::tests::{host, records};

#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    syncs: Arc<AtomicUsize>,
    /// The first sync waits until this is true.
    open: Arc<(Mutex<bool>, Condvar)>,
    fails: Arc<Mutex<bool>>,
}

impl Memory {
    fn log(&self) -> Log {
        Log::parse(std::path::Path::new("memory"), &self.bytes.lock().unwrap()).unwrap()
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Medium for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if *self.fails.lock().unwrap() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let guard = self.open.0.lock().unwrap();
        drop(self.open.1.wait_while(guard, |open| !*open).unwrap());
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn run() -> RunId {
    RunId::new(Timestamp::UNIX_EPOCH)
}

fn record(name: &str) -> Record {
    records().into_iter().find(|(known, _)| known == name).expect(name).1
}

fn note() -> Record {
    record("note")
}

fn threaded(memory: &Memory) -> Journal {
    let mut writer = Writer::new(Box::new(memory.clone()), RunState::default(), None);
    memory.open();
    writer.begin(&run()).unwrap();
    Journal::threaded(run(), writer).unwrap()
}

#[tokio::test]
async fn records_are_chained_and_the_head_is_told() {
    let memory = Memory::default();
    memory.open();
    let journal = Journal::inline(run(), Box::new(memory.clone()), RunState::default(), None).unwrap();
    let first = journal.append(None, record("run-started")).await.unwrap();
    journal.append_lazy(Some(&host()), note()).unwrap();
    let third = journal.append(Some(&host()), record("host-prepared")).await.unwrap();
    let log = memory.log();
    assert_eq!((first.seq, third.seq, log.entries.len()), (1, 3, 3));
    assert_eq!(log.head(), Some(&third.head));
    assert!(log.contains(first.head.as_str()) && !log.contains("0"));
    assert_eq!(log.header.unwrap().run, *journal.run());
    for (number, (name, record)) in records().into_iter().enumerate() {
        let entry = Entry { seq: number as u64 + 1, ts: Timestamp::UNIX_EPOCH, host: Some(host()), record };
        let line = encode(&entry, &first.head).unwrap();
        assert!(line.starts_with("{\"prev\":"), "{line}");
        let back: Entry = serde_json::from_str(&line).unwrap();
        assert_eq!(back, entry, "{name}");
    }
}

#[tokio::test]
async fn who_waits_at_the_same_time_shares_one_sync() {
    let memory = Memory::default();
    let journal = threaded(&memory);
    journal.append(None, record("run-started")).await.unwrap();
    *memory.open.0.lock().unwrap() = false;
    let before = memory.syncs.load(Ordering::SeqCst);
    // The first is written alone and hangs in its sync while the others queue up.
    let first = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(None, note()).await }
    });
    let all_there = || memory.bytes.lock().unwrap().iter().filter(|&&b| b == b'\n').count() == 3;
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !all_there() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let others = (0..50).map(|_| journal.append(None, note()));
    let mut others = Box::pin(futures_util::future::join_all(others));
    // Polled once, all fifty are in the queue.
    assert!(futures_util::poll!(&mut others).is_pending());
    memory.open();
    assert!(first.await.unwrap().is_ok());
    assert!(others.await.iter().all(Result::is_ok));
    assert_eq!(memory.syncs.load(Ordering::SeqCst) - before, 2, "one for the first, one for all others");
    assert_eq!(memory.log().entries.len(), 52);
}

#[tokio::test]
async fn an_illegal_record_is_refused_and_leaves_no_trace() {
    let memory = Memory::default();
    let journal = threaded(&memory);
    journal.append(None, record("run-started")).await.unwrap();
    let refused = journal.append(Some(&host()), record("step-started 1")).await.unwrap_err();
    assert!(matches!(refused, JournalError::Illegal(_)), "{refused}");
    assert_eq!(journal.append(None, note()).await.unwrap().seq, 2);
    journal.append_lazy(Some(&host()), record("step-started 1")).unwrap();
    assert!(matches!(journal.append(None, note()).await, Err(JournalError::Illegal(_))), "told with the next");
    assert_eq!(journal.append(None, note()).await.unwrap().seq, 4);
}

#[tokio::test]
async fn nothing_is_written_after_a_fault_or_a_close() {
    let memory = Memory::default();
    let journal = threaded(&memory);
    journal.append(None, record("run-started")).await.unwrap();
    *memory.fails.lock().unwrap() = true;
    assert!(matches!(journal.append(None, note()).await, Err(JournalError::Broken(_))));
    *memory.fails.lock().unwrap() = false;
    assert!(matches!(journal.append(None, note()).await, Err(JournalError::Broken(_))));
    assert!(matches!(journal.close().await, Err(JournalError::Broken(_))));
    assert_eq!(memory.log().entries.len(), 1);

    let memory = Memory::default();
    let journal = threaded(&memory);
    journal.append(None, record("run-started")).await.unwrap();
    assert_eq!(journal.close().await.unwrap().seq, 1);
    assert_eq!(Arc::strong_count(&memory.bytes), 1, "the file, and with it the lock, is let go before the answer");
    assert!(matches!(journal.append(None, note()).await, Err(JournalError::Closed)));
}
