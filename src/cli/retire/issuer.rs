//! The old credential's end at its issuer: only of what keyswap itself minted in an earlier run, and on which no other host lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::super::audit::judge::Names;
use super::super::session::Session;
use super::super::token;
use super::No;
use super::look::Ready;
use crate::journal::{HostPhase, MintedState, RunState, Store, TokenState};
use crate::model::{CredentialState, Fingerprint, HostName, RunId, chain};
use crate::plan::RunPlan;
use crate::remote::{Answer, Op};
use crate::secret::SecretValue;
use crate::service::infisical::{Claims, Death, Infisical, TokenId};

/// An old credential that is to be killed, and who minted it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condemned {
    pub(super) run: RunId,
    pub(super) token: TokenState,
    pub(super) minted: MintedState,
}

/// The same with its value, for the one request that shows that it is dead.
pub(super) struct Doomed {
    pub(super) is: Condemned,
    value: SecretString,
    pub(super) operator: Arc<Infisical>,
}

/// Revokes a token and makes sure that a request with it is refused.
pub(super) async fn kill(one: &Doomed) -> Result<String, String> {
    let id = TokenId(one.is.minted.id.clone());
    one.operator.revoke(&id).await.map_err(|error| format!("it could not be revoked: {}", chain(&error)))?;
    match one.operator.death(&one.value).await {
        Ok(Death::Dead(class)) => Ok(format!("revoked, and a request with it was refused ({})", class.word())),
        Ok(Death::Alive) => Err("the server says that it is revoked, and takes it all the same".to_owned()),
        Err(error) => Err(format!("it was revoked, and nobody could see that it is dead: {}", chain(&error))),
    }
}

/// The tokens behind the old credentials, if keyswap minted every one of them in an earlier run and no other host holds
/// it: compared by whole digest and id. Nobody is asked.
pub(super) fn condemned(store: &Store, plan: &RunPlan, ready: &[Ready], names: &Names) -> Result<Vec<Condemned>, No> {
    let old: BTreeSet<&Fingerprint> = ready.iter().flat_map(|host| &host.goes.old).collect();
    if old.is_empty() {
        return Err(No::Because("there is no old credential to revoke".to_owned()));
    }
    let runs: Vec<(RunId, RunState)> =
        store.list()?.into_iter().filter_map(|run| Some((run.run, run.state.ok()?))).collect();
    let here: BTreeSet<&HostName> = ready.iter().map(|host| &host.name).collect();
    let mut ours = Vec::new();
    for fingerprint in old {
        let minted = runs.iter().find_map(|(run, state)| {
            let token = state.token.as_ref()?;
            let minted = token.minted.as_ref().filter(|minted| minted.fingerprint == *fingerprint)?;
            Some(Condemned { run: run.clone(), token: token.clone(), minted: minted.clone() })
        });
        let Some(one) = minted.filter(|one| one.run != plan.run) else {
            return Err(No::Because(format!(
                "{fingerprint} was not minted by keyswap: others may live on it, and it is not revoked"
            )));
        };
        if names.is_shared(fingerprint) {
            return Err(No::Because(format!(
                "{fingerprint} is shared, as the inventory says ([known]): others live on it, and it is not revoked"
            )));
        }
        if one.token.revoked.is_some() {
            // It was cut off after that, and is gone on with.
            continue;
        }
        if let Some(other) = holders(&runs, fingerprint).into_iter().find(|name| !here.contains(name)) {
            return Err(No::Because(format!("{other} lives on {fingerprint}, or may, and is not part of this run")));
        }
        ours.push(one);
    }
    Ok(ours)
}

/// Asks the issuer for each by its id, and a host for its value: everything that can be found wrong is, before the point of no
/// return.
pub(super) async fn doomed(
    session: &Session,
    plan: &RunPlan,
    ready: &mut [Ready],
    condemned: Vec<Condemned>,
) -> Result<Vec<Doomed>, No> {
    let mut found = Vec::new();
    if condemned.is_empty() {
        return Ok(found);
    }
    let operator = Arc::new(token::operator(session, &plan.services).await?);
    for is in condemned {
        let Condemned { token, minted, .. } = &is;
        let fingerprint = &minted.fingerprint;
        if operator.base() != token.server {
            return Err(No::Because(format!("{fingerprint} was minted at {}, another server", token.server)));
        }
        let listed = operator.token(&TokenId(minted.id.clone())).await;
        let listed =
            listed.map_err(|error| No::Because(format!("the issuer could not be asked: {}", chain(&error))))?;
        if listed.and_then(|row| row.name).as_ref() != Some(&token.name) {
            return Err(No::Because(format!("the issuer does not know {} under its name", token.describe())));
        }
        let value = reveal(session, ready, fingerprint).await.map_err(No::Because)?;
        let claims = Claims::read(&value).map_err(|error| No::Because(format!("the old credential: {error}")))?;
        if claims.identity_access_token_id != minted.id || claims.identity_id != token.identity {
            return Err(No::Because(format!("{fingerprint} says that it is another token than {}", minted.id)));
        }
        found.push(Doomed { is, value, operator: Arc::clone(&operator) });
    }
    Ok(found)
}

