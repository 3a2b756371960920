//! What is wrong with a file, and where: collected, sorted, and drawn with the source line and a caret.
//!
//! Invariant: no line that looks like it holds a secret is ever drawn, and no message repeats text that looks like
//! one. What is drawn comes from [`Source::shown`], which blanks such lines.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use camino::{Utf8Path, Utf8PathBuf};

use super::literal;

/// More errors than this are counted, not drawn.
const MOST_DRAWN: usize = 50;

/// The text of one file, and which parts of it must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Source {
    path: Utf8PathBuf,
    text: String,
    hidden: Vec<Range<usize>>,
}

impl Source {
    /// A file's text; what looks like a secret in it is hidden from the start.
    pub(super) fn new(path: &Utf8Path, text: &str) -> Self {
        let mut hidden: Vec<_> = literal::find(text).into_iter().map(|literal| literal.span).collect();
        hidden.extend(literal::suspicious_lines(text));
        Self { path: path.to_owned(), text: text.to_owned(), hidden }
    }

    /// The file's text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Hides the lines of a span as well.
    pub(super) fn hide(&mut self, span: Range<usize>) {
        self.hidden.push(span);
    }

    /// Whether anything in it is hidden.
    pub(super) fn hides(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// The lines that a span touches, without the last line end.
    fn lines(&self, span: &Range<usize>) -> Range<usize> {
        let bytes = self.text.as_bytes();
        let clamp = |at: usize| at.min(bytes.len());
        let start = bytes.iter().take(clamp(span.start)).rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        // A span that ends right behind a line end does not touch the next line.
        let last = clamp(span.end.max(span.start + 1) - 1);
        let end = bytes.iter().skip(last).position(|b| *b == b'\n').map_or(bytes.len(), |at| last + at);
        start..end
    }

    fn is_hidden(&self, span: &Range<usize>) -> bool {
        let lines = self.lines(span);
        self.hidden.iter().any(|hidden| {
            let hidden = self.lines(hidden);
            hidden.start <= lines.end && lines.start <= hidden.end
        })
    }

    /// The text with every hidden line blanked and what a terminal would obey replaced, byte for byte as long.
    fn shown(&self) -> String {
        let mut shown = self.text.clone().into_bytes();
        for hidden in &self.hidden {
            let lines = self.lines(hidden);
            for byte in shown.iter_mut().take(lines.end).skip(lines.start).filter(|b| **b != b'\n') {
                *byte = b' ';
            }
        }
        let text = String::from_utf8_lossy(&shown).into_owned();
        // C0 controls and text direction marks are the renderer's business; C1 controls it lets through.
        text.replace(|c| ('\u{80}'..='\u{9f}').contains(&c), "??")
    }

    /// Cut to the text, to its characters and to one line, so that a caret can be drawn under it.
    fn fit(&self, span: &Range<usize>) -> Range<usize> {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let line_end = self.text.get(start..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |at| start + at);
        let mut end = span.end.clamp(start, line_end);
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    /// Line and column of a byte, both counted from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let start = self.fit(&(at..at)).start;
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.path)
    }
}

/// A span of one of the files that are being read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file's number.
    pub(super) file: usize,
    /// First byte.
    pub(super) start: usize,
    /// Behind the last byte.
    pub(super) end: usize,
}

impl Place {
    pub(super) fn new(file: usize, span: &Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }

    fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diag {
    at: Option<Place>,
    message: String,
    also: Vec<(Place, String)>,
    help: Option<String>,
    hosts: Vec<String>,
    hide: bool,
}

impl Diag {
    /// An error without a place: a file that cannot be read.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { at: None, message: message.into(), also: Vec::new(), help: None, hosts: Vec::new(), hide: false }
    }

    /// An error at a place.
    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { at: Some(place), ..Self::new(message) }
    }

    /// Another place that matters.
    pub(super) fn also(mut self, place: Place, label: impl Into<String>) -> Self {
        self.also.push((place, label.into()));
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// [`Self::help`], if there is any.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// The host for which a template was filled in.
    pub(super) fn host(mut self, host: &str) -> Self {
        self.hosts = vec![host.to_owned()];
        self
    }

    /// Never draws this error's lines: its value may be a secret although it does not look like one.
    pub(super) fn hidden(mut self) -> Self {
        self.hide = true;
        self
    }

    /// Takes the hosts of the same error; `false` where it is another one.
    pub(super) fn takes(&mut self, other: &Self) -> bool {
        let same = Self { hosts: other.hosts.clone(), ..self.clone() } == *other;
        if same {
            let new: Vec<_> = other.hosts.iter().filter(|host| !self.hosts.contains(host)).cloned().collect();
            self.hosts.extend(new);
        }
        same
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.at.as_ref()
    }

    pub(super) fn has_host(&self) -> bool {
        !self.hosts.is_empty()
    }

    pub(super) fn hides(&self) -> bool {
        self.hide
    }
}

