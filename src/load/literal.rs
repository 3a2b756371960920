//! Literal secrets in text: what they look like, and which keys would hold one.
//!
//! The patterns lean towards saying yes: a false alarm costs a renamed key, a miss costs a credential in a file or
//! on a screen. Host keys, fingerprints and certificates are public and are not secrets.

use std::ops::Range;

/// A place in a text that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// What it looks like, with its article.
    pub(super) kind: &'static str,
}

/// Prefixes that issuers put before their tokens, the fewest characters that follow, and what the token is.
const PREFIXES: &[(&str, usize, &str)] = &[
    ("ghp_", 10, "a GitHub token"),
    ("gho_", 10, "a GitHub token"),
    ("ghu_", 10, "a GitHub token"),
    ("ghs_", 10, "a GitHub token"),
    ("ghr_", 10, "a GitHub token"),
    ("github_pat_", 10, "a GitHub token"),
    ("glpat-", 10, "a GitLab token"),
    ("glrt-", 10, "a GitLab token"),
    ("gldt-", 10, "a GitLab token"),
    ("xoxb-", 8, "a Slack token"),
    ("xoxa-", 8, "a Slack token"),
    ("xoxp-", 8, "a Slack token"),
    ("xoxs-", 8, "a Slack token"),
    ("xapp-", 8, "a Slack token"),
    ("sk-", 20, "an API key"),
    ("sk_live_", 10, "an API key"),
    ("rk_live_", 10, "an API key"),
    ("hvs.", 10, "a Vault token"),
    ("hvb.", 10, "a Vault token"),
    ("npm_", 20, "an npm token"),
    ("dop_v1_", 10, "a DigitalOcean token"),
    ("doo_v1_", 10, "a DigitalOcean token"),
    ("dckr_pat_", 10, "a Docker token"),
    ("pypi-AgE", 10, "a package index token"),
    ("AIza", 30, "an API key"),
    ("AGE-SECRET-KEY-1", 10, "an age key"),
    ("tskey-", 10, "an access key"),
];

/// How far before a value its key is looked for.
const FARTHEST: usize = 200;

/// Last words of key names whose value is a secret.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "private_key",
    "secret_key",
    "access_key",
    "credential",
    "credentials",
];

/// Every place in `text` that looks like a secret, in order, none inside another.
pub(super) fn find(text: &str) -> Vec<Literal> {
    literals(text).collect()
}

/// Whether any part of the text looks like a secret.
pub(super) fn looks_secret(text: &str) -> bool {
    literals(text).next().is_some()
}

fn literals(text: &str) -> impl Iterator<Item = Literal> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut no_jwt_before = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            if let Some((end, kind)) = literal_at(bytes, start, &mut no_jwt_before) {
                at = end.max(start + 1);
                return Some(Literal { span: start..end, kind });
            }
            at += 1;
        }
        None
    })
}

/// Whether a key of this name holds a secret: `password`, `registry_token`, `clientSecret`, but not `token_file`.
pub(super) fn secret_key(name: &str) -> bool {
    let flat: String = name
        .chars()
        .flat_map(|c| {
            let word_break = c.is_ascii_uppercase().then_some('_');
            let c = if matches!(c, '-' | '.' | ' ') { '_' } else { c.to_ascii_lowercase() };
            word_break.into_iter().chain([c])
        })
        .collect();
    // An all-capital name has a break before each letter; without them it is the plain lower-case name.
    let plain = name.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    [flat.as_str(), plain.as_str()].iter().any(|name| {
        SECRET_WORDS
            .iter()
            .any(|word| name.strip_suffix(word).is_some_and(|before| before.is_empty() || before.ends_with('_')))
    })
}

/// Whether `key = "value"` writes a secret down, judged by the key: a path or a template is only a reference.
pub(super) fn names_a_secret(key: &str, value: &str) -> bool {
    let reference = value.starts_with(['/', '~']) || value.starts_with("./") || value.contains("{{");
    secret_key(key) && !value.trim().is_empty() && !reference
}

/// The lines of `text` that give a secret-looking key a value which is not a table, by text alone: it also works
/// where the file is no valid TOML.
pub(super) fn suspicious_lines(text: &str) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if assigns_secret(line) {
            lines.push(start..start + line.len());
        }
        start += line.len();
    }
    lines
}

