//! How a run is told: a thread that reads its events, and what else writes to the same terminal.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::event::Event;
use crate::report::{Reporter, Screen, Size};

type Events = UnboundedReceiver<Event>;

/// Tells events as they come.
pub(super) fn tell(mut reporter: Box<dyn Reporter>, mut events: Events, told: &AtomicU64) -> std::io::Result<()> {
    while let Some(event) = events.blocking_recv() {
        reporter.event(&event);
        told.store(event.seq, Ordering::Release);
    }
    reporter.finish()
}

/// Tells events as they come, and between them how things stand.
pub(super) async fn tell_live(
    mut reporter: Box<dyn Reporter>,
    mut events: Events,
    told: &AtomicU64,
    screen: &Screen,
) -> std::io::Result<()> {
    /// How many events are told at once before the screen shows them.
    const MOST: usize = 1_000;
    let mut frames = tokio::time::interval(Duration::from_millis(100));
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut goes_on = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()));
    let mut some = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = events.recv_many(&mut some, MOST) => {
                if count == 0 {
                    return reporter.finish();
                }
                let last = some.last().map_or(0, |event| event.seq);
                some.drain(..).for_each(|event| reporter.event(&event));
                reporter.tick(Timestamp::now());
                told.store(last, Ordering::Release);
            }
            // The shell has written below the block meanwhile.
            () = next(&mut goes_on) => screen.forget(),
            _ = frames.tick() => reporter.tick(Timestamp::now()),
        }
    }
}

/// The next signal; never, where signals cannot be listened for.
async fn next(signals: &mut std::io::Result<Signal>) {
    match signals {
        Ok(signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// How large the terminal is; one that does not say so is taken for the usual one.
pub(super) fn measure() -> Size {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    let known = |n: u16, usual: usize| if n == 0 { usual } else { usize::from(n) };
    Size { width: known(size.map_or(0, |size| size.ws_col), 80), height: known(size.map_or(0, |size| size.ws_row), 24) }
}

/// A panic's message is read below what was drawn, and not drawn over.
pub(super) fn on_panic(screen: &Screen) {
    let (before, screen) = (std::panic::take_hook(), screen.clone());
    std::panic::set_hook(Box::new(move |info| {
        let _held = screen.try_hold();
        before(info);
    }));
}

/// Standard error beside what is drawn on the same terminal.
pub(super) struct Beside(Screen);

impl Beside {
    pub(super) fn new(screen: &Screen) -> Self {
        Self(screen.clone())
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _held = self.0.hold();
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
