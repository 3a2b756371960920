//! The run's token: minted once its plan was accepted and before any host is touched, and revoked where no host can
//! hold it.
//!
//! Its name is in the journal before the issuer is asked, so that one whose value was lost on the way is found and
//! revoked, by this process or by whoever settles the run.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::CliError;
use super::session::Session;
use crate::engine::Shared;
use crate::event::{EventKind, TokenStatus};
use crate::journal::{MintedState, Record, TokenState};
use crate::model::{IdentitySpec, SecretName, Services, chain};
use crate::rollout::Outcome;
use crate::secret::SecretValue;
use crate::service::infisical::{
    Death, Infisical, InfisicalConfig, InfisicalIssuer, Issuer, Login, MintError, TokenId, token_name,
};

/// Who mints the run's token.
#[derive(Clone)]
pub(super) struct Issuing {
    pub(super) secret: SecretName,
    pub(super) issuer: Arc<InfisicalIssuer>,
}

/// A client for the inventory's Infisical, as the operator. Nobody is asked yet but the operator's own sources.
pub(super) async fn operator(session: &Session, services: &Services) -> Result<Infisical, CliError> {
    let Some(service) = &services.infisical else {
        return Err(CliError::usage("a secret from infisical needs [services.infisical] in the inventory"));
    };
    session.sources.environment().withhold_sources([&service.token, &service.client_secret].into_iter().flatten());
    let read = async |name: &str, source| {
        let value = session.sources.read(name, source).await?;
        session.redactor.register(&value);
        Ok::<_, CliError>(SecretString::from(value.expose_text()))
    };
    let login = match (&service.token, &service.client_id, &service.client_secret) {
        (Some(source), ..) => Login::Token(read("services.infisical.token", source).await?),
        (None, Some(client_id), Some(source)) => Login::UniversalAuth {
            client_id: client_id.clone(),
            client_secret: read("services.infisical.client_secret", source).await?,
        },
        _ => return Err(CliError::usage("[services.infisical] says nothing of how to log in (`auth`)")),
    };
    Infisical::new(service, login, config(session))
        .map_err(|error| CliError::Server(format!("[services.infisical]: {}", chain(&error))))
}

#[cfg(not(debug_assertions))]
fn config(_: &Session) -> InfisicalConfig {
    InfisicalConfig::default()
}

/// In builds for tests, one may be less patient with a server that spoils its answers.
#[cfg(debug_assertions)]
fn config(session: &Session) -> InfisicalConfig {
    let mut config = InfisicalConfig::default();
    if session.sources.environment().get("KEYSWAP_TEST_HURRY").is_some() {
        let ms = Duration::from_millis;
        config.http.request_timeout = ms(1500);
        config.http.retry.first = ms(1);
        config.http.retry.longest = ms(4);
        config.http.retry.longest_wish = ms(10);
        config.look_for = ms(250);
        config.look_again = ms(20);
        config.late = ms(2000);
        config.permission_cache = Duration::ZERO;
    }
    config
}

/// Looks whether the identity is exactly what its file says. Changes nothing, not even the identity.
pub(super) async fn open(
    session: &Session,
    services: &Services,
    (secret, spec): (&SecretName, &IdentitySpec),
) -> Result<Issuing, CliError> {
    let operator = operator(session, services).await?;
    let issuer = InfisicalIssuer::open(operator, spec.clone())
        .await
        .map_err(|error| CliError::Server(format!("[secrets.{secret}]: {}", chain(&error))))?;
    Ok(Issuing { secret: secret.clone(), issuer: Arc::new(issuer) })
}

/// Why there is no token.
pub(super) struct NoToken {
    pub(super) reason: String,
    /// One may be alive all the same.
    pub(super) owed: bool,
}