/// Everything that is wrong with the files that were read, in their order.
///
/// `Display` is plain text; [`Diagnostics::render`] can colour it.
#[derive(Clone, Default)]
pub struct Diagnostics {
    sources: Vec<Source>,
    diags: Vec<Diag>,
}

impl Diagnostics {
    pub(super) fn new(mut sources: Vec<Source>, mut diags: Vec<Diag>) -> Self {
        for diag in diags.iter().filter(|diag| diag.hide) {
            if let Some(place) = &diag.at
                && let Some(source) = sources.get_mut(place.file)
            {
                source.hide(place.span());
            }
        }
        diags.sort_by(|a, b| a.at.cmp(&b.at));
        diags.dedup();
        Self { sources, diags }
    }

    /// How many errors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.diags.len()
    }

    /// Whether there is no error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diags.is_empty()
    }

    /// Each error's message without its source line, for logs and JSON.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.diags.iter().map(|diag| {
            let message = legible(&diag.message);
            match diag.at.as_ref().and_then(|at| Some((self.sources.get(at.file)?, at))) {
                Some((source, at)) => {
                    let (line, column) = source.position(at.start);
                    format!("{}:{line}:{column}: {message}", source.path)
                }
                None => message,
            }
        })
    }

    /// Takes the errors of another check of the same or other files. The same error for several hosts becomes one.
    pub fn merge(&mut self, other: Self) {
        let Self { sources, diags } = other;
        let files: Vec<usize> = sources
            .into_iter()
            .map(|source| {
                let known = self.sources.iter().position(|s| s.path == source.path && s.text == source.text);
                match known.and_then(|at| self.sources.get_mut(at).map(|known| (at, known))) {
                    Some((at, known)) => {
                        known.hidden.extend(source.hidden);
                        at
                    }
                    None => {
                        self.sources.push(source);
                        self.sources.len() - 1
                    }
                }
            })
            .collect();
        let moved = |place: &mut Place| place.file = files.get(place.file).copied().unwrap_or(usize::MAX);
        for mut diag in diags {
            diag.at.as_mut().map(moved).unwrap_or_default();
            diag.also.iter_mut().for_each(|(place, _)| moved(place));
            if !self.diags.iter_mut().any(|known| known.takes(&diag)) {
                self.diags.push(diag);
            }
        }
        self.diags.sort_by(|a, b| a.at.cmp(&b.at));
    }

    /// Draws every error with its file, line, column and caret.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let shown: Vec<String> = self.sources.iter().map(Source::shown).collect();
        let mut text = String::new();
        for diag in self.diags.iter().take(MOST_DRAWN) {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&renderer.render(&[self.draw(diag, &shown)]));
        }
        if let Some(more) = self.diags.len().checked_sub(MOST_DRAWN).filter(|more| *more > 0) {
            text.push_str(&format!("\n\n{more} more errors are not shown"));
        }
        text
    }

    fn draw<'a>(&'a self, diag: &'a Diag, shown: &'a [String]) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(legible(&diag.message)));
        let mut secret = false;
        if let Some((at, source, text)) = diag.at.as_ref().and_then(|at| self.source(at, shown)) {
            if diag.hide || source.is_hidden(&at.span()) {
                secret = true;
                let (line, column) = source.position(at.start);
                group = group.element(Origin::path(source.path.as_str()).line(line).char_column(column));
            } else {
                let caret = AnnotationKind::Primary.span(source.fit(&at.span()));
                let mut snippet = Snippet::source(text).path(source.path.as_str()).annotation(caret);
                for (place, label) in diag.also.iter().filter(|(place, _)| place.file == at.file) {
                    let span = source.fit(&place.span());
                    snippet = snippet.annotation(AnnotationKind::Context.span(span).label(legible(label)));
                }
                group = group.element(snippet);
            }
            for (place, label) in diag.also.iter().filter(|(place, _)| secret || place.file != at.file) {
                let Some((_, source, text)) = self.source(place, shown) else { continue };
                let span = source.fit(&place.span());
                let snippet = Snippet::source(text).path(source.path.as_str());
                group = group.element(snippet.annotation(AnnotationKind::Context.span(span).label(legible(label))));
            }
        }
        if secret {
            group = group.element(Level::NOTE.message("the line is not shown, as it may hold a secret"));
        }
        let hosts = match diag.hosts.as_slice() {
            [] => None,
            [one] => Some(format!("on host {one}")),
            [one, two] => Some(format!("on hosts {one} and {two}")),
            [one, two, rest @ ..] => Some(format!("on hosts {one}, {two} and {} more", rest.len())),
        };
        if let Some(note) = &hosts {
            group = group.element(Level::NOTE.message(legible(note)));
        }
        if let Some(help) = &diag.help {
            group = group.element(Level::HELP.message(legible(help)));
        }
        group
    }

    fn source<'a>(&'a self, at: &'a Place, shown: &'a [String]) -> Option<(&'a Place, &'a Source, &'a str)> {
        Some((at, self.sources.get(at.file)?, shown.get(at.file)?.as_str()))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// A message for a screen: no control character, and nothing at all of a text that looks like a secret.
fn legible(message: &str) -> String {
    if literal::looks_secret(message) {
        return "a value that looks like a secret is not right here".to_owned();
    }
    message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Text from a file for a message: short, on one line, and no secret, nor a line that would give one a value.
pub(super) fn quoted(text: &str) -> String {
    if literal::looks_secret(text) || !literal::suspicious_lines(text).is_empty() {
        return "(hidden)".to_owned();
    }
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if short.chars().count() < text.chars().count() {
        short.push('…');
    }
    format!("`{}`", short.replace("\\\"", "\"").replace("\\'", "'"))
}

/// The candidate that was probably meant, if one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let word = folded(&word.chars().take(100).collect::<String>());
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().min(word.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean `…`?`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: Range<usize>) -> Diagnostics {
        let source = Source::new("a.toml".into(), text);
        Diagnostics::new(vec![source], vec![Diag::at(Place::new(0, &span), "wrong")])
    }

    #[test]
    fn any_span_of_any_text_can_be_drawn() {
        for text in ["", "\n", "aä\r\nb\u{9b}x", "\u{202e}", "é"] {
            for start in 0..8 {
                for end in start..8 {
                    let drawn = one(text, start..end).render(false);
                    assert!(drawn.starts_with("error: wrong\n --> a.toml:"), "{drawn}");
                    assert!(!drawn.contains('\u{9b}'));
                }
            }
        }
    }

    #[test]
    fn lines_near_a_secret_are_blank_and_a_message_with_one_is_replaced() {
        let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2ln";
        let text = format!("a = 1\nb = \"{jwt}\"\nc = 2\n");
        let place = |span: Range<usize>| Place::new(0, &span);
        let mut diag = Diag::at(place(0..1), format!("bad {jwt}")).help(format!("see {jwt}"));
        diag = diag.also(place(6..7), jwt);
        let all = Diagnostics::new(vec![Source::new("a.toml".into(), &text)], vec![diag]);
        let drawn = all.render(false) + &format!("{:?}", all.messages().collect::<Vec<_>>());
        assert!(!drawn.contains("eyJ"), "{drawn}");
        assert!(!one(&text, 8..9).render(false).contains("eyJ"));
    }

    #[test]
    fn the_same_error_on_many_hosts_becomes_one() {
        let make = |host: &str| {
            let diag = Diag::at(Place::new(0, &(0..1)), "undefined").host(host);
            Diagnostics::new(vec![Source::new("a.toml".into(), "x")], vec![diag])
        };
        let mut all = Diagnostics::default();
        for host in ["a", "b", "c", "a"] {
            all.merge(make(host));
        }
        assert_eq!(all.len(), 1);
        assert!(all.render(false).contains("on hosts a, b and 1 more"), "{all}");
        assert!(all.render(true).contains("\u{1b}["));
    }

    #[test]
    fn a_value_that_swallowed_a_secret_is_not_quoted() {
        assert_eq!(quoted("password = \"hunter2hunter2\"\n"), "(hidden)");
        assert_eq!(quoted("/srv/runner"), "`/srv/runner`");
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let keys = ["backup", "place", "point"];
        assert_eq!(nearest("bakcup", keys), Some("backup"));
        assert_eq!(nearest("Place", keys), Some("place"));
        assert_eq!(nearest("zzz", keys), None);
    }
}
