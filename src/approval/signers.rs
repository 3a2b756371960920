//! `allowed_signers`, as `ssh-keygen -Y verify` reads it: who may sign with which key, for what, and when.
//!
//! A line that cannot be read allows nobody; a certificate authority's line is told and allows nobody either.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::NAMESPACE;
use crate::remote::ssh::SignerKey;

/// No such file is this long.
const LARGEST: u64 = 1024 * 1024;

/// The file as it was read.
#[derive(Debug, Clone)]
pub struct AllowedSigners {
    path: Utf8PathBuf,
    digest: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    number: usize,
    what: Result<Allows, String>,
}

/// What a line allows.
#[derive(Debug, Clone)]
struct Allows {
    principals: Vec<String>,
    namespaces: Option<Vec<String>>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    authority: bool,
    key: SignerKey,
}

/// Why nobody is known who may sign.
#[derive(Debug, thiserror::Error)]
#[error("allowed_signers: {path} cannot be read: {why}")]
pub struct SignersError {
    /// Which file.
    pub path: Utf8PathBuf,
    /// Why.
    pub why: String,
}

impl AllowedSigners {
    /// Reads the file. Times without a zone are those of `zone`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Utf8Path, zone: &TimeZone) -> Result<Self, SignersError> {
        let no = |why: String| SignersError { path: path.to_owned(), why };
        let meta = std::fs::metadata(path).map_err(|error| no(error.to_string()))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(no("it is not a file of that kind".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| no(error.to_string()))?;
        Ok(Self::parse(path, &text, zone))
    }

    pub(super) fn parse(path: &Utf8Path, text: &str, zone: &TimeZone) -> Self {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(text.as_bytes());
        let lines = (1..).zip(text.lines()).filter(|(_, line)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with('#')
        });
        Self {
            path: path.to_owned(),
            digest: format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            lines: lines.map(|(number, line)| Line { number, what: parse(line.trim(), zone) }).collect(),
        }
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether a key may sign under a name at a time.
    ///
    /// # Errors
    /// Why not, naming the line that comes nearest.
    pub fn allows(&self, signer: &str, key: &SignerKey, now: Timestamp) -> Result<(), String> {
        let path = &self.path;
        let mut nearest = None;
        for Line { number, what } in &self.lines {
            let allows = match what {
                Ok(allows) => allows,
                Err(why) => {
                    nearest.get_or_insert_with(|| format!("{path}:{number} cannot be read ({why})"));
                    continue;
                }
            };
            if !in_patterns(signer, &allows.principals) {
                continue;
            }
            if allows.authority {
                nearest = Some(format!(
                    "{path}:{number} is a certificate authority's, which this version does not take: name the key itself"
                ));
                continue;
            }
            if !allows.key.is_same(key) {
                continue;
            }
            let within = |list: &Vec<String>| in_patterns(NAMESPACE, list);
            nearest = Some(if !allows.namespaces.as_ref().is_none_or(within) {
                format!("{path}:{number} allows this key for other namespaces than `{NAMESPACE}`")
            } else if allows.after.is_some_and(|after| now < after) {
                format!("{path}:{number} allows this key only later (valid-after)")
            } else if allows.before.is_some_and(|before| now > before) {
                format!("{path}:{number} does not allow this key any more (valid-before)")
            } else {
                return Ok(());
            });
        }
        let near = nearest.map(|near| format!("; {near}")).unwrap_or_default();
        Err(format!("{path} does not allow {} to sign as `{signer}`{near}", key.fingerprint()))
    }

    /// Whether a key is named for a signer at all: to choose among an agent's keys.
    #[must_use]
    pub fn knows(&self, signer: &str, key: &SignerKey) -> bool {
        let lines = self.lines.iter().filter_map(|line| line.what.as_ref().ok());
        lines.into_iter().any(|allows| allows.key.is_same(key) && in_patterns(signer, &allows.principals))
    }
}

