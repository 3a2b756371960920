//! Token Auth, its tokens, and the operator's Universal Auth.

use serde_json::{Value, json};

use super::reply::{Ask, No, Said, bad_request, invalid, no_route, not_found};
use super::show;
use super::world::{Identity, TokenAuth, UniversalAuth, World, new_id};

const DEFAULT_TTL: i64 = 2_592_000;

impl World {
    fn target(&self, id: &str) -> Result<Identity, No> {
        self.identity(id).cloned().ok_or_else(|| not_found(format!("Failed to find identity with ID {id}")))
    }

    /// `/api/v1/auth/token-auth/identities/:id[/tokens]`
    pub(super) fn token_auth(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let [_, _, _, _, _, id, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
        let identity = self.target(id)?;
        let action = match (ask.method.as_str(), rest) {
            ("GET", _) => "read",
            ("POST", ["tokens"]) => "create-token",
            ("DELETE", _) => "delete",
            _ => "edit",
        };
        self.need_for(who, &identity, action)?;
        match (ask.method.as_str(), rest) {
            ("POST", ["tokens"]) => self.mint_token(ask, &identity),
            ("GET", ["tokens"]) => self.list_tokens(ask, &identity),
            ("POST", []) => self.attach(ask, &identity),
            ("GET" | "PATCH" | "DELETE", []) => {
                let Some(auth) = &identity.token_auth else {
                    return Err(not_found("Token Auth configuration not found for identity"));
                };
                match ask.method.as_str() {
                    "PATCH" => self.change_auth(ask, &identity),
                    "DELETE" => {
                        let now = self.clock.now();
                        self.with_identity(&identity.id, |identity| {
                            identity.token_auth = None;
                            identity.detached = Some(now);
                        });
                        let dead = |token: &&mut super::Token| token.identity == identity.id;
                        for token in self.tokens.iter_mut().filter(dead) {
                            token.listed_as_revoked = true;
                        }
                        Ok(json!({"identityTokenAuth": show::token_auth(&identity, auth)}))
                    }
                    _ => Ok(json!({"identityTokenAuth": show::token_auth(&identity, auth)})),
                }
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn attach(&mut self, ask: &Ask, identity: &Identity) -> Said {
        let ttl = ask.number("accessTokenTTL").unwrap_or(DEFAULT_TTL);
        let max_ttl = ask.number("accessTokenMaxTTL").unwrap_or(DEFAULT_TTL);
        check(ask, ttl > max_ttl)?;
        if identity.token_auth.is_some() {
            return Err(bad_request("Failed to add Token Auth to already configured identity"));
        }
        let now = self.clock.now();
        let uses = ask.number("accessTokenNumUsesLimit").unwrap_or(0);
        let auth = TokenAuth { id: new_id(), ttl, max_ttl, uses, period: 0, addresses: None, times: (now, now) };
        let shown = show::token_auth(identity, &auth);
        self.with_identity(&identity.id, |identity| identity.token_auth = Some(auth));
        Ok(json!({"identityTokenAuth": shown}))
    }

    fn change_auth(&mut self, ask: &Ask, identity: &Identity) -> Said {
        let Some(mut auth) = identity.token_auth.clone() else { return Err(not_found("Token Auth")) };
        auth.ttl = ask.number("accessTokenTTL").unwrap_or(auth.ttl);
        auth.max_ttl = ask.number("accessTokenMaxTTL").unwrap_or(auth.max_ttl);
        auth.uses = ask.number("accessTokenNumUsesLimit").unwrap_or(auth.uses);
        // Here a longest life of 0 passes for none.
        check(ask, auth.max_ttl != 0 && auth.ttl > auth.max_ttl)?;
        if ask.body.get("accessTokenTrustedIps").is_some() {
            auth.addresses = None;
        }
        auth.times.1 = self.clock.now();
        let shown = show::token_auth(identity, &auth);
        self.with_identity(&identity.id, |identity| identity.token_auth = Some(auth));
        Ok(json!({"identityTokenAuth": shown}))
    }

    fn mint_token(&mut self, ask: &Ask, identity: &Identity) -> Said {
        let Some(auth) = &identity.token_auth else {
            return Err(bad_request("The identity does not have Token Auth"));
        };
        let (ttl, max_ttl) = (auth.ttl, auth.max_ttl);
        let (value, token) = self.mint(identity, ask.text("name"), ("token-auth", ttl, max_ttl, auth.uses));
        // What is said of its life is what was configured, not how long it lives.
        Ok(json!({
            "accessToken": value, "expiresIn": ttl, "accessTokenMaxTTL": max_ttl, "tokenType": "Bearer",
            "tokenData": show::token(&token),
        }))
    }

    fn list_tokens(&self, ask: &Ask, identity: &Identity) -> Said {
        let (offset, limit) = ask.page(100, 100)?;
        let mine = |token: &&super::Token| token.identity == identity.id && token.method == "token-auth";
        let mut tokens: Vec<&super::Token> = self.tokens.iter().filter(mine).collect();
        // The newest stand last in the world: a stable sort keeps those of one moment in that order, turned around.
        tokens.reverse();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.times.1));
        let page: Vec<Value> = tokens.into_iter().skip(offset).take(limit).map(show::token).collect();
        Ok(json!({"tokens": page}))
    }

    /// `/api/v1/auth/token-auth/tokens/:id[/revoke]`
    pub(super) fn tokens(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let [_, _, _, _, _, id, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
        let found = self.tokens.iter().find(|token| token.id == *id).cloned();
        let alive = |token: &super::Token| !token.revoked && !token.listed_as_revoked;
        if rest == ["revoke"] && !found.as_ref().is_some_and(alive) {
            return Err(not_found(format!("Token with ID {id} not found or already revoked")));
        }
        let Some(mut token) = found else { return Err(not_found(format!("Token with ID {id} not found"))) };
        let identity = self.target(&token.identity)?;
        let action = if ask.method == "GET" { "read" } else { "edit" };
        self.need_for(who, &identity, action)?;
        let now = self.clock.now();
        match (ask.method.as_str(), rest) {
            ("GET", []) => Ok(json!({"token": show::token(&token)})),
            ("PATCH", []) => {
                token.name = ask.text("name").map(str::to_owned);
                token.times.1 = now;
                self.put(token.clone());
                Ok(json!({"token": show::token(&token)}))
            }
            ("POST", ["revoke"]) => {
                token.revoked = true;
                token.listed_as_revoked = true;
                token.times.1 = now;
                self.put(token);
                Ok(json!({"message": "Successfully revoked access token"}))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn put(&mut self, token: super::Token) {
        if let Some(own) = self.tokens.iter_mut().find(|own| own.id == token.id) {
            *own = token;
        }
    }

    /// `/api/v1/auth/universal-auth/identities/:id[/client-secrets]`
    pub(super) fn universal_auth(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let [_, _, _, _, _, id, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
        let identity = self.target(id)?;
        self.need_for(who, &identity, if ask.method == "GET" { "read" } else { "edit" })?;
        let now = self.clock.now();
        match (ask.method.as_str(), rest) {
            ("POST", []) => {
                let ttl = ask.number("accessTokenTTL").unwrap_or(DEFAULT_TTL);
                let auth = UniversalAuth { id: new_id(), client_id: new_id(), ttl, secrets: Vec::new(), made: now };
                let shown = show_universal(&identity, &auth);
                self.with_identity(id, |identity| identity.universal_auth = Some(auth));
                Ok(shown)
            }
            ("GET", []) => {
                let auth = identity.universal_auth.as_ref();
                auth.map(|auth| show_universal(&identity, auth))
                    .ok_or_else(|| not_found("Universal Auth configuration not found for identity"))
            }
            ("POST", ["client-secrets"]) => {
                let Some(auth) = &identity.universal_auth else {
                    return Err(bad_request("The identity does not have universal auth"));
                };
                let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
                let at = super::clock::iso(now);
                let shown = json!({
                    "clientSecret": secret,
                    "clientSecretData": {
                        "id": new_id(), "createdAt": at, "updatedAt": at,
                        "description": ask.text("description").unwrap_or_default(),
                        "clientSecretPrefix": secret.get(..4), "clientSecretNumUses": 0,
                        "clientSecretNumUsesLimit": 0, "clientSecretTTL": 0, "identityUAId": auth.id,
                        "isClientSecretRevoked": false,
                    },
                });
                self.with_identity(id, |identity| {
                    if let Some(auth) = &mut identity.universal_auth {
                        auth.secrets.push(secret);
                    }
                });
                Ok(shown)
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }
}

/// What a configuration of Token Auth must not be.
fn check(ask: &Ask, longer: bool) -> Result<(), No> {
    if longer {
        let message = "Access Token TTL cannot be greater than Access Token Max TTL.";
        return Err(invalid(json!({"code": "custom", "message": message, "path": []})));
    }
    let ips = ask.body.get("accessTokenTrustedIps").and_then(Value::as_array);
    let elsewhere = |ip: &Value| !matches!(ip.get("ipAddress").and_then(Value::as_str), Some("0.0.0.0/0" | "::/0"));
    if ips.is_some_and(|ips| ips.iter().any(elsewhere)) {
        return Err(bad_request(
            "Failed to add IP access range to access token due to plan restriction. Upgrade plan to add IP access \
             range.",
        ));
    }
    Ok(())
}

fn show_universal(identity: &Identity, auth: &UniversalAuth) -> Value {
    let made = super::clock::iso(auth.made);
    json!({"identityUniversalAuth": {
        "id": auth.id, "clientId": auth.client_id, "accessTokenTTL": auth.ttl, "accessTokenMaxTTL": auth.ttl,
        "accessTokenNumUsesLimit": 0, "clientSecretTrustedIps": show::everywhere(),
        "accessTokenTrustedIps": show::everywhere(), "createdAt": made, "updatedAt": made,
        "identityId": identity.id, "accessTokenPeriod": 0, "lockoutEnabled": true, "lockoutThreshold": 3,
        "lockoutDurationSeconds": 300, "lockoutCounterResetSeconds": 30,
    }})
}
