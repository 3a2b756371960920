//! Token Auth and its tokens: minted under a name of their own, revoked by id, found again by name when the answer
//! that held the value was lost.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::claims::Claims;
use super::error::if_there;
use super::{Infisical, InfisicalError, get, wire};
use crate::model::{Fingerprint, RunId};
use crate::service::http::{Method, Request};

const PAGE: usize = 100;
/// The largest offset that the server takes.
const LAST_OFFSET: usize = 100;

/// A token's id, which is no secret: it revokes, it does not open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub String);

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an identity's tokens are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAuth {
    /// Seconds; 0 is as long as may be.
    pub ttl: u64,
    /// Seconds.
    pub max_ttl: u64,
    /// How often a token may be used; 0 is without a limit.
    pub uses: u64,
    /// Seconds by which a token may be renewed again and again; 0: it ends when it ends.
    pub period: u64,
    /// A token is taken from every address.
    pub from_anywhere: bool,
}

/// A token in a listing, without its value: that is told once, when it is minted. A listing is no proof that a token
/// is dead, nor that it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The listing says that it was revoked.
    pub is_revoked: bool,
}

/// A token that was minted just now.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Its value.
    pub value: SecretString,
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// The identity that it is for.
    pub identity: String,
    /// Its end, from its own claims.
    pub expires: Timestamp,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// None was minted, or it was revoked again.
    #[error("no token was minted{}", if .revoked.is_empty() { "" } else { " that could be used; it was revoked" })]
    Failed {
        /// Why.
        #[source]
        error: InfisicalError,
        /// What was found by its name and revoked.
        revoked: Vec<TokenId>,
    },
    /// One may be alive that nobody holds.
    #[error(
        "the answer was lost, and it cannot be said whether a token is alive or comes to life yet: `keyswap resume` looks \
         again; or revoke the token `{name}` of identity `{identity}` by hand"
    )]
    Orphan {
        /// Its name.
        name: String,
        /// Its identity.
        identity: String,
        /// What was said last.
        #[source]
        error: InfisicalError,
    },
}

/// A token's name: no two are alike, and it tells the run.
#[must_use]
pub fn token_name(run: &RunId) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let tail: String = random.chars().take(12).collect();
    format!("keyswap {run} {tail}")
}

impl Infisical {
    /// How an identity's tokens are made; `None`: it has no Token Auth.
    pub(super) async fn token_auth(&self, identity: &str) -> Result<Option<TokenAuth>, InfisicalError> {
        let reply = self.send(&get(&["api", "v1", "auth", "token-auth", "identities", identity])).await;
        let Some(reply) = if_there(reply)? else { return Ok(None) };
        let found = reply.json::<wire::OneTokenAuth>()?.identity_token_auth;
        let whole =
            |ips: &Vec<wire::TrustedIp>, kind: &str| ips.iter().any(|ip| ip.kind == kind && ip.prefix == Some(0));
        let ips = found.access_token_trusted_ips.as_ref();
        Ok(Some(TokenAuth {
            ttl: found.ttl,
            max_ttl: found.max_ttl,
            uses: found.access_token_num_uses_limit,
            period: found.access_token_period,
            from_anywhere: ips.is_none_or(|ips| whole(ips, "ipv4") && whole(ips, "ipv6")),
        }))
    }

    /// Attaches Token Auth or changes it. Tokens that are there keep the end they have.
    pub(super) async fn set_token_auth(
        &self,
        identity: &str,
        is_there: bool,
        wanted: &TokenAuth,
    ) -> Result<(), InfisicalError> {
        let path = ["api", "v1", "auth", "token-auth", "identities", identity];
        let body = json!({
            "accessTokenTTL": wanted.ttl, "accessTokenMaxTTL": wanted.max_ttl, "accessTokenNumUsesLimit": wanted.uses,
            "accessTokenTrustedIps": [{"ipAddress": "0.0.0.0/0"}, {"ipAddress": "::/0"}],
        });
        let method = if is_there { Method::Patch } else { Method::Post };
        self.send(&Request::new(method, &path).json(&body)?).await?;
        Ok(())
    }

    /// Mints a token under a name that no other bears (see [`token_name`]).
    ///
    /// Write the name down before calling: should this be cut off, [`Infisical::revoke_named`] finds what it left.
    ///
    /// # Errors
    /// When there is none that can be used. Except for [`MintError::Orphan`], none is left alive then, and none comes to life.
    pub async fn mint(&self, identity: &str, name: &str) -> Result<Minted, MintError> {
        let error = match self.try_mint(identity, name).await {
            Ok(minted) => return Ok(minted),
            Err(error) => error,
        };
        if !error.may_have_acted() {
            return Err(MintError::Failed { error, revoked: Vec::new() });
        }
        let orphan = |error| MintError::Orphan { name: name.to_owned(), identity: identity.to_owned(), error };
        match self.revoke_lost(identity, name).await {
            // What was not found may be on its way still.
            Ok(revoked) if revoked.is_empty() && error.may_act_late() => Err(orphan(error)),
            Ok(revoked) => Err(MintError::Failed { error, revoked }),
            Err(error) => Err(orphan(error)),
        }
    }

