//! Small checks of single values: lengths of time, names, addresses, modes.
//!
//! Everything that later becomes a part of a command, a path or a request on a host is held to a plain alphabet
//! here, so that nothing downstream depends on quoting alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::diag::{did_you_mean, quoted};
use super::literal;

/// Longer waits than this are a slip of the pen.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is wrong with a value, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// The value may be a secret, so its line is not drawn.
    pub(super) hide: bool,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, hide: false }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn hidden(mut self) -> Self {
        self.hide = true;
        self
    }
}

/// A length of time: `90s`, `10m`, `1m 30s`, `250ms`, `2d`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong = |why: &str| {
        let number = text.trim();
        let help = match !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            true => format!("write `\"{number}s\"`"),
            false => "write it like `90s`, `10m`, `1m 30s` or `250ms`".to_owned(),
        };
        Problem::new(format!("{} {why}", quoted(text))).help(help)
    };
    let span: Span = text.trim().parse().map_err(|_| wrong("is no length of time"))?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| {
        // Months and years have no fixed length.
        wrong("is no fixed length of time")
    })?;
    let length = Duration::try_from(signed).map_err(|_| wrong("lies in the past"))?;
    if length > LONGEST { Err(wrong("is longer than a year")) } else { Ok(length) }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let near = did_you_mean(text, words.iter().map(|(word, _)| *word));
    let all = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    Err(Problem::new(format!("unknown value {}{near}", quoted(text))).help(format!("one of {all}")))
}

/// A variable's name as templates can use it.
pub(super) fn variable_name(text: &str) -> Result<(), Problem> {
    const WORDS: &[&str] = &["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "loop", "self"];
    let mut chars = text.chars();
    let shape = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !shape {
        let help = "letters, digits and `_`, and no digit first";
        return Err(Problem::new(format!("{} is no name for a variable", quoted(text))).help(help));
    }
    if WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(Problem::new(format!("{} has a meaning of its own in templates", quoted(text))));
    }
    if text == HOST_VARIABLE {
        return Err(Problem::new(format!("`{HOST_VARIABLE}` is set by keyswap: the host's name in the inventory")));
    }
    Ok(())
}

/// The variable that every host has.
pub(super) const HOST_VARIABLE: &str = "inventory_hostname";

/// An environment variable's name.
pub(super) fn env_name(text: &str) -> Result<String, Problem> {
    let mut chars = text.chars();
    let shape = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if shape && text.len() <= 128 {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("{} is no name for an environment variable", quoted(text)))
        .help("letters, digits and `_`, and no digit first"))
}

/// A text of plain characters: letters, digits and `extra`, not starting with `-`.
pub(super) fn plain(text: &str, what: &str, extra: &str, longest: usize) -> Result<String, Problem> {
    let good = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if literal::looks_secret(text) {
        return Err(Problem::new(format!("what stands for {what} looks like a secret")).hidden());
    }
    if text.is_empty() || text.len() > longest || text.starts_with('-') {
        return Err(Problem::new(format!("{} is no {what}", quoted(text))));
    }
    match text.chars().find(|c| !good(*c)) {
        None => Ok(text.to_owned()),
        Some(bad) => {
            let bad = bad.escape_debug();
            Err(Problem::new(format!("{} is no {what}: `{bad}` may not stand in it", quoted(text))))
        }
    }
}

/// `owner/name`.
pub(super) fn repository(text: &str) -> Result<String, Problem> {
    let text = plain(text, "repository", "._-/", 200)?;
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [owner, name] if !owner.is_empty() && !name.is_empty() && ![".", ".."].contains(name) => Ok(text),
        _ => Err(Problem::new(format!("{} is no repository", quoted(&text))).help("write it as `owner/name`")),
    }
}

/// Permission bits for a secret: octal, owner only, readable.
pub(super) fn mode(text: &str) -> Result<u32, Problem> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = u32::from_str_radix(digits, 8).ok().filter(|_| octal).ok_or_else(|| {
        Problem::new(format!("{} is no file mode", quoted(text))).help("octal digits, as in `\"0600\"`")
    })?;
    if bits & !0o700 != 0 {
        let whom = if bits & 0o077 != 0 { "would let group or others at the secret" } else { "sets special bits" };
        return Err(Problem::new(format!("mode `{text}` {whom}")).help("use `\"0600\"` or `\"0400\"`"));
    }
    if bits & 0o400 == 0 {
        return Err(Problem::new(format!("mode `{text}` keeps even the owner from reading")).help("use `\"0600\"`"));
    }
    Ok(bits)
}

/// A server's address: `https`, or `http` to this machine; no user, query or fragment.
pub(super) fn url(text: &str) -> Result<String, Problem> {
    if literal::looks_secret(text) {
        return Err(Problem::new("the address looks like it holds a secret").hidden());
    }
    let wrong = |why: &str| Problem::new(format!("{} {why}", quoted(text)));
    let (plain, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(wrong("is no web address").help("it starts with `https://`")),
    };
    let host_and_port = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host_and_port.contains('@') {
        return Err(Problem::new("an address may not hold a user or a password").hidden());
    }
    if text.contains(['#', '\\', '"', '<', '>', '^', '`', '{', '|', '}'])
        || text.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err(wrong("holds a character that an address cannot hold"));
    }
    let (host, port) = host_port(host_and_port).ok_or_else(|| wrong("names no host"))?;
    if port == Some(0) {
        return Err(wrong("has no valid port"));
    }
    if plain && !is_loopback(&host) {
        return Err(wrong("is plain http to another machine").help("use https; http is for loopback only"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Whether a host name can only mean this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; the host without brackets.
pub(super) fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text.to_owned(), None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    address(host).ok().map(|host| (host, port))
}

/// A DNS name or an IP address.
pub(super) fn address(text: &str) -> Result<String, Problem> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    // fe80::1%eth0
    let v6 = bare.split('%').next().is_some_and(|part| part.parse::<Ipv6Addr>().is_ok())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '%' | '.' | '-' | '_'));
    if v6 || text.parse::<Ipv4Addr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let name = plain(text, "address", ".-_", 253)?;
    if name.starts_with('.') || name.contains("..") {
        return Err(Problem::new(format!("{} is no address", quoted(&name))));
    }
    Ok(name)
}

