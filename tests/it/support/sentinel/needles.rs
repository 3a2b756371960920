//! The forms in which a secret could turn up: what the sentinel searches for.
//!
//! A form is kept only if it does not hold the raw value itself: a hit on it would be a hit on the raw value too.
//! Base64 is trimmed to the characters that depend on the value alone, so it is found inside any longer encoding.

use std::fmt::Write;

/// How a secret was written where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Byte for byte.
    Raw,
    /// One half of it, byte for byte: the rest was cut off.
    Half,
    /// Base64 with the standard alphabet, at any alignment.
    Base64,
    /// Base64 with the URL alphabet, at any alignment.
    Base64Url,
    /// Hexadecimal, lower case.
    HexLower,
    /// Hexadecimal, upper case.
    HexUpper,
    /// Percent-escaped as in a URL or a form.
    Percent,
    /// Escaped as in a JSON string, once or twice.
    Json,
    /// Quoted for a shell.
    Shell,
    /// As Rust's `{:?}` shows text.
    RustDebug,
    /// Decimal numbers, as `{:?}` or JSON show bytes.
    ByteList,
}

/// The shortest secret that can be told from chance, even in base64 with its edges trimmed.
pub(crate) const SHORTEST: usize = 12;
const SHORTEST_HALF: usize = 16;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Every form of a value, each once, the raw one first.
pub(crate) fn forms(value: &[u8]) -> Vec<(Form, Vec<u8>)> {
    assert!(value.len() >= SHORTEST, "a secret for the sentinel needs at least {SHORTEST} bytes");
    let mut all: Vec<(Form, Vec<u8>)> = vec![(Form::Raw, value.to_vec())];
    let (first, second) = value.split_at(value.len() / 2);
    if first.len() >= SHORTEST_HALF {
        all.push((Form::Half, first.to_vec()));
        all.push((Form::Half, second.to_vec()));
    }
    for alignment in 0..3 {
        all.push((Form::Base64, base64_inside(value, alignment, STANDARD)));
    }
    for alignment in 0..3 {
        all.push((Form::Base64Url, base64_inside(value, alignment, URL)));
    }
    let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
    all.push((Form::HexUpper, hex.to_uppercase().into_bytes()));
    all.push((Form::HexLower, hex.into_bytes()));
    all.extend(percent(value).into_iter().map(|bytes| (Form::Percent, bytes)));
    if let Ok(text) = std::str::from_utf8(value) {
        all.extend(json(text).into_iter().map(|text| (Form::Json, text.into_bytes())));
        all.push((Form::RustDebug, inside(&format!("{text:?}")).into()));
    }
    all.push((Form::RustDebug, value.escape_ascii().to_string().into_bytes()));
    all.extend(shell(value).into_iter().map(|bytes| (Form::Shell, bytes)));
    all.push((Form::ByteList, byte_list(value, ", ")));
    all.push((Form::ByteList, byte_list(value, ",")));

    let mut kept: Vec<(Form, Vec<u8>)> = Vec::new();
    for (form, bytes) in all {
        let seen = kept.iter().any(|(_, other)| *other == bytes);
        let holds_raw = form != Form::Raw && contains(&bytes, value);
        if !seen && !holds_raw {
            kept.push((form, bytes));
        }
    }
    kept
}

/// The base64 characters that `value` alone decides when it stands `alignment` bytes after a boundary of three.
fn base64_inside(value: &[u8], alignment: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bit = |index: usize| {
        let (byte, shift) = (index / 8 - alignment, 7 - index % 8);
        usize::from(value[byte] >> shift & 1)
    };
    let first = (alignment * 8).div_ceil(6);
    let end = (alignment + value.len()) * 8 / 6;
    (first..end).map(|at| alphabet[(at * 6..at * 6 + 6).fold(0, |bits, index| bits << 1 | bit(index))]).collect()
}

fn percent(value: &[u8]) -> Vec<Vec<u8>> {
    let keep_sets: [&[u8]; 4] = [b"-._~", b"*-._", b"-._~;,/?:@&=+$!*'()#", b""];
    let mut all = Vec::new();
    for keep in keep_sets {
        for upper in [true, false] {
            for plus in [true, false] {
                let mut out = String::new();
                for &b in value {
                    if b == b' ' && plus {
                        out.push('+');
                    } else if keep.contains(&b) || (!keep.is_empty() && b.is_ascii_alphanumeric()) {
                        out.push(char::from(b));
                    } else if upper {
                        write!(out, "%{b:02X}").unwrap();
                    } else {
                        write!(out, "%{b:02x}").unwrap();
                    }
                }
                all.push(out.into_bytes());
            }
        }
    }
    all
}

fn json(text: &str) -> Vec<String> {
    let once = inside(&serde_json::to_string(text).unwrap()).to_owned();
    let ascii = |upper: bool| {
        let mut out = String::new();
        for c in once.chars() {
            let mut units = [0; 2];
            match c {
                ' '..='~' => out.push(c),
                _ if upper => c.encode_utf16(&mut units).iter().for_each(|unit| write!(out, "\\u{unit:04X}").unwrap()),
                _ => c.encode_utf16(&mut units).iter().for_each(|unit| write!(out, "\\u{unit:04x}").unwrap()),
            }
        }
        out
    };
    let mut all = vec![once.replace('/', "\\/"), ascii(false), ascii(true)];
    all.push(once);
    // Programs that write for HTML escape these three as well.
    let for_html = text_for_html(all.last().unwrap());
    all.push(for_html);
    let twice: Vec<_> = all.iter().map(|text| inside(&serde_json::to_string(text).unwrap()).to_owned()).collect();
    all.extend(twice);
    all
}

fn text_for_html(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn shell(value: &[u8]) -> Vec<Vec<u8>> {
    let escape = |special: &dyn Fn(u8) -> bool, with: &dyn Fn(u8) -> Vec<u8>| {
        value.iter().flat_map(|&b| if special(b) { with(b) } else { vec![b] }).collect::<Vec<u8>>()
    };
    let backslash = |b: u8| vec![b'\\', b];
    vec![
        escape(&|b| b == b'\'', &|_| b"'\\''".to_vec()),
        escape(&|b| b == b'\'', &|_| b"'\"'\"'".to_vec()),
        escape(&|b| b"\"$`\\".contains(&b), &backslash),
        escape(&|b| !b.is_ascii_alphanumeric() && !b"-_./:=@%+,".contains(&b), &backslash),
    ]
}

fn byte_list(value: &[u8], between: &str) -> Vec<u8> {
    value.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes()
}

/// A quoted text without its quotes.
fn inside(quoted: &str) -> &str {
    &quoted[1..quoted.len() - 1]
}

/// Whether `part` stands in `whole`.
pub(crate) fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}
