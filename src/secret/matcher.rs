//! Finds registered secrets in text.
//!
//! Every form is cut into seeds of eight bytes. Where a seed stands in the text, the match is grown to both sides
//! for as long as the text agrees with the form; if enough agrees it is covered. So a whole secret is found, and
//! also the larger part of one that was cut off or wrapped. An automaton would be faster, but it would keep the
//! forms in memory that nobody wipes.

use std::ops::Range;

use zeroize::Zeroizing;

use super::forms::{Form, forms};
use super::views::View;

const SEED: usize = 8;

/// A repetitive value has the same seed many times; the first ones are enough to find it whole.
const SAME_SEED: usize = 4;

/// All registered secrets, prepared for search.
#[derive(Default)]
pub(super) struct Matcher {
    labels: Vec<String>,
    forms: Vec<(usize, Form)>,
    /// Sorted; parallel to `places`.
    seeds: Zeroizing<Vec<u64>>,
    /// The form and the offset in it of each seed.
    places: Vec<(usize, usize)>,
    /// Forms that are too short for seeds.
    short: Vec<usize>,
    longest: usize,
}

/// A place in the text and the secret that stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) label: usize,
}

impl Matcher {
    /// Prepares labelled values.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let mut matcher = Self::default();
        for (label, value) in values {
            let number = matcher.labels.len();
            matcher.labels.push(label);
            matcher.forms.extend(forms(value).into_iter().map(|form| (number, form)));
        }
        matcher.longest = matcher.forms.iter().map(|(_, form)| form.bytes.len()).max().unwrap_or_default();
        matcher.sow();
        matcher
    }

    fn sow(&mut self) {
        let mut sown: Zeroizing<Vec<(u64, usize, usize)>> = Zeroizing::new(Vec::new());
        for (number, (_, form)) in self.forms.iter().enumerate() {
            if form.need < SEED {
                self.short.push(number);
            } else if form.need < 2 * SEED {
                // Shorter than a piece: only the whole counts, and that begins with its first seed.
                sown.extend(form.bytes.get(..SEED).map(|seed| (key(seed), number, 0)));
            } else {
                let seeds = form.bytes.chunks_exact(SEED).enumerate();
                sown.extend(seeds.map(|(at, seed)| (key(seed), number, at * SEED)));
            }
        }
        sown.sort_unstable();
        let mut same = 0;
        let mut last = None;
        for &(seed, form, offset) in sown.iter() {
            same = if last == Some((seed, form)) { same + 1 } else { 0 };
            last = Some((seed, form));
            if same < SAME_SEED {
                self.seeds.push(seed);
                self.places.push((form, offset));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// The longest that a form can be in text, escapes counted at their longest.
    pub(super) fn longest(&self) -> usize {
        self.longest.saturating_mul(6)
    }

    pub(super) fn label(&self, hit: &Hit) -> &str {
        self.labels.get(hit.label).map_or("", String::as_str)
    }

    /// Everything to be covered, in order, nothing overlapping.
    pub(super) fn hits(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for view in View::all(text) {
            let found = hits.len();
            self.search(view.bytes(), &mut hits);
            for hit in hits.iter_mut().skip(found) {
                (hit.start, hit.end) = view.source(hit.start, hit.end);
            }
        }
        merge(hits)
    }

    fn search(&self, text: &[u8], hits: &mut Vec<Hit>) {
        // Per form, the latest match, so that its further seeds are passed over.
        let mut latest: Vec<Option<(usize, usize)>> = vec![None; self.forms.len()];
        for (at, window) in text.windows(SEED).enumerate() {
            let seed = key(window);
            let from = self.seeds.partition_point(|&s| s < seed);
            let places = self.seeds.iter().zip(&self.places).skip(from).take_while(|(s, _)| **s == seed);
            for (_, &(number, offset)) in places {
                let Some((label, form)) = self.forms.get(number) else { continue };
                let seen = latest.get(number).copied().flatten();
                if seen.is_some_and(|(lead, end)| lead == at + form.bytes.len() - offset && at < end) {
                    continue;
                }
                let range = grow(text, at, &form.bytes, offset);
                if range.len() >= form.need {
                    if let Some(latest) = latest.get_mut(number) {
                        // `at - offset` may be negative; kept with the form's length added.
                        *latest = Some((at + form.bytes.len() - offset, range.end));
                    }
                    push(text, range, form, *label, hits);
                }
            }
        }
        for (label, form) in self.short.iter().filter_map(|&number| self.forms.get(number)) {
            let Some(core) = form.bytes.get(..form.need).filter(|core| !core.is_empty()) else { continue };
            for (at, _) in text.windows(core.len()).enumerate().filter(|(_, window)| *window == core) {
                push(text, grow(text, at, &form.bytes, 0), form, *label, hits);
            }
        }
    }

    /// How many bytes at the end of a piece of text may be the beginning of a secret that goes on in the next.
    pub(super) fn open_end(&self, text: &[u8]) -> usize {
        // An escape that is not finished belongs to what comes.
        let look = text.len().saturating_sub(SEED);
        let mark = text.iter().skip(look).position(|b| matches!(b, b'%' | b'\\'));
        let settled = mark.map_or(text.len(), |at| look + at);
        let mut from = settled;
        for view in View::all(text.get(..settled).unwrap_or_default()) {
            for (_, form) in &self.forms {
                let bytes = view.bytes();
                let most = form.bytes.len().saturating_sub(1).min(bytes.len());
                let open = (1..=most).rev().find(|&n| bytes.ends_with(form.bytes.get(..n).unwrap_or_default()));
                if let Some(n) = open {
                    from = from.min(view.source(bytes.len() - n, bytes.len()).0);
                }
            }
        }
        // What stands there whole may end as it begins; it is not cut in two.
        for hit in self.hits(text) {
            if hit.start < from && from < hit.end {
                from = hit.start;
            }
        }
        text.len() - from
    }
}

fn push(text: &[u8], range: Range<usize>, form: &Form, label: usize, hits: &mut Vec<Hit>) {
    let is_word = |at: Option<usize>| {
        at.and_then(|at| text.get(at)).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80)
    };
    if form.word && (is_word(range.start.checked_sub(1)) || is_word(Some(range.end))) {
        return;
    }
    let mut end = range.end;
    if form.padded {
        end += text.get(end..).unwrap_or_default().iter().take(2).take_while(|b| **b == b'=').count();
    }
    hits.push(Hit { start: range.start, end, label });
}

fn key(seed: &[u8]) -> u64 {
    seed.iter().fold(0, |key, byte| (key << 8) | u64::from(*byte))
}

/// As much of the text around `at` as agrees with the form around `offset`.
fn grow(text: &[u8], at: usize, form: &[u8], offset: usize) -> Range<usize> {
    let left = text.get(..at).unwrap_or_default().iter().rev();
    let left = left.zip(form.get(..offset).unwrap_or_default().iter().rev()).take_while(|(a, b)| a == b).count();
    let right = text.get(at..).unwrap_or_default().iter();
    let right = right.zip(form.get(offset..).unwrap_or_default()).take_while(|(a, b)| a == b).count();
    at - left..at + right
}

/// Sorts, and joins what overlaps under the label of its longest part.
fn merge(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_unstable();
    let mut merged: Vec<Hit> = Vec::with_capacity(hits.len());
    let mut longest = 0;
    for hit in hits {
        match merged.last_mut() {
            Some(last) if hit.start < last.end => {
                last.end = last.end.max(hit.end);
                if hit.end - hit.start > longest {
                    longest = hit.end - hit.start;
                    last.label = hit.label;
                }
            }
            _ => {
                longest = hit.end - hit.start;
                merged.push(hit);
            }
        }
    }
    merged
}
