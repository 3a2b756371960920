//! Cleans text of unknown origin for a terminal.
//!
//! A host that was taken over may answer with escape sequences that rewrite the operator's screen, or with
//! characters that make text read otherwise than it is. What cannot be seen is removed; nothing is decoded.

use std::borrow::Cow;

/// The most characters of one field of a line.
pub const FIELD: usize = 400;

/// One line: escape sequences and invisible characters go, line ends and tabs become blanks, and what is longer
/// than `max` characters ends in `…`. Text to be redacted is redacted before it is cut.
#[must_use]
pub fn line(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max * 4));
    let mut left = max;
    clean(text, |c| {
        let c = if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c };
        if c == ' ' && out.ends_with(' ') {
            return true;
        }
        if left <= 1 {
            // One more than fits: the last place is for the mark. A text of exactly `max` is handled below.
            if left == 1 {
                left = 0;
                out.push(c);
                return true;
            }
            out.pop();
            out.push('…');
            return false;
        }
        left -= 1;
        out.push(c);
        true
    });
    if max == 0 {
        out.clear();
    }
    out.truncate(out.trim_end().len());
    Cow::Owned(out)
}

/// Several lines, at most `max_lines` of at most `max` characters each, from the end of the text: what a program
/// said last is what matters. Empty lines go.
#[must_use]
pub fn tail(text: &str, max_lines: usize, max: usize) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(|part| line(part, max).into_owned())
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
            '\u{1b}' => {
                if chars.next_if_eq(&'\\').is_some() {
                    return;
                }
            }
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
