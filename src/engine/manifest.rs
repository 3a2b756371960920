//! What each host keeps of the run that changes it, for an operator who has no journal of that run.
//!
//! A manifest holds references and digests, never a secret. It tells the way back and nothing of the way forward: who goes
//! on from the hosts alone must not run, ask or send anything because a host says so. What is read from a host is bounded
//! here, and its texts are made printable.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::journal::TokenState;
use crate::model::{CredentialState, Fingerprint, HostName, RunId, SecretName, StepRef};
use crate::remote::UndoRecord;
use crate::step::{HostPlan, Superseded};

/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Longer ones were not written by us.
const MAX_TEXT: usize = 512 * 1024;
/// Of larger runs the hosts' names are left out: each host would keep them all.
const MAX_HOSTS: usize = 500;
/// The longest limit that a host may ask us to wait for.
const MAX_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The longest word or line that is taken from a host.
const MAX_WORD: usize = 300;

/// A run's token, as its hosts keep it: by that it is found at its issuer. No secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenNote {
    /// The playbook's name for the secret.
    pub secret: SecretName,
    /// Its name at the issuer, which tells the run.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The identity's id.
    pub identity: String,
    /// What the identity is called.
    pub identity_name: String,
    /// The server's address.
    pub server: String,
    /// Its end.
    pub expires: Timestamp,
    /// Its whole digest.
    pub fingerprint: Fingerprint,
}

impl TokenNote {
    /// Of a token that came.
    #[must_use]
    pub fn of(token: &TokenState) -> Option<Self> {
        let minted = token.minted.as_ref()?;
        Some(Self {
            secret: token.secret.clone(),
            name: token.name.clone(),
            id: minted.id.clone(),
            identity: token.identity.clone(),
            identity_name: token.identity_name.clone(),
            server: token.server.clone(),
            expires: minted.expires,
            fingerprint: minted.fingerprint.clone(),
        })
    }
}

/// What all hosts of a run are told of it.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The playbook's name.
    pub playbook: String,
    /// The plan's digest.
    pub digest: String,
    /// The run's hosts.
    pub hosts: Vec<HostName>,
    /// The token that was minted for it.
    pub token: Option<TokenNote>,
}

/// What one host keeps of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version.
    #[serde(rename = "keyswap-manifest")]
    pub format: u32,
    /// The run.
    pub run: RunId,
    /// The playbook's name.
    pub playbook: String,
    /// The plan's digest.
    pub digest: String,
    /// Who began it and from where.
    pub owner: String,
    /// When this host was prepared, by the controller's clock.
    pub prepared: Timestamp,
    /// What the run calls this host.
    pub host: HostName,
    /// Its batch.
    pub batch: u32,
    /// The run's hosts; empty if there are too many to tell.
    pub hosts: Vec<HostName>,
    /// The fingerprints of the run's secrets.
    pub secrets: BTreeMap<SecretName, Fingerprint>,
    /// The token that was minted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenNote>,
    /// How long the host waits for a sign of life.
    pub guard: Option<Duration>,
    /// The steps' names.
    pub steps: Vec<StepRef>,
    /// The way back, in its order.
    pub undo: Vec<UndoRecord>,
    /// What the credential files held before.
    pub credentials: Vec<CredentialState>,
    /// Files that a pointer named before, and does not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
    /// Credentials that stood in environment files themselves before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_out: Vec<Fingerprint>,
}

impl Manifest {
    pub(super) fn new(shared: &Shared, host: &HostName, batch: u32, plan: &HostPlan) -> Self {
        let about = &shared.about;
        let names = if about.hosts.len() > MAX_HOSTS { Vec::new() } else { about.hosts.clone() };
        let secrets = shared.values.iter().map(|(name, value)| (name.clone(), value.fingerprint().clone()));
        Self {
            format: FORMAT,
            run: shared.run.clone(),
            playbook: about.playbook.clone(),
            digest: about.digest.clone(),
            owner: shared.owner.clone(),
            prepared: Timestamp::now(),
            host: host.clone(),
            batch,
            hosts: names,
            secrets: secrets.collect(),
            token: about.token.clone(),
            guard: shared.guard,
            steps: plan.steps.iter().map(|step| step.id.clone()).collect(),
            undo: plan.undo.clone(),
            credentials: plan.credentials.clone(),
            superseded: plan.superseded.clone(),
            taken_out: plan.taken_out.clone(),
        }
    }

