//! The shapes in which a secret turns up in text: itself, base64, hex, escaped or quoted.

use std::fmt::Write as _;

use zeroize::Zeroizing;

/// A match of this many bytes of a form is taken for the secret: output that was cut off or wrapped at a width
/// must not show half of it, and less than this may be chance or a prefix that many tokens share.
const PIECE: usize = 16;

/// A derived form shorter than this would be found everywhere by chance.
const SHORTEST_DERIVED: usize = 6;

/// A plain value shorter than this is found only as a word of its own, for the same reason.
const SHORTEST_ANYWHERE: usize = 6;

/// One shape of one secret.
pub(super) struct Form {
    /// Its bytes.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// How many of them, next to each other, make a match.
    pub(super) need: usize,
    /// Whether it counts only where no letter or digit stands beside it.
    pub(super) word: bool,
    /// Whether `=` behind it belongs to it.
    pub(super) padded: bool,
}

/// All forms of a value that has one line. Percent, backslash and `\u` escapes are not among them: the matcher
/// undoes those in the text.
pub(super) fn forms(value: &[u8]) -> Vec<Form> {
    let mut forms = vec![Form {
        bytes: Zeroizing::new(value.to_vec()),
        need: value.len().min(PIECE),
        word: value.len() < SHORTEST_ANYWHERE,
        padded: false,
    }];
    let mut derived = |bytes: Zeroizing<Vec<u8>>, stable: usize, padded: bool| {
        if stable >= SHORTEST_DERIVED && forms.iter().all(|form| *form.bytes != *bytes) {
            forms.push(Form { bytes, need: stable.min(PIECE), word: false, padded });
        }
    };
    for alphabet in [STANDARD, URL] {
        for shift in 0..3 {
            let (bytes, stable) = base64(value, alphabet, shift);
            derived(bytes, stable, true);
        }
    }
    for separator in ["", ":", " "] {
        for upper in [false, true] {
            let bytes = hex(value, separator, upper);
            let stable = bytes.len();
            derived(bytes, stable, false);
        }
    }
    for replacements in [SHELL_BACKSLASH, SHELL_QUOTES, HTML, FORM_URL] {
        let bytes = replace(value, replacements);
        let stable = bytes.len();
        derived(bytes, stable, false);
    }
    forms
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

type Replacements = &'static [(u8, &'static str)];
/// Inside single quotes, as most programs quote.
const SHELL_BACKSLASH: Replacements = &[(b'\'', r"'\''")];
/// Inside single quotes, as Python and the `shlex` crate may quote.
const SHELL_QUOTES: Replacements = &[(b'\'', r#"'"'"'"#)];
const HTML: Replacements = &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;"), (b'\'', "&#39;")];
const FORM_URL: Replacements = &[(b' ', "+")];

/// The value in base64 behind `shift` bytes of something else, without padding: from the first character that
/// depends on the value alone. The second number says how many characters hold whatever follows the value.
fn base64(value: &[u8], alphabet: &[u8; 64], shift: usize) -> (Zeroizing<Vec<u8>>, usize) {
    let mut out = Zeroizing::new(Vec::with_capacity((value.len() + shift) * 4 / 3 + 4));
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut digit = |six: u32| out.extend(alphabet.get((six & 63) as usize));
    for &byte in std::iter::repeat_n(&0, shift).chain(value) {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            digit(bits >> held);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        digit(bits << (6 - held));
    }
    let foreign = (shift * 8).div_ceil(6).min(out.len());
    out.drain(..foreign);
    let stable = out.len() - usize::from(held > 0 && !out.is_empty());
    (out, stable)
}

fn hex(value: &[u8], separator: &str, upper: bool) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(String::with_capacity(value.len() * 3));
    for byte in value {
        if !out.is_empty() {
            out.push_str(separator);
        }
        // Writing into a string cannot fail.
        let _ = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
    }
    Zeroizing::new(std::mem::take(&mut *out).into_bytes())
}

fn replace(value: &[u8], replacements: Replacements) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() * 6));
    for byte in value {
        match replacements.iter().find(|(from, _)| from == byte) {
            Some((_, to)) => out.extend_from_slice(to.as_bytes()),
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &[u8], shift: usize) -> (String, usize) {
        let (bytes, stable) = base64(value, STANDARD, shift);
        (String::from_utf8(bytes.to_vec()).unwrap(), stable)
    }

    #[test]
    fn base64_begins_with_what_depends_on_the_value_alone() {
        // Known answers: "foobar" is Zm9vYmFy; "xfoobar" is eGZvb2Jhcg==; "xyfoobar" is eHlmb29iYXI=.
        assert_eq!(encoded(b"foobar", 0), ("Zm9vYmFy".into(), 8));
        assert_eq!(encoded(b"foobar", 1), ("Zvb2Jhcg".into(), 7));
        assert_eq!(encoded(b"foobar", 2), ("mb29iYXI".into(), 7));
    }

    #[test]
    fn a_short_value_has_no_form_that_chance_would_match() {
        let forms = forms(b"ab");
        assert!(forms.iter().all(|form| form.word || form.need >= SHORTEST_DERIVED));
        assert!(forms.first().unwrap().word);
    }
}
