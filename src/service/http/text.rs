//! What a server says, made fit for a terminal and a log: bounded, on one line, without control characters.

use secrecy::{ExposeSecret, SecretString};

/// The longest message of a server that is passed on, in characters.
const LONGEST: usize = 300;

/// Removes what could steer a terminal or turn text around, folds blank space, and cuts the rest short.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut length = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !out.is_empty();
            continue;
        }
        if is_invisible(c) {
            continue;
        }
        if length >= LONGEST {
            out.push('…');
            return out;
        }
        if gap {
            out.push(' ');
            length += 1;
            gap = false;
        }
        out.push(c);
        length += 1;
    }
    out
}

/// As [`clean`], with every occurrence of the given secrets covered first.
#[must_use]
pub(super) fn clean_without(text: &str, secrets: &[SecretString]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        let secret = secret.expose_secret();
        if !secret.is_empty() {
            text = text.replace(secret, "[secret]");
        }
    }
    clean(&text)
}

/// Characters that are not seen but change what is: direction marks, joiners, the byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_pass() {
        assert_eq!(clean("\u{1b}[31mred\u{7}\r\nnext\u{202e}line \u{9b}x"), "[31mred nextline x");
        assert_eq!(clean("  a \t\n b  "), "a b");
    }

    #[test]
    fn long_text_is_cut() {
        let text = clean(&"ä".repeat(5000));
        assert_eq!(text.chars().count(), LONGEST + 1);
        assert!(text.ends_with('…'));
    }

    #[test]
    fn a_secret_is_covered() {
        let secrets = [SecretString::from("test-token-1")];
        assert_eq!(clean_without("bad token test-token-1!", &secrets), "bad token [secret]!");
    }
}