/// A login or file owner: a name or a number.
pub(super) fn user(text: &str) -> Result<String, Problem> {
    // Directory services have users such as `ops@example.net`.
    plain(text, "user or group", "._-@$", 64)
}

/// One of the names that are known.
pub(super) fn known_name(text: &str, known: &[&str]) -> Result<String, Problem> {
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    let near = did_you_mean(text, known.iter().copied());
    Err(Problem::new(format!("{} cannot be used here{near}", quoted(text)))
        .help(format!("what can be: {}", known.join(", "))))
}

/// A public host key: a type and a base64 blob, maybe a comment.
pub(super) fn host_key(text: &str) -> Result<String, Problem> {
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return Err(Problem::new("a host key is a type and its key").help("such as `ssh-ed25519 AAAA…`"));
    };
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|start| kind.starts_with(start));
    let base64 = blob.starts_with("AAAA")
        && blob.len() >= 40
        && blob.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    if !known || !base64 || text.chars().any(char::is_control) {
        return Err(Problem::new(format!("{} is no public host key", quoted(text)))
            .help("a line of `ssh-keyscan` without the host name, such as `ssh-ed25519 AAAA…`"));
    }
    Ok(format!("{kind} {blob}"))
}

/// `sha256:` and 12 to 64 hex digits.
pub(super) fn fingerprint(text: &str) -> Result<String, Problem> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let shape = (12..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if shape {
        return Ok(text.to_owned());
    }
    // Whatever stands here instead may be the credential itself.
    Err(Problem::new("this is no fingerprint").help("`sha256:` and 12 to 64 lower-case hex digits").hidden())
}

/// A command line for `sh -c`: any text without NUL.
pub(super) fn command_line(text: &str) -> Result<String, Problem> {
    if literal::looks_secret(text) {
        return Err(Problem::new("the command line holds what looks like a secret").hidden());
    }
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Problem::new("the command line is empty or holds a NUL character"));
    }
    Ok(text.to_owned())
}

/// A word of an `argv`.
pub(super) fn word(text: &str) -> Result<String, Problem> {
    if literal::looks_secret(text) {
        return Err(Problem::new("an argument looks like a secret").hidden());
    }
    if text.contains('\0') { Err(Problem::new("an argument holds a NUL character")) } else { Ok(text.to_owned()) }
}

/// A sentence for people: one line, not empty.
pub(super) fn sentence(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() || text.chars().any(char::is_control) || text.chars().count() > 200 {
        return Err(Problem::new("must be one line of 1 to 200 characters"));
    }
    if literal::looks_secret(text) { Err(Problem::new("looks like a secret").hidden()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let good =
            [("90s", 90_000), ("10m", 600_000), ("1m 30s", 90_000), ("250ms", 250), ("2d", 172_800_000), ("0s", 0)];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "-5s", "5s ago", "1mo", "2y", "9999h", "x"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("90").unwrap_err().help.unwrap(), "write `\"90s\"`");
    }

    #[test]
    fn plain_http_goes_only_to_this_machine() {
        for text in [
            "https://git.example.net",
            "https://x:8443/base",
            "http://127.0.0.1:3000",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert_eq!(url(text).as_deref(), Ok(text));
        }
        for text in [
            "http://git.example.net",
            "http://localhost.example.net",
            "http://127.0.0.1.example.net",
            "http://127.0.0.1@example.net/",
            "http://[::2]",
            "ftp://x",
            "https://",
            "https://a b",
            "https://user:pw@x",
            "https://x\\@y",
            "https://x:99999",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_for_the_owner_alone() {
        assert_eq!((mode("0600"), mode("400"), mode("0o600")), (Ok(0o600), Ok(0o400), Ok(0o600)));
        for text in ["0640", "0604", "0200", "4600", "600x", "6", "", "0666", "00600", "+600"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_could_do_harm_are_refused() {
        assert!(address("-oProxyCommand=x").is_err() && address("a b").is_err() && address("a;b").is_err());
        assert_eq!(address("[2001:db8::1]").as_deref(), Ok("2001:db8::1"));
        assert_eq!(host_port("[2001:db8::1]:22"), Some(("2001:db8::1".to_owned(), Some(22))));
        assert_eq!(host_port("a.example.net:2222"), Some(("a.example.net".to_owned(), Some(2222))));
        assert_eq!(host_port("a:+22"), None);
        assert!(user("a b").is_err() && user("-x").is_err() && user("ops").is_ok() && user("1000").is_ok());
        assert!(repository("a/b").is_ok() && repository("a").is_err() && repository("a/b/c").is_err());
        assert!(repository("a/..").is_err() && repository("/b").is_err());
        assert!(
            env_name("A_1").is_ok() && env_name("1A").is_err() && env_name("A=B").is_err() && env_name("").is_err()
        );
        assert!(variable_name("data_dir").is_ok() && variable_name("in").is_err() && variable_name("a-b").is_err());
        assert!(host_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZha2VmYWtlZmFrZWZha2U= me").is_ok());
        assert!(host_key("ssh-ed25519").is_err() && host_key("x y").is_err());
        assert!(fingerprint("sha256:3f1c09b2a4de").is_ok() && fingerprint("hunter2").unwrap_err().hide);
    }
}
