//! Words for errors. What a server said is made fit to be shown first.

use std::time::Duration;

use camino::Utf8PathBuf;

/// A server's words, fit to be shown: one line, no control characters, not longer than a line.
pub(crate) fn clean(text: &str) -> String {
    const MOST: usize = 200;
    // Besides the control characters proper, those that turn the direction of text around.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let words: String = text.chars().map(|c| if hidden(c) { ' ' } else { c }).take(MOST * 2).collect();
    let mut out = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = out.char_indices().nth(MOST) {
        out.truncate(at);
        out.push('…');
    }
    out
}

/// The end of a program's standard error, fit to be shown: its last two lines that say something.
pub(crate) fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    clean(&lines.get(lines.len().saturating_sub(2)..).unwrap_or_default().join("; "))
}

pub(super) fn names(files: &[Utf8PathBuf]) -> String {
    files.iter().map(|file| file.as_str()).collect::<Vec<_>>().join(", ")
}

pub(super) fn heard(said: Option<&str>) -> String {
    said.map(|text| format!(", it said: {text}")).unwrap_or_default()
}

pub(super) fn listed(before: &str, items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!("{before}{}", items.join("; ")) }
}

pub(super) fn some(items: &[String]) -> String {
    if items.is_empty() { "no key".to_owned() } else { items.join(", ") }
}

pub(super) fn methods(remaining: &[String], partial: bool, tried: &[String]) -> String {
    // The keys have names of their own.
    let accepted = tried.last().map(String::as_str).filter(|last| last.starts_with("the ")).unwrap_or("a key");
    match (remaining.is_empty(), partial) {
        (true, _) => String::new(),
        (false, true) => format!("; {accepted} was accepted, the host also wants {}", remaining.join(" or ")),
        (false, false) => format!("; the host allows {}", remaining.join(", ")),
    }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_cannot_move_the_cursor_or_fill_the_screen() {
        assert_eq!(clean("\x1b[2Jgo\r\n\taway\u{202e}\0now "), "[2Jgo away now");
        let long = clean(&"x".repeat(5000));
        assert_eq!(long.chars().count(), 201);
        assert!(long.ends_with('…'));
    }
}
