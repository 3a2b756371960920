//! The timeline: for the run and each host, pieces on one axis.
//!
//! The axis shows the sittings side by side, each as wide as it took, with what lay between them left out.

use jiff::Timestamp;
use serde::Serialize;

use crate::report::story::{HostStory, StepStory, Story};

/// The axis is so wide.
const WIDTH: f64 = 1000.0;
/// What is left free between two sittings.
const GAP: f64 = 12.0;
/// No sitting is narrower, as a part of the axis.
const LEAST: f64 = 0.12;
/// No piece is narrower.
const THIN: f64 = 3.0;

/// All lanes.
#[derive(Debug, Serialize)]
pub(super) struct Lanes {
    /// Where one sitting ends and the next begins.
    pub(super) breaks: Vec<f64>,
    /// What concerns all hosts.
    pub(super) run: Vec<Piece>,
    /// Where batches were let go.
    pub(super) commits: Vec<f64>,
    /// For each host of the story, in its order.
    pub(super) hosts: Vec<Vec<Piece>>,
}

/// One piece of a lane.
#[derive(Debug, Serialize)]
pub(super) struct Piece {
    /// Its kind, which is its class.
    pub(super) kind: &'static str,
    /// From where.
    pub(super) x: f64,
    /// How wide.
    pub(super) w: f64,
}

/// Part of the axis that is one sitting.
struct Part {
    from: f64,
    width: f64,
    started: Timestamp,
    length: f64,
}

pub(super) fn lanes(story: &Story) -> Lanes {
    let parts = parts(story);
    let place = |sitting: usize, at: Timestamp| -> f64 {
        parts.get(sitting).map_or(0.0, |part| {
            let share = (seconds(part.started, at) / part.length).clamp(0.0, 1.0);
            part.from + share * part.width
        })
    };
    let ends = |sitting: usize| story.sittings.get(sitting).map(|sitting| sitting.ended);
    let piece = |kind: &'static str, sitting: usize, from: Timestamp, to: Option<Timestamp>| {
        // What has no end was cut off with its sitting.
        let end = to.or_else(|| ends(sitting)).unwrap_or(from);
        let (x, end) = (place(sitting, from), place(sitting, end));
        let w = (end - x).max(THIN);
        Piece { kind, x: round(x.min(WIDTH - w)), w: round(w) }
    };
    let step = |step: &StepStory| piece(kind_of(step.status), step.sitting, step.started, step.ended);
    let host = |host: &HostStory| -> Vec<Piece> {
        let prepared = host.prepared.iter().map(|span| piece("prepare", span.sitting, span.started, span.ended));
        let undo = host.undo.iter().map(|undo| piece("undo", undo.span.sitting, undo.span.started, undo.span.ended));
        prepared.chain(host.steps.iter().map(step)).chain(undo).collect()
    };
    Lanes {
        breaks: parts.iter().skip(1).map(|part| round(part.from - GAP / 2.0)).collect(),
        run: story.shared_steps.iter().map(step).collect(),
        commits: story
            .moments
            .iter()
            .filter(|moment| moment.what == "commit-started")
            .map(|moment| round(place(moment.sitting, moment.at)))
            .collect(),
        hosts: story.hosts.iter().map(host).collect(),
    }
}

fn parts(story: &Story) -> Vec<Part> {
    let lengths: Vec<f64> =
        story.sittings.iter().map(|sitting| seconds(sitting.started, sitting.ended).max(0.001)).collect();
    let all: f64 = lengths.iter().sum();
    // A short sitting is drawn wider than it was, at the cost of all others.
    let shares: Vec<f64> = lengths.iter().map(|length| (length / all).max(LEAST)).collect();
    let sum: f64 = shares.iter().sum();
    let gaps = f64::from(u32::try_from(shares.len().saturating_sub(1)).unwrap_or_default());
    let room = (WIDTH - gaps * GAP).max(WIDTH / 2.0);
    let mut from = 0.0;
    let mut parts = Vec::new();
    for ((sitting, length), share) in story.sittings.iter().zip(lengths).zip(shares) {
        let width = share / sum * room;
        parts.push(Part { from, width, started: sitting.started, length });
        from += width + GAP;
    }
    parts
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn kind_of(status: &str) -> &'static str {
    match status {
        "ok" => "ok",
        "changed" => "changed",
        "failed" => "failed",
        "skipped" => "skipped",
        _ => "unknown",
    }
}