/// Mints the run's token. The journal has its name before, and its id, end and fingerprint after.
pub(super) async fn mint(session: &Session, issuing: &Issuing, shared: &Shared) -> Result<SecretValue, NoToken> {
    let no = |reason: String, owed: bool| NoToken { reason, owed };
    let journal = |error| no(format!("the journal could not be written: {error}"), false);
    let issuer = &issuing.issuer;
    let (name, identity) = (token_name(&shared.run), issuer.spec().name.clone());
    let requested = Record::TokenRequested {
        secret: issuing.secret.clone(),
        name: name.clone(),
        identity: issuer.identity().to_owned(),
        identity_name: identity.clone(),
        server: issuer.operator().base(),
    };
    shared.journal.append(None, requested).await.map_err(journal)?;
    let minted = match issuer.mint(&name).await {
        Ok(minted) => minted,
        Err(error @ MintError::Failed { .. }) => {
            let reason = chain(&error);
            if let MintError::Failed { revoked, .. } = error {
                let ids = revoked.into_iter().map(|id| id.0).collect();
                let record = Record::TokenRevoked { ids, detail: reason.clone() };
                shared.journal.append(None, record).await.map_err(journal)?;
            }
            return Err(no(reason, false));
        }
        Err(error @ MintError::Orphan { .. }) => {
            let reason = chain(&error);
            let detail = format!("{reason}. Later: keyswap resume {}", shared.run);
            let (status, none) = (TokenStatus::Owed, None::<String>);
            let kind = EventKind::Token { status, identity, id: none, expires: None, fingerprint: None, detail };
            shared.events.emit(None, None, kind);
            return Err(no(reason, true));
        }
    };
    // From here on a failure leaves a token that the run's settling revokes, for no host holds it.
    let bytes = Zeroizing::new(minted.value.expose_secret().as_bytes().to_vec());
    let value = SecretValue::new(bytes).map_err(|error| no(format!("the new token is none: {error}"), false))?;
    session.redactor.register(&value);
    let (id, expires, fingerprint) = (minted.id.0, minted.expires, minted.fingerprint);
    let told = Record::TokenMinted { id: id.clone(), expires, fingerprint: fingerprint.clone() };
    let known = Record::SecretKnown { name: issuing.secret.clone(), fingerprint: fingerprint.clone() };
    let written = async {
        shared.journal.append_lazy(None, told)?;
        shared.journal.append(None, known).await
    };
    if let Err(error) = written.await {
        // Nobody who settles the run could know of it: it dies here and now.
        let revoked = issuer.revoke(&TokenId(id.clone())).await;
        let why = revoked
            .as_ref()
            .map_or_else(|error| format!("could not be revoked: {}", chain(error)), |()| "was revoked".to_owned());
        let reason = format!("the journal could not be written: {error}; the new token, id {id}, {why}");
        return Err(no(reason, revoked.is_err()));
    }
    let detail = format!("minted {fingerprint}, id {id}, until {}", expires.strftime("%Y-%m-%d %H:%M UTC"));
    let kind = EventKind::Token {
        status: TokenStatus::Minted,
        identity,
        id: Some(id),
        expires: Some(expires),
        fingerprint: Some(fingerprint),
        detail,
    };
    shared.events.emit(None, None, kind);
    Ok(value)
}

/// Says that a token would be minted.
pub(super) fn say_planned(issuing: &Issuing, shared: &Shared) {
    let days = issuing.issuer.spec().ttl.as_secs() / 86_400;
    let kind = EventKind::Token {
        status: TokenStatus::Planned,
        identity: issuing.issuer.spec().name.clone(),
        id: None,
        expires: None,
        fingerprint: None,
        detail: format!("one is minted when the plan is accepted, for {days} days"),
    };
    shared.events.emit(None, None, kind);
}

/// What a run that minted still has at hand.
#[derive(Clone, Copy, Default)]
pub(super) struct AtHand<'a> {
    /// The token.
    pub(super) value: Option<&'a SecretValue>,
    /// Who minted it: nobody needs to be asked for the operator's credential again.
    pub(super) issuing: Option<&'a Issuing>,
}

/// At the end of a run, also of one that is taken back: its token is revoked if no host can hold it.
pub(super) async fn settle(
    session: &Session,
    services: &Services,
    shared: &Shared,
    at_hand: AtHand<'_>,
    outcome: &mut Outcome,
) {
    // What the journal says of the hosts decides, after everything of theirs was written.
    let state = match shared.journal.sync().await {
        // A run that is taken back from its hosts has a journal of another name.
        Ok(_) => session.store().and_then(|store| Ok(store.state(shared.journal.run())?)),
        Err(error) => Err(error.into()),
    };
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            // A token that is at hand was minted, and what the hosts hold of it is not known.
            outcome.token_owed |= at_hand.value.is_some() && !outcome.hosts.iter().all(is_well);
            shared.events.warn(None, format!("the run's token was not looked at: {}", chain(&error)));
            return;
        }
    };
    let Some(token) = state.token.as_ref().filter(|token| token.revoked.is_none()) else { return };
    if state.owed_token().is_none() {
        let hosts: Vec<&str> = state.may_hold_new().map(crate::model::HostName::as_str).collect();
        if outcome.failed || outcome.interrupted || !outcome.hosts.iter().all(is_well) {
            let detail = format!("it stays alive: {} may hold it", hosts.join(", "));
            say(shared, token, TokenStatus::Kept, detail);
        }
        return;
    }
    match revoke(session, services, token, at_hand).await {
        Ok((ids, detail)) => {
            let record = Record::TokenRevoked { ids, detail: detail.clone() };
            if let Err(error) = shared.journal.append(None, record).await {
                shared.events.warn(None, format!("the journal could not be written: {error}"));
            }
            say(shared, token, TokenStatus::Revoked, detail);
        }
        Err(why) => {
            outcome.token_owed = true;
            let run = shared.journal.run();
            let detail = format!(
                "it may be alive, and no host needs it: {why}. Later: keyswap resume {run}; or revoke by hand: {}",
                token.describe()
            );
            say(shared, token, TokenStatus::Owed, detail);
        }
    }
}

