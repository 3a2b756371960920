//! The first field of a line: which hosts it is about.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_encoding::base64::{Base64, Encoding};
use sha1::Sha1;

/// Who a line is about.
#[derive(Debug)]
pub(super) enum Hosts {
    /// Patterns separated by commas; one that starts with `!` takes hosts out again.
    Patterns(Vec<Pattern>),
    /// One name, hashed with a salt.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

#[derive(Debug)]
pub(super) struct Pattern {
    negated: bool,
    glob: Vec<u8>,
}

impl Hosts {
    pub(super) fn parse(field: &[u8]) -> Result<Self, &'static str> {
        let Some(hashed) = field.strip_prefix(b"|") else {
            let pattern = |text: &[u8]| match text.strip_prefix(b"!") {
                Some(rest) => Pattern { negated: true, glob: rest.to_ascii_lowercase() },
                None => Pattern { negated: false, glob: text.to_ascii_lowercase() },
            };
            return Ok(Self::Patterns(field.split(|b| *b == b',').map(pattern).collect()));
        };
        let damaged = "the hashed name is damaged";
        let hashed = std::str::from_utf8(hashed).map_err(|_| damaged)?;
        let decode = |text| Base64::decode_vec(text).map_err(|_| damaged);
        match hashed.split('|').collect::<Vec<_>>().as_slice() {
            ["1", salt, hash] => Ok(Self::Hashed { salt: decode(salt)?, hash: decode(hash)? }),
            _ => Err(damaged),
        }
    }

    /// The names, if the line lists whole names and nothing else: then it covers exactly these.
    pub(super) fn whole_names(&self) -> Option<Vec<&[u8]>> {
        let Self::Patterns(patterns) = self else { return None };
        let whole = |p: &Pattern| !p.negated && !p.glob.iter().any(|byte| matches!(byte, b'*' | b'?'));
        patterns.iter().map(|p| whole(p).then_some(p.glob.as_slice())).collect()
    }

    /// Whether the line is about `name` (lower case; `[name]:port` for ports other than 22).
    pub(super) fn cover(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let hit = |negated| patterns.iter().any(|p| p.negated == negated && matches(&p.glob, name.as_bytes()));
                hit(false) && !hit(true)
            }
            Self::Hashed { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
                .is_ok_and(|mac| mac.chain_update(name.as_bytes()).verify_slice(hash).is_ok()),
        }
    }
}

/// Whether `text` matches a pattern with `*` (anything) and `?` (one character).
///
/// After a mismatch only the last `*` can help, so this never takes more than `pattern × text` steps.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}
