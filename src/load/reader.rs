//! Walking a TOML table by hand: typed getters that note every error with its place and go on.
//!
//! A table is read through a [`Reader`]; every key that is asked for is a known key, and [`Reader::finish`] reports
//! the others. A getter answers with a [`Got`], so that "absent" and "there, but wrong" stay apart and one error is
//! told once.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Problem};
use super::diag::{Diag, Place, did_you_mean, quoted};
use super::file::Sink;
use super::template::{self, Fault, Mode, Scope};

/// What a getter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Got<T> {
    /// The key is not there.
    Absent,
    /// It is there; it is wrong and that was noted, or its value depends on the host.
    Unknown,
    /// Its value.
    Is(T),
}

impl<T> Got<T> {
    /// The value, or the default where the key is absent.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Unknown => None,
            Self::Is(value) => Some(value),
        }
    }

    /// The value or `None` where the key is absent; outer `None` where it is not known.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Unknown => None,
            Self::Is(value) => Some(Some(value)),
        }
    }

    /// The value, if it is there and right.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Got<U> {
        match self {
            Self::Absent => Got::Absent,
            Self::Unknown => Got::Unknown,
            Self::Is(value) => Got::Is(change(value)),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// What happens to `{{ … }}` in a table's texts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fill<'a> {
    /// They stay: somebody else fills them in later.
    Keep,
    /// They are an error here.
    Never,
    /// They are checked; texts that have any are [`Got::Unknown`] until there is a host.
    Check,
    /// They are filled in for this host.
    Host(&'a Scope<'a>, &'a str),
}

/// One table, and what was asked of it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    sink: &'a Sink,
    file: usize,
    table: &'a DeTable<'a>,
    at: Range<usize>,
    what: String,
    fill: Cell<Fill<'a>>,
    private: bool,
    asked: RefCell<Vec<&'static str>>,
    forgiven: RefCell<Vec<String>>,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) key_place: Place,
    pub(super) value: &'a DeValue<'a>,
    pub(super) place: Place,
}

impl<'a> Reader<'a> {
    /// `what` names the table in messages, as in "unknown key `x` in WHAT".
    pub(super) fn new(
        sink: &'a Sink,
        at: &Place,
        table: &'a DeTable<'a>,
        what: impl Into<String>,
        fill: Fill<'a>,
    ) -> Self {
        let (file, at) = (at.file, at.start..at.end);
        Self {
            sink,
            file,
            table,
            at,
            what: what.into(),
            fill: Cell::new(fill),
            private: false,
            asked: RefCell::default(),
            forgiven: RefCell::default(),
        }
    }

    /// Where `yes`, no line of this table is drawn: a misplaced secret would show.
    pub(super) fn private(mut self, yes: bool) -> Self {
        self.private |= yes;
        self
    }

