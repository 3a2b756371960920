//! For people at a terminal: lines that stay, and below them what happens at this moment.
//!
//! What stays is what is worth scrolling back to: the plan, hosts that are done, failures, undos, warnings, proofs, what
//! stands for a batch or the run, and the recap. That a host looks, begins a step or ends it well is only seen live, so
//! that a thousand hosts do not flood the screen; nor does the plan of so many, step by step, before the question whether
//! to go on. With `-v` all of it stays.

use std::io;

use jiff::Timestamp;

use super::Reporter;
use super::line::Line;
use super::live::Live;
use super::plain::{Cleaner, Lines};
use super::screen::{Row, Screen, Size};
use crate::event::{Event, EventKind};
use crate::model::{HostStatus, StepStatus};

/// Up to so many hosts, each that ends well gets a line of its own; of more only the recap tells.
const FEW: usize = 50;

/// The least time between two frames in milliseconds.
const FRAME_MS: i64 = 80;

/// How lines look where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Colours are allowed.
    pub colour: bool,
    /// The columns that there are; without it lines are not wrapped.
    pub width: Option<usize>,
}

impl Look {
    pub(super) fn lines(self, line: Line) -> Vec<String> {
        let lines = line.wrapped(self.width.unwrap_or(usize::MAX));
        lines.iter().map(|line| if self.colour { line.coloured() } else { line.plain() }).collect()
    }
}

/// Asks the terminal how large it is.
pub type Measure = Box<dyn Fn() -> Size + Send>;

/// Tells the same as [`Plain`](super::Plain), with colours where they are allowed, and live on a terminal.
pub struct Human {
    screen: Screen,
    lines: Lines,
    options: String,
    colour: bool,
    /// Everything stays.
    all: bool,
    live: Option<(Live, Measure)>,
    /// Lines that stay and are not written yet.
    pending: Vec<Line>,
    /// Planned steps that were not shown.
    unshown: usize,
    /// When the last frame was drawn.
    drawn: Option<Timestamp>,
}

impl Human {
    /// Lines on this screen; `all`: none of them only live.
    #[must_use]
    pub fn new(screen: Screen, colour: bool, all: bool) -> Self {
        let lines = Lines::new(&screen.redactor());
        let options = String::new();
        Self { screen, lines, options, colour, all, live: None, pending: Vec::new(), unshown: 0, drawn: None }
    }

    /// Ends each command that is to be typed with these options.
    #[must_use]
    pub fn typed_with(mut self, options: &str) -> Self {
        self.lines.typed_with(options);
        options.clone_into(&mut self.options);
        self
    }

    /// Shows what happens at the moment, as large as the terminal allows; [`tick`](Reporter::tick) draws it.
    #[must_use]
    pub fn live(mut self, measure: Measure) -> Self {
        self.live = Some((Live::new(Cleaner::new(&self.screen.redactor()), &self.options), measure));
        self
    }

    /// Whether an event leaves lines that stay.
    fn stays(&self, live: &Live, event: &Event) -> bool {
        let of_host = event.host.is_some();
        self.all
            || match &event.kind {
                EventKind::StepPlanned { .. } => !live.is_at_work() || live.hosts() <= FEW,
                EventKind::HostReady { .. } | EventKind::BatchStarted { .. } | EventKind::StepStarted => false,
                // What is to be typed must be whole.
                EventKind::StepProgress { detail } => detail.contains("keyswap "),
                EventKind::StepFinished { status, .. } => {
                    !of_host || matches!(status, StepStatus::Failed | StepStatus::Unknown)
                }
                // Where everything goes back because it was asked for, the end of each host says it.
                EventKind::UndoStarted { .. } => !live.goes_back(),
                EventKind::UndoFinished { status, .. } => !matches!(status, StepStatus::Ok | StepStatus::Changed),
                EventKind::HostFinished { result } => {
                    let well = matches!(result.status, HostStatus::Ok | HostStatus::Changed | HostStatus::Skipped);
                    !well || live.hosts() <= FEW
                }
                _ => true,
            }
    }

    fn draw(&mut self, now: Option<Timestamp>) {
        let Some((live, measure)) = &self.live else { return };
        let size = measure();
        let look = Look { colour: self.colour, width: Some(size.width) };
        let lines: Vec<String> = self.pending.drain(..).flat_map(|line| look.lines(line)).collect();
        let frame = now.map(|now| live.frame(now, size)).unwrap_or_default();
        let row = |line: Line| Row {
            columns: line.columns(),
            text: if self.colour { line.coloured() } else { line.plain() },
        };
        self.screen.draw(&lines, frame.into_iter().map(row).collect(), size.width);
    }
}

impl std::fmt::Debug for Human {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Human").field("live", &self.live.is_some()).finish_non_exhaustive()
    }
}

impl Reporter for Human {
    fn event(&mut self, event: &Event) {
        let lines = self.lines.of(event);
        let Some((live, _)) = &mut self.live else {
            let look = Look { colour: self.colour, width: None };
            let lines: Vec<String> = lines.into_iter().flat_map(|line| look.lines(line)).collect();
            self.screen.draw(&lines, Vec::new(), usize::MAX);
            return;
        };
        live.event(event);
        let Some((live, _)) = &self.live else { return };
        let (stays, planned) = (self.stays(live, event), matches!(event.kind, EventKind::StepPlanned { .. }));
        if self.unshown > 0 && !planned && !matches!(event.kind, EventKind::HostPlanned { .. }) {
            let text = format!("{} planned steps are not shown; --check shows them, and so does -v", self.unshown);
            self.pending.push(Line::new().text(text));
            self.unshown = 0;
        }
        if stays {
            self.pending.extend(lines);
        } else if planned {
            self.unshown += 1;
        }
    }

    fn tick(&mut self, now: Timestamp) {
        // Many events a second make no more frames than an eye can see; what stays is written at once.
        let soon =
            self.drawn.is_some_and(|drawn| (0..FRAME_MS).contains(&(now.as_millisecond() - drawn.as_millisecond())));
        if soon && self.pending.is_empty() {
            return;
        }
        self.drawn = Some(now);
        self.draw(Some(now));
    }

    fn finish(&mut self) -> io::Result<()> {
        self.draw(None);
        self.screen.finish()
    }
}
