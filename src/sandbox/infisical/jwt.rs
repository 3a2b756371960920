//! The stand-in's tokens: three parts with points between them as the real ones, the claims that were recorded, and a
//! signature that nobody but this stand-in takes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::reply::{No, not_found, token_error, unauthorized};
use super::world::{Identity, Token, World, new_id};

/// The longest life of a token, in seconds, whatever is configured.
pub(super) const LONGEST: i64 = 7_776_000;
const MALFORMED: &str =
    "The provided access token is malformed. Please use a valid token or generate a new one and try again.";
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for addresses, without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let joined = chunk.iter().fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let six = (joined >> (18 - 6 * at)) & 63;
            let letter = LETTERS.get(usize::try_from(six).unwrap_or_default()).copied().unwrap_or(b'A');
            text.push(char::from(letter));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0u32);
    for letter in text.bytes() {
        let six = LETTERS.iter().position(|own| *own == letter)?;
        held = (held << 6) | u32::try_from(six).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 255).ok()?);
        }
    }
    Some(bytes)
}

impl World {
    fn sign(&self, head_and_body: &str) -> String {
        encode(&Sha256::digest(format!("{} {head_and_body}", self.key)))
    }

    fn write(&self, claims: &Value) -> String {
        let head = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
        format!("{signed}.{}", self.sign(&signed))
    }