    pub(super) fn sink(&self) -> &'a Sink {
        self.sink
    }

    /// Reads something that must be the same for every host: templates are an error in it.
    pub(super) fn fixed<T>(&self, read: impl FnOnce(&Self) -> T) -> T {
        let fill = self.fill.replace(Fill::Never);
        let value = read(self);
        self.fill.set(fill);
        value
    }

    /// What happens to templates here.
    pub(super) fn fill(&self) -> Fill<'a> {
        self.fill.get()
    }

    /// The table's own place: its header, or its braces.
    pub(super) fn here(&self) -> Place {
        Place::new(self.file, &self.at)
    }

    /// Notes an error.
    pub(super) fn note(&self, diag: Diag) {
        let diag = if self.private { diag.hidden() } else { diag };
        self.sink.note(match self.fill.get() {
            Fill::Host(_, host) => diag.host(host),
            _ => diag,
        });
    }

    /// Notes an error at a key's value, or at the table if the key is absent.
    pub(super) fn wrong(&self, key: &str, message: impl Into<String>) {
        let place = self.peek(key).map_or_else(|| self.here(), |entry| entry.place);
        self.note(Diag::at(place, message));
    }

    /// The entry of a key, which does not make it known.
    pub(super) fn peek(&self, key: &str) -> Option<Entry<'a>> {
        self.table.get_key_value(key).map(|(key, value)| self.entry(key, value))
    }

    fn entry(&self, key: &'a Spanned<std::borrow::Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
        Entry {
            key: key.get_ref(),
            key_place: Place::new(self.file, &key.span()),
            value: value.get_ref(),
            place: Place::new(self.file, &value.span()),
        }
    }

    /// The entry of a key that is now known.
    pub(super) fn get(&self, key: &'static str) -> Option<Entry<'a>> {
        self.know(key);
        self.peek(key)
    }

    /// Makes a key known without reading it.
    pub(super) fn know(&self, key: &'static str) {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
    }

    /// Says no more about an unknown key: it has been noted.
    pub(super) fn forgive(&self, key: &str) {
        self.forgiven.borrow_mut().push(key.to_owned());
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Every entry, in the order of the file.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<_> = self.table.iter().map(|(key, value)| self.entry(key, value)).collect();
        entries.sort_by_key(|entry| entry.key_place.start);
        entries
    }

    /// Entries whose keys nobody asked for.
    pub(super) fn rest(&self) -> Vec<Entry<'a>> {
        let mut entries = self.entries();
        let forgiven = self.forgiven.borrow();
        entries
            .retain(|entry| !self.asked.borrow().contains(&entry.key) && !forgiven.iter().any(|key| key == entry.key));
        entries
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow().clone();
        for entry in self.rest() {
            let near = did_you_mean(entry.key, asked.iter().copied());
            let message = format!("unknown key {} in {}{near}", quoted(entry.key), self.what);
            let diag = Diag::at(entry.key_place, message);
            let known = asked.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            self.note(if near.is_empty() { diag.help(format!("known keys: {known}")) } else { diag });
        }
    }

    /// A value that must be there; its absence is noted.
    pub(super) fn need<T>(&self, key: &str, got: Got<T>) -> Option<T> {
        if got.is_absent() {
            self.note(Diag::at(self.here(), format!("`{key}` is missing in {}", self.what)));
        }
        got.value()
    }

    fn mismatch<T>(&self, entry: &Entry<'_>, wanted: &str) -> Got<T> {
        let found = kind(entry.value);
        self.note(Diag::at(entry.place.clone(), format!("`{}` must be {wanted}, not {found}", entry.key)));
        Got::Unknown
    }

    /// A command line: what is filled in is quoted for the shell.
    pub(super) fn shell(&self, key: &'static str) -> Got<String> {
        self.parsed_as(key, Mode::Shell, check::command_line)
    }

    fn mode_text(&self, key: &'static str, mode: Mode) -> Got<String> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        match entry.value {
            DeValue::String(raw) => self.filled(&entry.place, raw, mode),
            _ => self.mismatch(&entry, "a string"),
        }
    }

    /// A raw text at a place, filled in.
    pub(super) fn filled(&self, place: &Place, raw: &str, mode: Mode) -> Got<String> {
        let result = match self.fill.get() {
            Fill::Keep => Ok(Some(raw.to_owned())),
            Fill::Never if template::has_markup(raw) => Err(Fault {
                message: "templates are not filled in here".to_owned(),
                help: Some("it is the same for every host; write it out".to_owned()),
                range: None,
                place: None,
            }),
            Fill::Never => Ok(Some(raw.to_owned())),
            Fill::Check => template::check(raw, mode).and_then(|needs_values| match needs_values {
                true => Ok(None),
                false => Scope::new(Default::default()).fill(raw, mode).map(Some),
            }),
            Fill::Host(scope, _) => scope.fill(raw, mode).map(Some),
        };
        match result {
            Ok(Some(text)) => Got::Is(text),
            Ok(None) => Got::Unknown,
            Err(fault) => {
                self.fault(place, raw, fault);
                Got::Unknown
            }
        }
    }

    /// Notes a template's fault, at the part of the template that it is about.
    pub(super) fn fault(&self, place: &Place, raw: &str, fault: Fault) {
        let place = fault.place.unwrap_or_else(|| match fault.range {
            Some(range) => self.sink.part(place, raw, &range),
            None => place.clone(),
        });
        self.note(Diag::at(place, fault.message).maybe_help(fault.help));
    }

    /// A text that is checked or turned into something else.
    pub(super) fn parsed<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Got<T> {
        self.parsed_as(key, Mode::Plain, parse)
    }

    fn parsed_as<T>(&self, key: &'static str, mode: Mode, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Got<T> {
        match self.mode_text(key, mode) {
            Got::Is(text) => self.parse_at(self.peek(key).map_or_else(|| self.here(), |e| e.place), &text, parse),
            Got::Absent => Got::Absent,
            Got::Unknown => Got::Unknown,
        }
    }

    /// Parses a text that stands at a place, and notes its problem there.
    pub(super) fn parse_at<T>(
        &self,
        place: Place,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Got<T> {
        match parse(text) {
            Ok(value) => Got::Is(value),
            Err(problem) => {
                let diag = Diag::at(place, problem.message).maybe_help(problem.help);
                self.note(if problem.hide { diag.hidden() } else { diag });
                Got::Unknown
            }
        }
    }

    /// `true` or `false`; filled in for a host a text may say it too.
    pub(super) fn flag(&self, key: &'static str) -> Got<bool> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        match entry.value {
            DeValue::Boolean(yes) => Got::Is(*yes),
            DeValue::String(raw) if template::has_markup(raw) => self.parsed(key, |text| match text {
                "true" | "True" => Ok(true),
                "false" | "False" => Ok(false),
                _ => Err(Problem::new(format!("must be true or false, not {}", quoted(text)))),
            }),
            _ => self.mismatch(&entry, "true or false"),
        }
    }

    /// A whole number within bounds; filled in for a host a text may say it too.
    pub(super) fn number(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Got<u64> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        match entry.value {
            DeValue::Integer(_) => match integer(entry.value).and_then(|n| u64::try_from(n).ok()) {
                Some(number) if range.contains(&number) => Got::Is(number),
                _ => {
                    self.note(Diag::at(entry.place, format!("`{key}` must be {wanted}")));
                    Got::Unknown
                }
            },
            DeValue::String(raw) if template::has_markup(raw) => self.parsed(key, |text| {
                let number = text.trim().parse().ok().filter(|number| range.contains(number));
                number.ok_or_else(|| Problem::new(format!("`{key}` must be {wanted}, not {}", quoted(text))))
            }),
            _ => self.mismatch(&entry, &wanted),
        }
    }

    /// A length of time such as `"90s"`.
    pub(super) fn duration(&self, key: &'static str) -> Got<Duration> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        if let DeValue::Integer(number) = entry.value {
            let message = format!("`{key}` must be a length of time with a unit, not a number");
            self.note(Diag::at(entry.place, message).help(format!("write `\"{}s\"`", number.as_str())));
            return Got::Unknown;
        }
        self.parsed(key, check::duration)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Got<T> {
        self.parsed(key, |text| check::one_of(text, words))
    }

    /// A list of texts, or a single text; each is checked.
    pub(super) fn list<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, Problem>) -> Got<Vec<T>> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        let items: Vec<(Place, &str)> = match entry.value {
            DeValue::String(raw) => vec![(entry.place.clone(), raw.as_ref())],
            DeValue::Array(items) => {
                let mut texts = Vec::new();
                for item in items.iter() {
                    let place = Place::new(self.file, &item.span());
                    match item.get_ref() {
                        DeValue::String(raw) => texts.push((place, raw.as_ref())),
                        other => {
                            let message = format!("`{key}` must hold strings, not {}", kind(other));
                            self.note(Diag::at(place, message));
                        }
                    }
                }
                if texts.len() < items.len() {
                    return Got::Unknown;
                }
                texts
            }
            _ => return self.mismatch(&entry, "a string or a list of strings"),
        };
        let mut values = Vec::new();
        let mut known = true;
        for (place, raw) in items {
            let value = match self.filled(&place, raw, Mode::Plain) {
                Got::Is(text) => self.parse_at(place, &text, &parse).value(),
                _ => None,
            };
            match value {
                Some(value) => values.push(value),
                None => known = false,
            }
        }
        if known { Got::Is(values) } else { Got::Unknown }
    }

    /// A list of texts; a single text is refused, since its blanks would look like they divide it.
    pub(super) fn words<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, Problem>) -> Got<Vec<T>> {
        match self.get(key) {
            Some(entry) if matches!(entry.value, DeValue::String(_)) => self.mismatch(&entry, "a list of strings"),
            _ => self.list(key, parse),
        }
    }

    /// A name, or a number that stands for one.
    pub(super) fn name_or_number(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<String, Problem>,
    ) -> Got<String> {
        match self.get(key) {
            Some(entry) if matches!(entry.value, DeValue::Integer(_)) => {
                self.number(key, 0..=u64::from(u32::MAX) - 1).map(|number| number.to_string())
            }
            _ => self.parsed(key, parse),
        }
    }

    /// A length of time that is not zero.
    pub(super) fn positive(&self, key: &'static str) -> Got<Duration> {
        match self.duration(key) {
            Got::Is(Duration::ZERO) => {
                self.wrong(key, format!("`{key}` must be longer than nothing"));
                Got::Unknown
            }
            other => other,
        }
    }

    /// A table under a key.
    pub(super) fn table(&self, key: &'static str) -> Got<Reader<'a>> {
        let Some(entry) = self.get(key) else { return Got::Absent };
        self.open(&entry, format!("`{key}`"))
    }

    /// The table that an entry holds.
    pub(super) fn open(&self, entry: &Entry<'a>, what: impl Into<String>) -> Got<Reader<'a>> {
        match entry.value {
            DeValue::Table(table) => {
                let mut reader = Reader::new(self.sink, &entry.place, table, what, self.fill.get());
                reader.private = self.private;
                Got::Is(reader)
            }
            _ => self.mismatch(entry, "a table"),
        }
    }

    /// The one key of several that is there; none or more than one is noted.
    pub(super) fn exactly_one(&self, keys: &[&'static str]) -> Option<&'static str> {
        let there: Vec<_> = keys.iter().copied().filter(|key| self.has(key)).collect();
        let all = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        match there.as_slice() {
            [one] => Some(one),
            [] => {
                self.note(Diag::at(self.here(), format!("{} needs one of {all}", self.what)));
                None
            }
            [first, second, ..] => {
                let place = self.peek(second).map_or_else(|| self.here(), |entry| entry.key_place);
                let diag = Diag::at(place, format!("{} has both `{first}` and `{second}`", self.what));
                self.note(diag.help(format!("keep exactly one of {all}")));
                None
            }
        }
    }
}

/// A TOML value's type, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A TOML integer's value.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}