    async fn try_mint(&self, identity: &str, name: &str) -> Result<Minted, InfisicalError> {
        let path = ["api", "v1", "auth", "token-auth", "identities", identity, "tokens"];
        let reply = self.send(&Request::new(Method::Post, &path).json(&json!({"name": name}))?).await?;
        let wire::NewToken { access_token: value, token_data: row } = reply.json()?;
        let odd = |what: &str| InfisicalError::Odd(format!("the new token {what}"));
        let claims = Claims::read(&value).map_err(|error| odd(&format!("cannot be read: {error}")))?;
        if claims.identity_id != identity || row.identity_id != identity {
            return Err(odd("is for another identity"));
        }
        if claims.identity_access_token_id != row.id || row.name.as_deref() != Some(name) {
            return Err(odd("is not the one that was asked for"));
        }
        let expires = claims.expires().ok_or_else(|| odd("has no end"))?;
        let fingerprint = Fingerprint::of(value.expose_secret().as_bytes());
        let (name, identity) = (name.to_owned(), identity.to_owned());
        Ok(Minted { value, id: TokenId(row.id), name, identity, expires, fingerprint })
    }

    /// Revokes whatever was minted under a name, where nobody knows whether anything was.
    ///
    /// An answer that was lost may belong to a request that the server carries out only now: so it is looked for some
    /// time, unless it shows at once.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn revoke_lost(&self, identity: &str, name: &str) -> Result<Vec<TokenId>, InfisicalError> {
        let end = Instant::now() + self.config.look_for;
        loop {
            let revoked = self.revoke_named(identity, name).await?;
            if !revoked.is_empty() || Instant::now() + self.config.look_again > end {
                return Ok(revoked);
            }
            sleep(self.config.look_again).await;
        }
    }

    /// Revokes every token of an identity that bears this name and is not listed as revoked; says which.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn revoke_named(&self, identity: &str, name: &str) -> Result<Vec<TokenId>, InfisicalError> {
        let mut revoked = Vec::new();
        for row in self.tokens(identity).await? {
            if row.name.as_deref() == Some(name) {
                if !row.is_revoked {
                    self.revoke(&row.id).await?;
                }
                revoked.push(row.id);
            }
        }
        Ok(revoked)
    }

    /// The tokens of an identity, newest first: as many as the server shows, which are 200.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn tokens(&self, identity: &str) -> Result<Vec<TokenRow>, InfisicalError> {
        let mut rows: Vec<TokenRow> = Vec::new();
        let mut offset = 0;
        while offset <= LAST_OFFSET {
            let request = get(&["api", "v1", "auth", "token-auth", "identities", identity, "tokens"]);
            let request = request.query("offset", &offset).query("limit", &PAGE);
            let page: wire::Tokens = self.send(&request).await?.json()?;
            let whole = page.tokens.len() >= PAGE;
            // Between two pages a new token may have pushed a row onto the next one.
            let rows_of = page.tokens.into_iter().map(row).collect::<Vec<_>>();
            rows.extend(rows_of.into_iter().filter(|new| !rows.iter().any(|old| old.id == new.id)).collect::<Vec<_>>());
            if !whole {
                break;
            }
            offset += PAGE;
        }
        Ok(rows)
    }

    /// Revokes a token by its id and makes sure that the server knows it as revoked.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked, or does not know the token.
    pub async fn revoke(&self, id: &TokenId) -> Result<(), InfisicalError> {
        let path = ["api", "v1", "auth", "token-auth", "tokens", &id.0, "revoke"];
        let sent = self.send(&Request::new(Method::Post, &path).repeatable()).await;
        // Told a second time, the server says that it is not there, or was revoked already: which of the two?
        let said = if_there(sent)?.is_some_and(|reply| reply.json::<wire::Message>().is_ok());
        if said || self.token(id).await?.is_some_and(|row| row.is_revoked) {
            return Ok(());
        }
        Err(InfisicalError::Odd(format!("the server knows no token {id} that it could revoke")))
    }

    /// A token by its id, without its value.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn token(&self, id: &TokenId) -> Result<Option<TokenRow>, InfisicalError> {
        let reply = self.send(&get(&["api", "v1", "auth", "token-auth", "tokens", &id.0])).await;
        let Some(reply) = if_there(reply)? else { return Ok(None) };
        Ok(Some(row(reply.json::<wire::OneToken>()?.token)))
    }
}

fn row(data: wire::TokenData) -> TokenRow {
    TokenRow { id: TokenId(data.id), name: data.name, is_revoked: data.is_access_token_revoked }
}

/// Whole seconds, as the server counts lives.
pub(super) fn seconds(life: Duration) -> u64 {
    life.as_secs()
}
