//! What a token says about itself, read offline and **unverified**: good for refusing a wrong token before anybody is
//! asked, never as a proof.

use std::fmt;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The longest token that is looked at.
const LONGEST: usize = 16 * 1024;

/// What a token says about itself. Those of old say only whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// Whose it is.
    pub identity_id: String,
    /// What that one is called.
    pub identity_name: Option<String>,
    /// The token's id.
    pub identity_access_token_id: String,
    /// `identityAccessToken`.
    pub auth_token_type: String,
    /// `token-auth`, `universal-auth`, …
    pub auth_method: Option<String>,
    /// The organization.
    pub org_id: Option<String>,
    /// Whether it holds from some addresses only.
    pub ip_restriction_enabled: Option<bool>,
    /// How often it may be used.
    pub num_uses_limit: Option<i64>,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970. Without it, it is refused nowadays.
    pub exp: Option<i64>,
}

/// Text that is no token of a machine identity. The text is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It begins or ends with blanks or quotes.
    #[error("the token has blanks, quotes or line ends around it")]
    Wrapped,
    /// It is a service token of old.
    #[error("it is a service token, not one of a machine identity")]
    ServiceToken,
    /// It does not have three parts with points between them.
    #[error("it is not a token: it does not have three parts with points between them")]
    Shape,
    /// Its claims cannot be read.
    #[error("its claims cannot be read: it was cut or changed")]
    Claims,
    /// It is a token of a person or of something else.
    #[error("it is not a machine identity's access token")]
    Kind,
}

impl Claims {
    /// Reads the claims of a token.
    ///
    /// # Errors
    /// When it is not the token of a machine identity.
    pub fn read(token: &SecretString) -> Result<Self, BadToken> {
        let text = token.expose_secret();
        let wraps = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`');
        if text.starts_with(wraps) || text.ends_with(wraps) {
            return Err(BadToken::Wrapped);
        }
        if text.starts_with("st.") {
            return Err(BadToken::ServiceToken);
        }
        let mut parts = text.split('.');
        let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadToken::Shape);
        };
        if head.is_empty() || signature.is_empty() || text.len() > LONGEST {
            return Err(BadToken::Shape);
        }
        let claims = Self::of_payload(body).ok_or(BadToken::Claims)?;
        if claims.auth_token_type == "identityAccessToken" { Ok(claims) } else { Err(BadToken::Kind) }
    }

    /// Reads the middle part of a token, which opens nothing by itself; `None` when it holds no claims of a token.
    #[must_use]
    pub fn of_payload(payload: &str) -> Option<Self> {
        if payload.len() > LONGEST {
            return None;
        }
        serde_json::from_slice(&decode(payload)?).ok()
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.exp.and_then(|exp| Timestamp::from_second(exp).ok())
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = crate::service::http::clean;
        let name = self.identity_name.as_deref().map(clean);
        write!(f, "token {} of {}", clean(&self.identity_access_token_id), clean(&self.identity_id))?;
        if let Some(name) = name {
            write!(f, " ({name})")?;
        }
        match self.expires() {
            Some(end) => write!(f, ", until {}", end.strftime("%Y-%m-%d %H:%M UTC")),
            None => f.write_str(", without an end"),
        }
    }
}

/// Base64 for addresses, without padding.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut held) = (0, 0u32);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        held = ((held << 6) | u32::from(six)) & 0xf_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // {"identityId":"i","identityAccessTokenId":"t","authTokenType":"identityAccessToken","iat":1}
    const OLD: &str = "eyJpZGVudGl0eUlkIjoiaSIsImlkZW50aXR5QWNjZXNzVG9rZW5JZCI6InQiLCJhdXRoVG9rZW5UeXBlIjoiaWRlbnRpdHlBY2Nlc3NUb2tlbiIsImlhdCI6MX0";

    fn read(text: &str) -> Result<Claims, BadToken> {
        Claims::read(&SecretString::from(text))
    }

    #[test]
    fn the_old_form_is_read_too() {
        let claims = read(&format!("eyJ.{OLD}.sig")).unwrap();
        assert_eq!((claims.identity_id.as_str(), claims.exp, claims.expires()), ("i", None, None));
        assert_eq!(claims.to_string(), "token t of i, without an end");
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for (text, problem) in [
            (format!(" eyJ.{OLD}.sig"), BadToken::Wrapped),
            (format!("\"eyJ.{OLD}.sig\""), BadToken::Wrapped),
            (format!("eyJ.{OLD}.sig\n"), BadToken::Wrapped),
            ("st.test.token.x".to_owned(), BadToken::ServiceToken),
            ("test-token-1".to_owned(), BadToken::Shape),
            (format!("eyJ.{OLD}."), BadToken::Shape),
            ("a.b.c.d".to_owned(), BadToken::Shape),
            ("eyJ.!.sig".to_owned(), BadToken::Claims),
            ("eyJ.e30.sig".to_owned(), BadToken::Claims),
        ] {
            assert_eq!(read(&text), Err(problem), "{text}");
        }
    }
}