fn assigns_secret(line: &str) -> bool {
    line.match_indices(['=', ':']).any(|(at, _)| {
        let (before, after) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
        let key = last_word(before);
        let value = after.trim_start().trim_end();
        // `place = { secret = "token" }` names a secret and is the most common line of a playbook.
        let names_one = key == "secret" && quoted_name(value);
        secret_key(key) && !value.is_empty() && !value.starts_with(['{', '=']) && !names_one
    })
}

/// The last key-like word of a text, without quotes.
fn last_word(text: &str) -> &str {
    let text = text.trim_end().trim_end_matches(['"', '\'']);
    let start = text
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
        .map_or(0, |at| at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
    text.get(start..).unwrap_or_default()
}

/// Whether the text starts with a short quoted name such as `"token"`.
fn quoted_name(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('"') else { return false };
    let name: &str = rest.split('"').next().unwrap_or_default();
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// `no_jwt_before` saves looking at one long word again from each of its letters.
fn literal_at(bytes: &[u8], at: usize, no_jwt_before: &mut usize) -> Option<(usize, &'static str)> {
    let rest = bytes.get(at..)?;
    let before = at.checked_sub(1).and_then(|i| bytes.get(i)).copied();
    let boundary = before.is_none_or(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')));
    if at >= *no_jwt_before && rest.starts_with(b"eyJ") {
        match jwt(rest) {
            Ok(len) => return Some((at + len, "a JSON web token")),
            Err(header) => *no_jwt_before = at + header,
        }
    }
    if let Some(len) = private_key(rest) {
        return Some((at + len, "a private key"));
    }
    if let Some(len) = url_password(rest) {
        return Some((at + len, "a password in an address"));
    }
    if let Some(len) = rest.strip_prefix(b"Bearer ").map(|r| run(r, token_byte)).filter(|len| *len >= 16) {
        return Some((at + 7 + len, "a bearer token"));
    }
    if !boundary {
        return None;
    }
    if let Some(found) = prefixed(rest) {
        return Some((at + found.0, found.1));
    }
    let hex = run(rest, |b| b.is_ascii_hexdigit());
    let closed = rest.get(hex).is_none_or(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')));
    (hex >= 32 && closed && behind_secret_key(bytes.get(..at)?)).then_some((at + hex, "a token in hex"))
}

fn prefixed(rest: &[u8]) -> Option<(usize, &'static str)> {
    for (prefix, least, kind) in PREFIXES {
        let Some(tail) = rest.strip_prefix(prefix.as_bytes()) else { continue };
        // `sk-ssh-ed25519@openssh.com` is the type of a public host key.
        if *prefix == "sk-" && (tail.starts_with(b"ssh-") || tail.starts_with(b"ecdsa-")) {
            continue;
        }
        let len = run(tail, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if len >= *least {
            return Some((prefix.len() + len, kind));
        }
    }
    for prefix in [b"AKIA", b"ASIA"] {
        let Some(tail) = rest.strip_prefix(prefix) else { continue };
        let len = run(tail, |b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if len >= 16 {
            return Some((4 + len, "an AWS access key"));
        }
    }
    let tail = rest.strip_prefix(b"st.")?;
    let len = run(tail, |b| b.is_ascii_hexdigit());
    (len >= 8).then(|| (3 + run(tail, token_byte), "an Infisical service token"))
}

/// The length of `header.payload` and, if it is there, `.signature`: the header is `{"…` in base64. Otherwise the
/// length of what might have been the header: no other token can begin in it, for it would end in the same place.
fn jwt(rest: &[u8]) -> Result<usize, usize> {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let header = run(rest, base64url);
    let part = |at: usize| rest.get(at..).and_then(|tail| tail.strip_prefix(b".")).map(|tail| run(tail, base64url));
    let Some(payload) = part(header).filter(|payload| header >= 9 && *payload >= 4) else { return Err(header) };
    let end = header + 1 + payload;
    Ok(part(end).map_or(end, |signature| end + 1 + signature))
}

/// A PEM or OpenSSH private key: everything to its end line, or to the end of the text.
fn private_key(rest: &[u8]) -> Option<usize> {
    let tail = rest.strip_prefix(b"-----BEGIN ")?;
    let title = run(tail, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
    if !contains(tail.get(..title)?, b"PRIVATE KEY") {
        return None;
    }
    let end = b"-----END ";
    let Some(at) = rest.windows(end.len()).position(|window| window == end) else { return Some(rest.len()) };
    let after = rest.get(at + end.len()..)?;
    Some(at + end.len() + run(after, |b| !matches!(b, b'\n' | b'"' | b'\'')))
}

/// `://user:password@`.
fn url_password(rest: &[u8]) -> Option<usize> {
    let tail = rest.strip_prefix(b"://")?;
    let part = |b: u8| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'@' | b':' | b'"' | b'\'' | b'{' | b'}' | b'$');
    let user = run(tail, part);
    let password = run(tail.get(user..)?.strip_prefix(b":")?, |b| part(b) || b == b':');
    let end = 3 + user + 1 + password;
    (password > 0 && rest.get(end) == Some(&b'@')).then_some(end)
}

/// Whether the nearest `=` or `:` on this line belongs to a key with a secret-looking word in it.
fn behind_secret_key(before: &[u8]) -> bool {
    let near = before.get(before.len().saturating_sub(FARTHEST)..).unwrap_or_default();
    let line = near.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let Some(at) = line.iter().rposition(|b| matches!(b, b'=' | b':')) else { return false };
    let key: Vec<u8> = line.get(..at).unwrap_or_default().to_ascii_lowercase();
    let start = key.iter().rposition(|b| matches!(b, b'=' | b'{' | b',' | b'[')).map_or(0, |at| at + 1);
    let key = key.get(start..).unwrap_or_default();
    [b"token".as_slice(), b"secret", b"password", b"passwd", b"credential", b"api_key", b"apikey", b"api-key"]
        .iter()
        .any(|word| contains(key, word))
}

fn token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'/' | b'=' | b'~')
}

fn run(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| accept(**b)).count()
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_each_kind_are_found_whole() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        for (text, secret) in [
            ("x = \"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2ln\"", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2ln"),
            ("# was ghp_0123456789abcdef", "ghp_0123456789abcdef"),
            ("key AKIAABCDEFGHIJKLMNOP.", "AKIAABCDEFGHIJKLMNOP"),
            ("st.0a1b2c3d4e5f.rest.of-it", "st.0a1b2c3d4e5f.rest.of-it"),
            ("sk-abcdefghijklmnopqrstuvwx", "sk-abcdefghijklmnopqrstuvwx"),
            ("https://bob:hunter2@example.net/", "://bob:hunter2"),
            ("forge_token = \"0123456789abcdef0123456789abcdef01234567\"", hex),
            ("a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\nc", ""),
        ] {
            let found = find(text);
            assert_eq!(found.len(), 1, "{text}");
            if !secret.is_empty() {
                assert_eq!(&text[found[0].span.clone()], secret);
            }
            assert!(looks_secret(text));
        }
        assert_eq!(find("-----BEGIN EC PRIVATE KEY-----\nMHc\nno end")[0].span, 0..41);
    }

    #[test]
    fn public_things_are_no_secrets() {
        for text in [
            "host_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZha2VmYWtlZmFrZWZha2VmYWtlZmFrZWZha2VmYWtlZmFr\"",
            "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
            "sk-ecdsa-sha2-nistp256@openssh.com AAAA",
            "fingerprint = \"sha256:3f1c09b2a4de\"",
            "fingerprint = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
            "ref = \"0123456789abcdef0123456789abcdef01234567\"",
            "-----BEGIN CERTIFICATE-----",
            "url = \"https://git.example.net:3000/x\"",
            "first.last.0a1b2c3d",
            "token_file = \"{{ data_dir }}/infisical-token-auth-token\"",
        ] {
            assert_eq!(find(text), [], "{text}");
        }
    }

    #[test]
    fn keys_are_judged_by_their_last_word() {
        for key in ["password", "token", "FORGE_TOKEN", "client_secret", "clientSecret", "api-key", "db.password"] {
            assert!(secret_key(key), "{key}");
        }
        for key in ["token_file", "tokens_dir", "secretary", "broken", "token_auth", "data_dir", "compass"] {
            assert!(!secret_key(key), "{key}");
        }
        assert!(names_a_secret("token", "x") && !names_a_secret("token", "/run/x") && !names_a_secret("token", ""));
    }

    #[test]
    fn lines_that_assign_a_secret_are_suspicious_also_in_broken_text() {
        let line = |text: &str| !suspicious_lines(text).is_empty();
        for text in ["token = hunter2", "a = { password=\"x\" ", "client_secret = [\"x\"", "\"token\" : 5"] {
            assert!(line(text), "{text}");
        }
        for text in
            ["place = { secret = \"token\", path = \"/x\" }", "token = { from = \"prompt\" }", "token_file = \"x\""]
        {
            assert!(!line(text), "{text}");
        }
    }
}