fn is_well(host: &crate::model::HostResult) -> bool {
    use crate::model::HostStatus::{Changed, Ok};
    matches!(host.status, Ok | Changed)
}

fn say(shared: &Shared, token: &TokenState, status: TokenStatus, detail: String) {
    let minted = token.minted.as_ref();
    let kind = EventKind::Token {
        status,
        identity: token.identity_name.clone(),
        id: minted.map(|minted| minted.id.clone()),
        expires: minted.map(|minted| minted.expires),
        fingerprint: minted.map(|minted| minted.fingerprint.clone()),
        detail,
    };
    shared.events.emit(None, None, kind);
}

/// Revokes a run's token; says what was revoked, and how it is known to be dead.
async fn revoke(
    session: &Session,
    services: &Services,
    token: &TokenState,
    at_hand: AtHand<'_>,
) -> Result<(Vec<String>, String), String> {
    if let Some(issuing) = at_hand.issuing {
        return dead(issuing.issuer.operator(), token, at_hand.value).await;
    }
    let operator = operator(session, services).await.map_err(|error| chain(&error))?;
    if operator.base() != token.server {
        return Err(format!("it was minted at {}, and [services.infisical] names {}", token.server, operator.base()));
    }
    let done = dead(&operator, token, at_hand.value).await;
    // What was lent for this ends by itself, too.
    let _ = operator.log_out().await;
    done
}

async fn dead(
    operator: &Infisical,
    token: &TokenState,
    value: Option<&SecretValue>,
) -> Result<(Vec<String>, String), String> {
    let Some(MintedState { id, .. }) = &token.minted else {
        let recent = jiff::Timestamp::now().duration_since(token.requested);
        let recent = Duration::try_from(recent).is_ok_and(|age| age < operator.config().late);
        let found = match recent {
            true => operator.revoke_lost(&token.identity, &token.name).await,
            false => operator.revoke_named(&token.identity, &token.name).await,
        };
        let ids: Vec<String> = found.map_err(|error| chain(&error))?.into_iter().map(|id| id.0).collect();
        let detail = match ids.as_slice() {
            // Whoever closes it now would never look again.
            [] if recent => {
                let late = operator.config().late.as_secs();
                return Err(format!(
                    "none is there under its name, and for {late} s after it was asked for one may come to life"
                ));
            }
            [] => "none was made under its name".to_owned(),
            ids => format!("it was made and its answer lost; found by its name and revoked: {}", ids.join(", ")),
        };
        return Ok((ids, detail));
    };
    let id_of = TokenId(id.clone());
    // The journal's word for an id is not enough: it may have been written by what a host said.
    let named = operator.token(&id_of).await.map_err(|error| chain(&error))?;
    if named.as_ref().and_then(|row| row.name.as_ref()).is_some_and(|name| *name != token.name) {
        return Err(format!("the server knows {id} under another name than `{}`", token.name));
    }
    let revoked = operator.revoke(&id_of).await;
    let Some(value) = value else {
        revoked.map_err(|error| chain(&error))?;
        return Ok((vec![id.clone()], "revoked, as the server lists it".to_owned()));
    };
    // What a request with it says counts more than any listing: one that somebody else has killed is listed as alive.
    let detail = match (operator.death(&SecretString::from(value.expose_text())).await, revoked) {
        (Ok(Death::Dead(class)), Ok(())) => {
            format!("revoked, and a request with it was refused ({})", class.word())
        }
        (Ok(Death::Dead(class)), Err(_)) => format!("it was dead: a request with it was refused ({})", class.word()),
        (Ok(Death::Alive), Ok(())) => {
            return Err("the server says that it is revoked, and takes it all the same".to_owned());
        }
        (Err(error), Ok(())) => {
            format!("revoked, as the server lists it; it could not be tried: {}", chain(&error))
        }
        (_, Err(error)) => return Err(chain(&error)),
    };
    Ok((vec![id.clone()], detail))
}