    /// Mints a token; its value and what is kept of it.
    pub(super) fn mint(
        &mut self,
        identity: &Identity,
        name: Option<&str>,
        (method, ttl, max_ttl, limit): (&'static str, i64, i64, i64),
    ) -> (String, Token) {
        let now = self.clock.now();
        let capped = if ttl == 0 { LONGEST } else { ttl.min(LONGEST) };
        let token = Token {
            id: new_id(),
            identity: identity.id.clone(),
            name: name.map(str::to_owned),
            method,
            ttl: capped,
            max_ttl,
            limit,
            used: 0,
            issued: now / 1000,
            expires: Some(now / 1000 + capped),
            revoked: false,
            listed_as_revoked: false,
            times: (now, now),
        };
        let value = self.value_of(&token, identity, now);
        self.tokens.push(token.clone());
        self.with_identity(&identity.id, |identity| identity.seen = Some((method, now)));
        (value, token)
    }

    fn value_of(&self, token: &Token, identity: &Identity, now: i64) -> String {
        let mut claims = json!({
            "identityId": identity.id, "identityName": identity.name, "authMethod": token.method,
            "orgId": identity.org, "rootOrgId": identity.org, "parentOrgId": identity.org, "clientSecretId": "",
            "identityAccessTokenId": token.id, "ipRestrictionEnabled": false, "accessTokenTTL": token.ttl,
            "accessTokenMaxTTL": token.max_ttl, "accessTokenPeriod": 0, "creationEpoch": token.times.0 / 1000,
            "authTokenType": "identityAccessToken", "identityAuth": {}, "iat": now / 1000,
        });
        if let Some(object) = claims.as_object_mut() {
            if token.limit > 0 {
                object.insert("numUsesLimit".to_owned(), token.limit.into());
            }
            if let Some(expires) = token.expires {
                object.insert("exp".to_owned(), expires.into());
            }
            object.insert("jti".to_owned(), token.id.clone().into());
        }
        self.write(&claims)
    }

    /// Mints a token as an operator would find it: by a test, past all rules. With `expires: None` it is one of the
    /// old tokens, which never end and are refused now.
    pub fn mint_past_rules(&mut self, identity: &str, name: &str, expires: Option<i64>) -> String {
        let Some(identity) = self.identity(identity).cloned() else { return String::new() };
        let (_, token) = self.mint(&identity, Some(name), ("token-auth", 2_592_000, 2_592_000, 0));
        let Some(kept) = self.tokens.iter_mut().find(|kept| kept.id == token.id) else { return String::new() };
        kept.expires = expires;
        let kept = kept.clone();
        if expires.is_some() {
            return self.value_of(&kept, &identity, kept.times.0);
        }
        self.write(&json!({
            "identityId": identity.id, "identityAccessTokenId": kept.id, "authTokenType": "identityAccessToken",
            "iat": kept.issued,
        }))
    }

    /// The next value of a token: another text, the same id.
    pub(super) fn renew(&mut self, value: &str) -> Result<Value, No> {
        let id = self.read(value, "Cannot renew")?;
        let now = self.clock.now();
        let Some(token) = self.tokens.iter_mut().find(|token| token.id == id) else { return Err(not_found("token")) };
        let (limit, used) = (token.limit, token.used);
        if limit > 0 && used >= limit {
            return Err(unauthorized("Cannot renew exhausted access token"));
        }
        let end = token.times.0 / 1000 + if token.max_ttl == 0 { LONGEST } else { token.max_ttl };
        let expires = (now / 1000 + token.ttl).min(end);
        token.expires = Some(expires);
        let token = token.clone();
        let identity = self.identity(&token.identity).cloned().ok_or_else(|| not_found("identity"))?;
        let value = self.value_of(&token, &identity, now);
        let left = expires - now / 1000;
        Ok(json!({
            "accessToken": value, "expiresIn": left, "accessTokenMaxTTL": token.max_ttl, "tokenType": "Bearer",
        }))
    }

    /// The id of a token that is good so far: whole, signed, not expired, not revoked. `what` begins the refusals.
    pub(super) fn read(&self, value: &str, what: &str) -> Result<String, No> {
        let parts: Vec<&str> = value.split('.').collect();
        let [head, body, signature] = parts.as_slice() else { return Err(token_error(MALFORMED)) };
        if decode(head).is_none_or(|head| !head.starts_with(b"{")) || signature.ends_with('"') {
            return Err(token_error("invalid token"));
        }
        if signature.is_empty() {
            return Err(token_error("jwt signature is required"));
        }
        if self.sign(&format!("{head}.{body}")) != **signature {
            return Err(token_error("invalid signature"));
        }
        let claims = decode(body).and_then(|body| serde_json::from_slice::<Value>(&body).ok()).unwrap_or_default();
        let text = |key: &str| claims.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| claims.get(key).and_then(Value::as_i64);
        let now = self.clock.now();
        if number("exp").is_some_and(|expires| expires <= now / 1000) {
            return Err(token_error("Your token has expired. Please re-authenticate."));
        }
        if number("exp").is_none() {
            return Err(unauthorized("Identity access token exceeded max age, please re-authenticate"));
        }
        let colon = |why: &str| unauthorized(&format!("{what}: {why}"));
        let id = text("identityAccessTokenId");
        let token = self.tokens.iter().find(|token| token.id == id);
        let Some(token) = token.filter(|token| !token.revoked) else { return Err(colon("token has been revoked")) };
        let identity = self.identities.iter().find(|identity| identity.id == token.identity);
        let Some(identity) = identity else { return Err(colon("token has been revoked")) };
        if identity.deleted {
            return Err(match identity.project {
                Some(_) => colon("identity tokens have been revoked"),
                None => unauthorized("Identity is not a member of the organization"),
            });
        }
        // The token's time is in whole seconds, the detachment's is not.
        let issued = number("iat").unwrap_or_default() * 1000;
        if token.method == "token-auth" && identity.detached.is_some_and(|detached| issued < detached) {
            return Err(colon("auth method has been revoked"));
        }
        Ok(token.id.clone())
    }

    /// Who asks: the identity's id.
    pub(super) fn caller(&mut self, authorization: Option<&str>) -> Result<String, No> {
        let Some(header) = authorization else { return Err(unauthorized("Token missing")) };
        // The scheme is never looked at.
        let value = header.get(7..).unwrap_or_default();
        if value.is_empty() {
            return Err(token_error("jwt must be provided"));
        }
        if let Some(rest) = value.strip_prefix("st.") {
            let id = rest.split('.').next().unwrap_or_default();
            return Err(not_found(format!("Service token with ID '{id}' not found")));
        }
        let id = self.read(value, "Failed to authorize")?;
        let Some(token) = self.tokens.iter_mut().find(|token| token.id == id) else {
            return Err(unauthorized("Failed to authorize: token has been revoked"));
        };
        if token.limit > 0 && token.used >= token.limit {
            return Err(unauthorized("Failed to authorize: token usage limit reached"));
        }
        token.used += 1;
        Ok(token.identity.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for text in ["", "a", "ab", "abc", "abcd", "{\"a\":1}"] {
            assert_eq!(decode(&encode(text.as_bytes())).unwrap(), text.as_bytes());
        }
        assert_eq!(encode(b"{\"a"), "eyJh");
    }
}