/// Hosts that hold a credential by the latest word of any journal on one of their files, or of which nobody knows that they do
/// not.
fn holders(runs: &[(RunId, RunState)], fingerprint: &Fingerprint) -> BTreeSet<HostName> {
    let mut latest: BTreeMap<(&HostName, &str), bool> = BTreeMap::new();
    let mut oldest_first: Vec<&(RunId, RunState)> = runs.iter().collect();
    oldest_first.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, state) in oldest_first {
        let minted = state.token.as_ref().and_then(|token| token.minted.as_ref());
        let brought = minted.is_some_and(|minted| minted.fingerprint == *fingerprint)
            || state.secrets.values().any(|secret| secret == fingerprint);
        for (name, host) in &state.hosts {
            if matches!(host.phase, HostPhase::Untouched | HostPhase::Spared) {
                continue;
            }
            let told: &[CredentialState] = match &host.result {
                Some(result) if !result.credentials.is_empty() => &result.credentials,
                _ => &host.credentials,
            };
            if told.is_empty() {
                // It was touched, and nobody wrote down where.
                latest.entry((name, "")).and_modify(|holds| *holds |= brought).or_insert(brought);
            }
            for credential in told {
                let key = (name, credential.path.as_str());
                let is = |held: &Option<Fingerprint>| held.as_ref() == Some(fingerprint);
                let before = latest.get(&key).copied().unwrap_or(false);
                let holds = match (host.phase, &credential.now) {
                    (HostPhase::New | HostPhase::Held | HostPhase::Old, Some(now)) => now == fingerprint,
                    // There was no file, and there is none.
                    (HostPhase::Old, None) => before || is(&credential.before),
                    // What could not be read may be any of them.
                    _ => before || brought || is(&credential.before) || is(&credential.now),
                };
                latest.insert(key, holds);
            }
        }
    }
    latest.into_iter().filter(|(_, holds)| *holds).map(|((name, _), _)| name.clone()).collect()
}

/// The old credential itself, from the first host that has a copy.
async fn reveal(session: &Session, ready: &mut [Ready], wanted: &Fingerprint) -> Result<SecretString, String> {
    let mut why = "no host has a copy of it, so that nobody could see that it is dead".to_owned();
    for host in ready.iter_mut().filter(|host| host.goes.old.contains(wanted)) {
        match host.conn.call(&Op::Reveal { fingerprint: wanted.clone() }, None).await {
            Ok(Answer::Revealed(revealed)) => {
                let bytes = Zeroizing::new(revealed.0.as_bytes().to_vec());
                let value = SecretValue::new(bytes).map_err(|error| error.to_string())?;
                session.redactor.register(&value);
                if value.fingerprint() == wanted {
                    return Ok(SecretString::from(value.expose_text()));
                }
                why = format!("{}: its copy is not what it was", host.name);
            }
            Ok(_) => why = format!("{}: the host answered another question", host.name),
            Err(error) => why = format!("{}: {error}", host.name),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::HostState;
    use crate::model::{HostResult, HostStatus};

    const PATH: &str = "/srv/token";

    fn print(text: &str) -> Fingerprint {
        Fingerprint::of(text.as_bytes())
    }

    /// A run that touched one host: where its saga stands, what the file held and holds, and what the run brought.
    fn run(
        number: u8,
        phase: HostPhase,
        (before, now): (Option<&str>, Option<&str>),
        brings: &str,
    ) -> (RunId, RunState) {
        let credential = |now: Option<&str>| CredentialState {
            path: PATH.to_owned(),
            before: before.map(print),
            now: now.map(print),
            unread: false,
        };
        let name: HostName = "runner-2".parse().unwrap();
        let result = HostResult {
            host: name.clone(),
            status: HostStatus::Ok,
            batch: 1,
            credentials: vec![credential(now)],
            reason: None,
            mend: Vec::new(),
            notes: Vec::new(),
        };
        let host =
            HostState { phase, credentials: vec![credential(before)], result: Some(result), ..HostState::default() };
        let mut state = RunState::default();
        state.hosts.insert(name, host);
        state.secrets.insert("token".into(), print(brings));
        (format!("2026010{number}-000000-aaaaaa").parse().unwrap(), state)
    }

    #[test]
    fn who_may_hold_a_token_is_a_holder() {
        use crate::journal::OwedIn::{Forward, Undoing};
        use HostPhase::{Committing, Dirty, New, Old, Owed};
        let first = || run(1, New, (Some("t0"), Some("t1")), "t1");
        let holds = |runs: &[(RunId, RunState)], of: &str| !holders(runs, &print(of)).is_empty();
        assert!(holds(&[first()], "t1") && !holds(&[first()], "t0"));
        assert!(!holds(&[first(), run(2, New, (Some("t1"), Some("t2")), "t2")], "t1"));
        assert!(holds(&[first(), run(2, Old, (Some("t1"), Some("t1")), "t2")], "t1"));
        // What could not be read may be the old one as well as the new one.
        for phase in [Owed(Forward), Owed(Undoing), Dirty, Committing, New] {
            let runs = [first(), run(2, phase, (Some("t1"), None), "t2")];
            assert!(holds(&runs, "t1") && holds(&runs, "t2"), "{phase:?}");
            assert!(!holds(&runs, "t0"), "{phase:?}");
            // Also where the journal of the run that brought it is gone, and where nothing is known of before.
            assert!(holds(&runs[1..], "t1"), "{phase:?}");
            let runs = [first(), run(2, phase, (None, None), "t2")];
            assert!(holds(&runs, "t1"), "{phase:?}");
        }
        let mut nowhere = run(2, Owed(Forward), (None, None), "t2");
        for host in nowhere.1.hosts.values_mut() {
            host.credentials.clear();
            host.result = None;
        }
        let runs = [first(), nowhere];
        assert!(holds(&runs, "t1") && holds(&runs, "t2"));
        // Another file of the same host says nothing of this one.
        let mut elsewhere = run(2, New, (None, Some("t2")), "t2");
        for credential in elsewhere.1.hosts.values_mut().filter_map(|host| host.result.as_mut()) {
            credential.credentials.iter_mut().for_each(|credential| credential.path = "/srv/other".to_owned());
        }
        assert!(holds(&[first(), elsewhere], "t1"));
    }
}
