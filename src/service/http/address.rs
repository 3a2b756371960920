//! Which addresses may be asked: `https` anywhere, plain `http` only to this machine.

use std::net::IpAddr;

use reqwest::Url;

use super::HttpError;

/// An address that may be asked.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// The address, without credentials and fragment.
    pub(super) url: Url,
    /// Plain `http`, and therefore loopback.
    pub(super) plain: bool,
}

impl Address {
    /// Checks an address. `query` says whether it may hold one.
    ///
    /// The refusal never repeats the address: what is wrong with it may be that it holds a password.
    pub(super) fn parse(text: &str, query: bool) -> Result<Self, HttpError> {
        let bad = |reason: &str| Err(HttpError::Address { reason: reason.to_owned() });
        let Ok(url) = Url::parse(text) else {
            return bad("it is not of the form `https://HOST[:PORT][/PATH]`");
        };
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return bad("it is neither https nor http"),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return bad("it names no host");
        }
        if plain && !is_loopback(&url) {
            return bad("plain http is allowed only to loopback; use https");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return bad("it holds a user name or a password");
        }
        if url.fragment().is_some() || (!query && url.query().is_some()) {
            return bad("it holds more than a host, a port and a path");
        }
        Ok(Self { url, plain })
    }
}

/// Scheme, host, port and path: what an error may say about an address.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), super::clean(url.path()))
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    if host == "localhost" {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_to_loopback() {
        for good in ["http://127.0.0.1:3000", "http://[::1]/x", "http://localhost:1", "https://git.example.net/forge/"]
        {
            assert!(Address::parse(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://git.example.net",
            "http://127.0.0.1.example.net",
            "http://localhost.example.net",
            "http://10.0.0.1",
            "http://[::2]",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "git.example.net",
            "https://",
            "https://user:test-token-9@git.example.net",
            "https://user@git.example.net",
            "https://git.example.net/?token=test-token-9",
            "https://git.example.net/#x",
        ] {
            let refusal = Address::parse(bad, false).expect_err(bad).to_string();
            assert!(!refusal.contains("test-token"), "{refusal}");
        }
        assert!(Address::parse("https://git.example.net/?page=1", true).is_ok());
    }

    #[test]
    fn what_is_shown_has_no_query() {
        let address = Address::parse("https://git.example.net:8443/a/b?token=test-token-9", true).unwrap();
        assert_eq!(shown(&address.url), "https://git.example.net:8443/a/b");
    }
}
