//! Reading files: their text, their TOML tree, and the one place where errors are collected.

use std::cell::RefCell;
use std::io::Read;
use std::ops::Range;

use camino::{Utf8Path, Utf8PathBuf};
use toml::de::{DeTable, DeValue};

use super::Context;
use super::check::Problem;
use super::diag::{Diag, Diagnostics, Place, Source, quoted};
use super::literal;

/// No inventory or playbook is this long.
const LARGEST: u64 = 1024 * 1024;
/// More errors than this of one load help nobody.
const MOST: usize = 500;

/// The files of one load, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Sink {
    sources: RefCell<Vec<Source>>,
    diags: RefCell<Vec<Diag>>,
}

impl Sink {
    /// Goes on with sources that were read before.
    pub(super) fn resume(sources: Vec<Source>) -> Self {
        Self { sources: RefCell::new(sources), diags: RefCell::default() }
    }

    /// Adds a file's text and gives its number.
    pub(super) fn add(&self, path: &Utf8Path, text: &str) -> usize {
        let mut sources = self.sources.borrow_mut();
        sources.push(Source::new(path, text));
        sources.len() - 1
    }

    /// Notes an error. A second one at the very place of one about a secret adds nothing.
    pub(super) fn note(&self, diag: Diag) {
        let mut diags = self.diags.borrow_mut();
        let told = diags.iter().any(|known| known.hides() && known.place().is_some() && known.place() == diag.place());
        // One cause with many hosts is one error.
        let told = told || diag.has_host() && diags.iter_mut().any(|known| known.takes(&diag));
        if !told && diags.len() < MOST {
            diags.push(diag);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.diags.borrow().is_empty()
    }

    /// The sources, if nothing is wrong.
    pub(super) fn finish(self) -> Result<Vec<Source>, Diagnostics> {
        let (sources, diags) = (self.sources.into_inner(), self.diags.into_inner());
        if diags.is_empty() { Ok(sources) } else { Err(Diagnostics::new(sources, diags)) }
    }

    /// The place of a part of a string value. The whole value where escapes make it unclear.
    pub(super) fn part(&self, place: &Place, raw: &str, range: &Range<usize>) -> Place {
        let sources = self.sources.borrow();
        let written = sources.get(place.file).and_then(|source| source.text().get(place.start..place.end));
        let offset = written.and_then(|written| {
            let quotes = written.len().checked_sub(raw.len())? / 2;
            (quotes > 0 && written.get(quotes..quotes + raw.len()) == Some(raw)).then_some(quotes)
        });
        match offset {
            Some(offset) if range.end <= raw.len() => {
                let start = place.start + offset;
                Place { file: place.file, start: start + range.start, end: start + range.end }
            }
            _ => place.clone(),
        }
    }

    /// Reads a file; what goes wrong is noted.
    pub(super) fn read(&self, path: &Utf8Path) -> Option<String> {
        match read_text(path) {
            Ok(text) => Some(text),
            Err(why) => {
                // Behind an `@` on the command line may stand anything.
                let strange = path.as_str().contains('\n') || !literal::suspicious_lines(path.as_str()).is_empty();
                let path = if strange { "the file" } else { path.as_str() };
                self.note(Diag::new(format!("cannot read {path}: {why}")));
                None
            }
        }
    }

    /// Parses a file's text and looks for literal secrets in it. `None` where it is no TOML: what a reader would
    /// say of the rest would only be a consequence.
    pub(super) fn parse<'t>(&self, file: usize, text: &'t str) -> Option<Node<'t>> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        for literal in literal::find(text) {
            self.secret(Place::new(file, &literal.span), format!("{} stands in this file", literal.kind));
        }
        self.scan_table(file, tree.get_ref(), "");
        let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let mut line_told = None;
        for error in &errors {
            let span = error.span().unwrap_or_default();
            // The parser goes on in the middle of a line; only the first error of a line is news.
            let line = line_ends.partition_point(|end| *end < span.start);
            if line_told.replace(line) == Some(line) {
                continue;
            }
            let diag = Diag::at(Place::new(file, &span), error.message());
            // Where the structure is broken nobody knows which lines belong to a key that holds a secret.
            self.note(if self.hides(file) { diag.hidden() } else { diag });
        }
        errors.is_empty().then(|| Node { table: tree.into_inner(), place: Place::new(file, &(0..0)) })
    }

    fn secret(&self, place: Place, message: String) {
        let diag = Diag::at(place, message).hidden();
        self.note(diag.help(
            "treat it as leaked: take it out of the file and its history, have it replaced, and name its source \
             instead, such as `{ from = \"prompt\" }`",
        ));
    }

    fn scan_table(&self, file: usize, table: &DeTable<'_>, name: &str) {
        for (key, value) in table {
            let key_name: &str = key.get_ref();
            if literal::looks_secret(key_name) {
                self.hide(file, &key.span());
            }
            // In `place = { secret = "token" }` the value is the name of a secret.
            let names_one = key_name == "secret" && matches!(name, "place" | "prove");
            if literal::secret_key(key_name) && !names_one {
                match value.get_ref() {
                    DeValue::String(text) if literal::names_a_secret(key_name, text) => {
                        let message = format!("{} is given a literal value", quoted(key_name));
                        self.secret(Place::new(file, &value.span()), message);
                    }
                    DeValue::Table(_) => {}
                    _ => self.hide(file, &value.span()),
                }
            }
            self.scan_value(file, value.get_ref(), &value.span(), key_name);
        }
    }

    fn scan_value(&self, file: usize, value: &DeValue<'_>, span: &Range<usize>, name: &str) {
        match value {
            DeValue::String(text) => {
                // What escapes or line joins hide from a look at the file's text.
                let seen =
                    self.sources.borrow().get(file).is_some_and(|source| {
                        literal::looks_secret(source.text().get(span.clone()).unwrap_or_default())
                    });
                if !seen && let Some(found) = literal::find(text).first() {
                    self.secret(Place::new(file, span), format!("{} stands in this file", found.kind));
                }
            }
            DeValue::Array(items) => {
                items.iter().for_each(|item| self.scan_value(file, item.get_ref(), &item.span(), name));
            }
            DeValue::Table(table) => self.scan_table(file, table, name),
            _ => {}
        }
    }

    fn hides(&self, file: usize) -> bool {
        self.sources.borrow().get(file).is_some_and(Source::hides)
    }

    fn hide(&self, file: usize, span: &Range<usize>) {
        if let Some(source) = self.sources.borrow_mut().get_mut(file) {
            source.hide(span.clone());
        }
    }
}

/// A file's tree.
#[derive(Debug, Clone)]
pub(super) struct Node<'t> {
    pub(super) table: DeTable<'t>,
    pub(super) place: Place,
}

/// A file's text: not too long, UTF-8.
pub(super) fn read_text(path: &Utf8Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| said(&error))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| said(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err("the file is too large".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())
}

/// The operating system's words without its number.
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A path on this machine as a file names it: `~/` is the operator's home, a relative path starts at that file.
pub(super) fn local_path(text: &str, file: &Utf8Path, context: &Context) -> Result<Utf8PathBuf, Problem> {
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::new("is no path"));
    }
    if text == "~" {
        return Ok(context.home.clone());
    }
    if let Some(rest) = text.strip_prefix("~/") {
        return Ok(context.home.join(rest));
    }
    if text.starts_with('~') {
        return Err(Problem::new(format!("{} names another user's home", quoted(text))).help("only `~/` is expanded"));
    }
    Ok(context.cwd.join(file.parent().unwrap_or(Utf8Path::new(""))).join(text))
}
