//! Cleans text of unknown origin for a terminal.
//!
//! A host that was taken over may answer with escape sequences that rewrite the operator's screen, or with
//! characters that make text read otherwise than it is. What cannot be seen is removed; nothing is decoded.

use std::borrow::Cow;

use serde_json::Value;

/// The most characters of one field of a line.
pub const FIELD: usize = 400;

/// One line: escape sequences and invisible characters go, line ends and tabs between words become one blank, and
/// what is longer than `max` characters ends in `…`. Text to be redacted is redacted before it is cut.
#[must_use]
pub fn line(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max.saturating_mul(4)));
    let (mut count, mut gap) = (0, false);
    clean(text, |c| {
        if matches!(c, '\n' | '\t') {
            gap = true;
            return true;
        }
        if std::mem::take(&mut gap) && c != ' ' && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
            count += 1;
        }
        out.push(c);
        count += 1;
        // One more than fits, to know that there is more.
        count <= max
    });
    if count > max {
        let keep = out.char_indices().nth(max.saturating_sub(1)).map_or(0, |(at, _)| at);
        out.truncate(keep);
        out.extend((max > 0).then_some('…'));
    }
    Cow::Owned(out)
}

/// Several lines, at most `max_lines` of at most `max` characters each, from the end of the text: what a program
/// said last is what matters. Empty lines go.
#[must_use]
pub fn tail(text: &str, max_lines: usize, max: usize) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(|part| line(part, max).trim_end().to_owned())
        .filter(|part| !part.is_empty())
        .take(max_lines)
        .collect();
    lines.reverse();
    lines
}

/// Bytes as text, cleaned like [`line`].
#[must_use]
pub fn bytes(bytes: &[u8], max: usize) -> String {
    line(&String::from_utf8_lossy(bytes), max).into_owned()
}

/// The texts of a JSON value, names of fields included, cleaned like [`line`]: JSON itself leaves some of what steers a
/// terminal as it is.
pub fn json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(cleaned) = line(text, usize::MAX) {
                *text = cleaned;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::Object(fields) => {
            if fields.keys().any(|key| matches!(line(key, usize::MAX), Cow::Owned(_))) {
                let old = std::mem::take(fields);
                fields.extend(old.into_iter().map(|(key, value)| (line(&key, usize::MAX).into_owned(), value)));
            }
            fields.values_mut().for_each(json);
        }
        _ => {}
    }
}

/// Hands every character that may be seen (and line ends and tabs) to `take`, until it says no.
fn clean(text: &str, mut take: impl FnMut(char) -> bool) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            // The same introducers as one character each.
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                if !take(if c == '\t' { c } else { '\n' }) {
                    return;
                }
            }
            c if c.is_control() || is_invisible(c) => {}
            c => {
                if !take(c) {
                    return;
                }
            }
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_escape(chars: &mut Chars<'_>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            skip_string(chars);
        }
        Some(' '..='/') => {
            while chars.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            chars.next_if(|c| matches!(c, '0'..='~'));
        }
        Some('0'..='~') => {
            chars.next();
        }
        _ => {}
    }
}

/// Parameters, intermediates, one final character; anything else ends it without being eaten.
fn skip_control_sequence(chars: &mut Chars<'_>) {
    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|c| matches!(c, '@'..='~'));
}

/// Up to the terminator, but never beyond the line: an unterminated sequence must not hide what follows.
fn skip_string(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next_if(|c| !matches!(c, '\n' | '\r')) {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' if chars.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

/// Marks of direction and width, joiners, fillers, tags and variation selectors: they change how text reads and
/// are not seen themselves.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Fuzz;

    #[test]
    fn what_a_terminal_would_obey_is_removed() {
        let cases = [
            ("plain text", "plain text"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}]52;c;never ended\nnext line", "next line"),
            ("\u{1b}P1;2|data\u{1b}\\after", "after"),
            ("\u{9b}31mred \u{9d}0;t\u{9c}x", "red x"),
            ("\u{1b}(Bset \u{1b}cfull", "set full"),
            ("a\rb\tc\u{8}\u{8}\u{7f}\0d", "a b cd"),
            ("user\u{202e}txt.exe\u{2066}\u{200b}\u{feff}", "usertxt.exe"),
            ("one\r\ntwo\u{2028}three\n", "one two three"),
            ("Käse 日本 ✓", "Käse 日本 ✓"),
            ("two  blanks \t x\n", "two  blanks  x"),
            ("cut\u{1b}[", "cut"),
            ("cut\u{1b}", "cut"),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text, 80), expected, "{text:?}");
        }
    }

    #[test]
    fn length_is_bounded_and_the_cut_is_marked() {
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abcde…");
        assert_eq!(line("äöüäöü", 6), "äöüäöü");
        assert_eq!(line("äöüäöüä", 6), "äöüäö…");
        assert_eq!((line("ab", 1), line("ab", 0)), ("…".into(), "".into()));
    }

    #[test]
    fn the_tail_is_what_was_said_last() {
        assert_eq!(tail("one\n\ntwo\n\u{1b}[1mthree\u{1b}[m\n\n", 2, 80), ["two", "three"]);
        assert_eq!(bytes(b"caf\xc3\xa9 \xff", 80), "café \u{fffd}");
    }

    #[test]
    fn fuzz_terminal_sanitiser() {
        let harmless = |out: &str| assert!(!out.chars().any(|c| c.is_control() || is_invisible(c)), "{out:?}");
        Fuzz::new("terminal sanitiser, any text").run(&(any::<String>(), 0_usize..60), |(text, max)| {
            let out = line(&text, max);
            assert!(out.chars().count() <= max);
            harmless(&out);
            assert_eq!(line(&out, max), out, "cleaning twice changes nothing");
            if out == text { "as they were" } else { "cleaned" }
        });
        let steering = "[\\x1b\\[\\]P\\\\0-9;mA\u{7}\u{9b}\u{9c}\u{202e}\n ]{0,40}";
        Fuzz::new("terminal sanitiser, control codes").run(&steering, |text| {
            let out = line(&text, 100);
            harmless(&out);
            if out == text { "as they were" } else { "cleaned" }
        });
    }
}