    /// As one line.
    pub(super) fn text(&self) -> String {
        // Plain data with text keys: it always serialises, and JSON has no bare line ends.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what a host keeps of `run`.
    ///
    /// # Errors
    /// When it is none of ours, in a line.
    pub fn read(run: &RunId, text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err("its manifest is too long".to_owned());
        }
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|_| "its manifest is not whole".to_owned())?;
        match value.get("keyswap-manifest").and_then(serde_json::Value::as_u64) {
            Some(found) if found > u64::from(FORMAT) => return Err("its manifest is of a newer keyswap".to_owned()),
            Some(_) => {}
            None => return Err("its manifest is none".to_owned()),
        }
        let mut read: Self = serde_json::from_value(value).map_err(|_| "its manifest is not whole".to_owned())?;
        let limits = read.undo.iter().flat_map(|record| match record {
            UndoRecord::Service { healthy, timeout, .. } => vec![*healthy, *timeout],
            UndoRecord::Command { limit, .. } => vec![*limit],
            _ => Vec::new(),
        });
        if read.run != *run || limits.chain(read.guard).any(|limit| limit > MAX_LIMIT) || read.undo.len() > 1000 {
            return Err("its manifest is not of this run".to_owned());
        }
        if let Some(token) = &mut read.token {
            for text in
                [&mut token.name, &mut token.id, &mut token.identity, &mut token.identity_name, &mut token.server]
            {
                *text = printable(text);
            }
        }
        for text in [&mut read.playbook, &mut read.digest, &mut read.owner] {
            *text = printable(text);
        }
        for step in &mut read.steps {
            step.name = printable(&step.name);
        }
        Ok(read)
    }
}

/// A host's text as one bounded line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            run: "20260101-000000-abcdef".parse().unwrap(),
            playbook: "Rotate".to_owned(),
            digest: "0".to_owned(),
            owner: "operator@laptop pid 7".to_owned(),
            prepared: Timestamp::UNIX_EPOCH,
            host: "runner-01".parse().unwrap(),
            batch: 1,
            hosts: vec!["runner-01".parse().unwrap()],
            secrets: BTreeMap::new(),
            token: None,
            guard: Some(Duration::from_secs(60)),
            steps: vec![StepRef { index: 1, name: "place".to_owned() }],
            undo: vec![UndoRecord::Command { step: 1, script: "true".to_owned(), limit: Duration::from_secs(60) }],
            credentials: Vec::new(),
            superseded: Vec::new(),
            taken_out: Vec::new(),
        }
    }

    #[test]
    fn it_is_one_line_and_comes_back_whole() {
        let mut manifest = manifest();
        manifest.undo.push(UndoRecord::Command { step: 2, script: "a\n\tb".to_owned(), limit: Duration::ZERO });
        let text = manifest.text();
        assert!(!text.contains(['\n', '\t']), "{text}");
        assert_eq!(Manifest::read(&manifest.run, &text), Ok(manifest));
    }

    #[test]
    fn what_a_host_says_is_bounded_and_printable() {
        let good = manifest();
        let read = |change: fn(&mut Manifest)| {
            let mut bad = good.clone();
            change(&mut bad);
            Manifest::read(&good.run, &bad.text())
        };
        let owner = read(|m| m.owner = "\u{1b}[2Jx\r\n".repeat(200)).unwrap().owner;
        assert!(owner.chars().count() == MAX_WORD && !owner.contains(char::is_control), "{owner:?}");
        let refused: [fn(&mut Manifest); 4] = [
            |m| m.run = "20260101-000000-abcde0".parse().unwrap(),
            |m| m.guard = Some(Duration::MAX),
            |m| m.undo = vec![UndoRecord::Command { step: 1, script: String::new(), limit: Duration::MAX }],
            |m| m.format = FORMAT + 1,
        ];
        for change in refused {
            assert!(read(change).is_err());
        }
        let text = good.text();
        for text in ["", "{}", &text[..text.len() - 1], &" ".repeat(MAX_TEXT + 1)] {
            assert!(Manifest::read(&good.run, text).is_err(), "{text:.40}");
        }
    }
}
