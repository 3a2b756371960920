//! Passwords that many hosts take: tried on one host before others get them, and kept back once a host has refused.
//!
//! Hosts of one directory count together: a wrong password that goes to all of them at once locks the account. So no more hosts
//! try a password at a time than have taken it already (at first one), none gets it after the first refusal but those that
//! have taken it before, and the host that refused it never sees it again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::SecretSource;

/// What a password opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Opens {
    /// The login.
    Login,
    /// The way to root.
    Root,
}

/// What is known of each password, for the life of the process.
#[derive(Default)]
pub struct Trials(Mutex<HashMap<Which, Arc<Trial>>>);

/// A password: what it opens, for which user, and where it comes from, if not from the operator's own hand.
type Which = (Opens, String, Option<SecretSource>);

impl Trials {
    /// What is known of a user's password from one source; without a source, of the one that was asked for.
    pub(crate) fn of(&self, opens: Opens, user: &str, source: Option<&SecretSource>) -> Arc<Trial> {
        let mut trials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(trials.entry((opens, user.to_owned(), source.cloned())).or_default())
    }
}

/// What is known of one password.
#[derive(Default)]
pub(crate) struct Trial {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    took: HashSet<String>,
    /// The hosts that refused it, first one first.
    refused: Vec<String>,
    trying: usize,
}

/// Who refused the password before, so that it is kept back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} refused it before, so it is given to no other: accounts are locked after a few wrong ones")]
pub struct KeptBack {
    /// The first host that refused it.
    pub host: String,
}

/// Leave to give the password to one host.
pub(crate) struct Leave {
    trial: Arc<Trial>,
    host: String,
    /// It counts among those who are trying.
    counts: bool,
}

impl Trial {
    /// Waits for leave to give the password to a host.
    pub(crate) async fn leave(self: &Arc<Self>, host: &str) -> Result<Leave, KeptBack> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before the look: an end after it is not missed.
            ended.as_mut().enable();
            if let Some(answer) = self.decide(host) {
                return answer;
            }
            ended.await;
        }
    }

    fn decide(self: &Arc<Self>, host: &str) -> Option<Result<Leave, KeptBack>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.took.contains(host);
        if let Some(first) = state.refused.first()
            && !known
        {
            return Some(Err(KeptBack { host: first.clone() }));
        }
        if !known && state.trying >= state.took.len().max(1) {
            return None;
        }
        if !known {
            state.trying += 1;
        }
        Some(Ok(Leave { trial: Arc::clone(self), host: host.to_owned(), counts: !known }))
    }
}

impl Leave {
    /// The host took it.
    pub(crate) fn taken(self) {
        self.with(|state, host| {
            state.took.insert(host);
        });
    }

    /// The host refused it.
    pub(crate) fn refused(self) {
        self.with(|state, host| {
            state.took.remove(&host);
            state.refused.push(host);
        });
    }

    fn with(&self, change: impl FnOnce(&mut State, String)) {
        change(&mut self.trial.state.lock().unwrap_or_else(PoisonError::into_inner), self.host.clone());
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.counts {
            self.with(|state, _| state.trying = state.trying.saturating_sub(1));
        }
        self.trial.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn ask(trial: &Arc<Trial>, host: &str) -> Option<Result<Leave, KeptBack>> {
        trial.leave(host).now_or_never()
    }

    #[tokio::test]
    async fn one_host_first_then_as_many_as_have_taken_it() {
        let trial = Arc::new(Trial::default());
        let first = ask(&trial, "h1").unwrap().unwrap();
        assert!(ask(&trial, "h2").is_none(), "not while the first one is at it");
        let waiting = tokio::spawn({
            let trial = Arc::clone(&trial);
            async move { trial.leave("h2").await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert!(ask(&trial, "h1").is_none(), "that it was not asked for proves nothing");
        second.taken();
        ask(&trial, "h3").unwrap().unwrap().taken();
        let (_fourth, _fifth) = (ask(&trial, "h4").unwrap().unwrap(), ask(&trial, "h5").unwrap().unwrap());
        assert!(ask(&trial, "h6").is_none());
        assert!(ask(&trial, "h2").unwrap().is_ok(), "it goes to a host that has taken it at any time");
    }

    #[tokio::test]
    async fn after_a_refusal_only_those_get_it_that_took_it_before() {
        let trial = Arc::new(Trial::default());
        ask(&trial, "h1").unwrap().unwrap().taken();
        let second = ask(&trial, "h2").unwrap().unwrap();
        let waiting = tokio::spawn({
            let trial = Arc::clone(&trial);
            async move { trial.leave("h3").await.err() }
        });
        tokio::task::yield_now().await;
        second.refused();
        assert_eq!(waiting.await.unwrap(), Some(KeptBack { host: "h2".to_owned() }));
        assert!(ask(&trial, "h2").unwrap().is_err(), "it sees it no second time");
        let again = ask(&trial, "h1").unwrap().unwrap();
        again.refused();
        assert!(ask(&trial, "h1").unwrap().is_err());
    }

    #[test]
    fn passwords_of_other_users_and_sources_are_others() {
        let trials = Trials::default();
        let source = SecretSource::Env { name: "A".to_owned() };
        let one = trials.of(Opens::Root, "ops", None);
        assert!(Arc::ptr_eq(&one, &trials.of(Opens::Root, "ops", None)));
        for other in [
            trials.of(Opens::Login, "ops", None),
            trials.of(Opens::Root, "eve", None),
            trials.of(Opens::Root, "ops", Some(&source)),
        ] {
            assert!(!Arc::ptr_eq(&one, &other));
        }
    }
}
