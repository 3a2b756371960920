//! Just enough of Rust's grammar to see which paths and macros a source file names, and which of it is test code.
//!
//! Comments, texts and character literals are passed over, so nothing said in them counts as use.

/// A word or a single sign of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The word, or the sign.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A path such as `crate::model::HostName`, with the branches of a `use` tree written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathUse {
    /// Its parts.
    pub(crate) parts: Vec<String>,
    /// The line of its first part.
    pub(crate) line: usize,
    /// Whether it is the name of a macro that is called.
    pub(crate) is_macro: bool,
}

/// Splits a source file into words and signs.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        if c == '/' && next == Some('/') {
            at = find(&chars, at, |c| c == '\n');
        } else if c == '/' && next == Some('*') {
            at = after_block_comment(&chars, at);
        } else if let Some(end) = after_text(&chars, at) {
            at = end;
        } else if c == '\'' {
            at = after_quote(&chars, at);
        } else if c.is_alphanumeric() || c == '_' {
            at = find(&chars, at, |c| !c.is_alphanumeric() && c != '_');
            tokens.push(Token { text: chars[start..at].iter().collect(), line });
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push(Token { text: c.to_string(), line });
            }
        }
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| stop(c)).map_or(chars.len(), |offset| from + offset)
}

fn after_block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// If a text literal begins here (also `b"…"`, `r#"…"#` and their like), where it ends.
fn after_text(chars: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    while at < from + 2 && chars.get(at).is_some_and(|c| "bcr".contains(*c)) {
        at += 1;
    }
    let raw = at > from && chars[at - 1] == 'r';
    let hashes = if raw { chars[at..].iter().take_while(|&&c| c == '#').count() } else { 0 };
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        if !raw && chars[at] == '\\' {
            at += 1;
        } else if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

/// After a character literal; after the quote alone if it begins a lifetime.
fn after_quote(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => find(chars, from + 3, |c| c == '\'') + 1,
        (Some(_), Some('\'')) => from + 3,
        _ => from + 1,
    }
    .min(chars.len())
}

/// Takes out every item under `#[cfg(test)]`. Returns the rest, and the names of the modules taken out that are files
/// of their own; `None` if the whole file is test code.
pub(crate) fn without_tests(tokens: &[Token]) -> Option<(Vec<Token>, Vec<String>)> {
    let (mut kept, mut files, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if matches(tokens, at, "# ! [ cfg ( test ) ]") {
            return None;
        }
        if !matches(tokens, at, "# [ cfg ( test ) ]") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = item_end(tokens, at + 7);
        if let [.., keyword, name, semicolon] = &tokens[..end]
            && keyword.text == "mod"
            && semicolon.text == ";"
        {
            files.push(name.text.clone());
        }
        at = end;
    }
    Some((kept, files))
}

fn matches(tokens: &[Token], at: usize, words: &str) -> bool {
    words.split(' ').enumerate().all(|(offset, word)| tokens.get(at + offset).is_some_and(|t| t.text == word))
}

/// After the item that begins here: its closing brace, or its semicolon outside of brackets.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[from..].iter().enumerate() {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && token.text == "}" {
                    return from + offset + 1;
                }
            }
            ";" if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Every path and plain word that stands for itself: not one after a dot.
pub(crate) fn paths(tokens: &[Token]) -> Vec<PathUse> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let after_dot = at > 0 && tokens[at - 1].text == "." && !(at > 1 && tokens[at - 2].text == ".");
        if is_word(&tokens[at]) && !after_dot {
            at = path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn path(tokens: &[Token], from: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let mut parts = prefix.to_vec();
    let mut at = from;
    while tokens.get(at).is_some_and(is_word) {
        parts.push(tokens[at].text.clone());
        at += 1;
        if !matches(tokens, at, ": :") {
            break;
        }
        at += 2;
    }
    if at > from + 1 && tokens.get(at).is_some_and(|t| t.text == "{") && matches(tokens, at - 2, ": :") {
        at += 1;
        while tokens.get(at).is_some_and(|t| t.text != "}") {
            at = if is_word(&tokens[at]) { path(tokens, at, &parts, found) } else { at + 1 };
        }
        return at + 1;
    }
    let is_macro = tokens.get(at).is_some_and(|t| t.text == "!") && tokens.get(at + 1).is_none_or(|t| t.text != "=");
    found.push(PathUse { parts, line: tokens[from].line, is_macro });
    at
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> String {
        tokens(source).iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn path_texts(source: &str) -> Vec<String> {
        paths(&tokens(source)).iter().map(|p| p.parts.join("::") + if p.is_macro { "!" } else { "" }).collect()
    }

    #[test]
    fn passes_over_comments_and_literals() {
        assert_eq!(texts("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(texts(r##"a "b \" c" r#"d " e"# b"f" br"g\" c"h" i"##), "a i");
        assert_eq!(texts(r"f::<'a>('\'', 'b', '\u{1}', b'c') d"), "f : : < a > ( , , , b ) d");
        assert_eq!(tokens("a\n\n\"x\n\"\nb")[1].line, 5);
    }

    #[test]
    fn writes_out_use_trees() {
        assert_eq!(
            path_texts("use crate::{model::{A, b::C}, event};"),
            ["use", "crate::model::A", "crate::model::b::C", "crate::event"]
        );
        assert_eq!(
            path_texts("::russh::x(a.clap, ..env, x != y, print!())"),
            ["russh::x", "a", "env", "x", "y", "print!"]
        );
    }

    #[test]
    fn takes_test_code_out() {
        let source = "a #[cfg(test)] mod tests { b { c } } d #[cfg(test)] #[x] mod fake; e #[cfg(test)] fn f() {} g";
        let (kept, files) = without_tests(&tokens(source)).unwrap();
        assert_eq!(kept.iter().map(|t| t.text.as_str()).collect::<String>(), "adeg");
        assert_eq!(files, ["fake"]);
        assert!(without_tests(&tokens("//! x\n#![cfg(test)]\nfn f() {}")).is_none());
        assert!(without_tests(&tokens("#[cfg(not(test))] fn f() {}")).unwrap().0.len() > 9);
    }
}