/// `PRINCIPALS [OPTIONS] TYPE KEY [COMMENT]`.
fn parse(line: &str, zone: &TimeZone) -> Result<Allows, String> {
    let (principals, rest) = word(line)?;
    let principals: Vec<String> = principals.split(',').map(str::to_owned).collect();
    if principals.iter().any(String::is_empty) {
        return Err("an empty principal".to_owned());
    }
    let allows = |options: &str, key: &str| -> Result<Allows, String> {
        let mut words = key.split_ascii_whitespace();
        let key = match (words.next(), words.next()) {
            (Some(kind), Some(data)) => SignerKey::parse(&format!("{kind} {data}"))?,
            _ => return Err("no key".to_owned()),
        };
        let mut allows = Allows {
            principals: principals.clone(),
            namespaces: None,
            after: None,
            before: None,
            authority: false,
            key,
        };
        for (name, value) in split_options(options)? {
            match (name.to_ascii_lowercase().as_str(), value) {
                ("cert-authority", None) => allows.authority = true,
                ("namespaces", Some(list)) => {
                    once(&mut allows.namespaces, list.split(',').map(str::to_owned).collect())?;
                }
                ("valid-after", Some(at)) => once(&mut allows.after, time(&at, zone)?)?,
                ("valid-before", Some(at)) => once(&mut allows.before, time(&at, zone)?)?,
                _ => return Err("an option that is not known".to_owned()),
            }
        }
        if let (Some(after), Some(before)) = (allows.after, allows.before)
            && before <= after
        {
            return Err("it is valid at no time".to_owned());
        }
        Ok(allows)
    };
    // As OpenSSH: what is a key is one; only otherwise it is options.
    if let Ok(found) = allows("", rest) {
        return Ok(found);
    }
    let (options, key) = options_end(rest)?;
    allows(options, key)
}

/// The first word, which may stand in quotes, and what follows it.
fn word(text: &str) -> Result<(&str, &str), String> {
    let found = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"'),
        None => text.split_once([' ', '\t']),
    };
    found.map(|(word, rest)| (word, rest.trim_start())).ok_or_else(|| "no key".to_owned())
}

/// Options reach to the first blank that is not in quotes.
fn options_end(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                return Ok((text.get(..at).unwrap_or(""), text.get(at..).unwrap_or("").trim_start()));
            }
            _ => {}
        }
    }
    Err("no key".to_owned())
}

fn split_options(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut options = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let value = match after.strip_prefix("=\"") {
            Some(quoted) => {
                let (value, behind) = quoted.split_once('"').ok_or("a quote that does not end")?;
                rest = behind;
                Some(value.to_owned())
            }
            None if after.starts_with('=') => return Err("a value without quotes".to_owned()),
            None => {
                rest = after;
                None
            }
        };
        options.push((name.to_owned(), value));
        rest = match rest.strip_prefix(',') {
            Some("") => return Err("a comma at the end".to_owned()),
            Some(next) => next,
            None if rest.is_empty() => rest,
            None => return Err("something behind a quote".to_owned()),
        };
    }
    Ok(options)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("an option that is given twice".to_owned()),
    }
}

/// `YYYYMMDD[HHMM[SS]][Z]`.
fn time(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let no = || "a time that is none".to_owned();
    let (digits, zone) = match text.strip_suffix("UTC").or_else(|| text.strip_suffix('Z')) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, zone),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no());
    }
    let format = match digits.len() {
        8 => "%Y%m%d",
        12 => "%Y%m%d%H%M",
        14 => "%Y%m%d%H%M%S",
        _ => return Err(no()),
    };
    let at = match digits.len() {
        8 => jiff::civil::Date::strptime(format, digits).map(|date| date.at(0, 0, 0, 0)),
        _ => DateTime::strptime(format, digits),
    };
    let at = at.and_then(|at| zone.to_ambiguous_zoned_datetime(at).compatible());
    at.map(|at| at.timestamp()).map_err(|_| no())
}

/// OpenSSH's pattern list: one must fit, and none that begins with `!`.
fn in_patterns(text: &str, patterns: &[String]) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(text, pattern) => return false,
            Some(_) => {}
            None => found |= fits(text, pattern),
        }
    }
    found
}

/// `*` stands for any run of characters, `?` for one.
fn fits(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    // Which beginnings of the text the pattern so far fits: linear in both, whatever the pattern.
    let mut reach = vec![false; text.len() + 1];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        let mut before = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let here = reach.get(at).copied().unwrap_or(false);
            let behind = at.checked_sub(1).and_then(|at| reach.get(at)).copied().unwrap_or(false);
            *slot = match part {
                '*' => here || before,
                '?' => behind,
                c => behind && at.checked_sub(1).and_then(|at| text.get(at)) == Some(&c),
            };
            before = *slot;
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}
