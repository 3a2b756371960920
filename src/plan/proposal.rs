//! What a run would do, to be shown, signed, and run exactly so: the content of a plan file.
//!
//! It holds names, references, fingerprints and digests, never a secret. Two proposals of the same files over hosts that stand
//! alike say the same but for who made them and when; [`Proposal::differences`] tells in what they are not alike.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    ApprovalPolicy, Host, HostName, HostStatus, Once, Rollout, RunId, SecretName, SecretSource, Services, StepStatus,
    Vars,
};
use crate::remote::{Act, HostFacts};
use crate::step::{HostPlan, PlannedStep, Work, sha_hex};

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The version of keyswap that made it, and that runs it.
    pub version: String,
    /// A number used once: no two plans are one.
    pub nonce: String,
    /// When it was made.
    pub made: Timestamp,
    /// By whom.
    pub by: String,
    /// What is to be done.
    pub wanted: Wanted,
    /// The playbook's name.
    pub name: String,
    /// The files, as they were read.
    pub files: Vec<FileSeen>,
    /// Whose approval it needs.
    pub approval: Vec<ApprovalPolicy>,
    /// Batches, budget and scope.
    pub rollout: Rollout,
    /// Where the secrets come from, and what they are where that is known.
    pub secrets: BTreeMap<SecretName, SecretSeen>,
    /// The servers of the environment.
    pub services: Services,
    /// What would be done on each host, in the run's order.
    pub hosts: Vec<ProposedHost>,
    /// Hosts that could not be reached and are left out.
    pub left_out: Vec<LeftOut>,
}

/// What the operator asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The playbook's file.
    pub playbook: Utf8PathBuf,
    /// The inventory's files.
    pub inventory: Vec<Utf8PathBuf>,
    /// Which of its hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Variables that outrank all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: Vars,
    /// The login user, over the inventory's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The login key, over the inventory's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Utf8PathBuf>,
    /// Whether root is wanted where the inventory asks for none.
    pub become_root: bool,
    /// Whether hosts that cannot be reached are left out.
    pub skip_unreachable: bool,
}

/// A file that the plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSeen {
    /// `playbook`, `inventory` or `identity`.
    pub what: String,
    /// Its name.
    pub path: Utf8PathBuf,
    /// SHA-256 (hex) of its content.
    pub sha256: String,
}

/// A secret, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSeen {
    /// Where it comes from.
    pub source: SecretSource,
    /// What was read there; nothing of one that is minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// One host of a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedHost {
    /// Its name, how it is reached, its variables.
    pub host: Host,
    /// Which machine answered, and as whom we work there.
    pub machine: String,
    /// Its batch, counted from 1.
    pub batch: u32,
    /// Whether it would be changed.
    pub changes: bool,
    /// What its credential files hold.
    pub credentials: BTreeMap<String, String>,
    /// Its steps.
    pub steps: Vec<ProposedStep>,
    /// What is worth knowing before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// SHA-256 (hex) of every act with its whole way back.
    pub acts: String,
}

/// One step of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedStep {
    /// Its place and name.
    pub step: String,
    /// Whether it runs on each host, once for the batch, or once for the run.
    pub once: Once,
    /// Whether it would change the host.
    pub status: StepStatus,
    /// What it would do, in a few words.
    pub detail: String,
    /// Line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<String>,
    /// The longest that it may take, in seconds, where it has a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
}

/// A host that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Which.
    pub host: HostName,
    /// As what.
    pub status: HostStatus,
}

impl ProposedHost {
    /// What a plan says of a host. The run's own id is not part of it: it is another one each time.
    #[must_use]
    pub fn of(host: &Host, facts: &HostFacts, batch: u32, plan: &HostPlan, run: &RunId) -> Self {
        let word = |fingerprint: Option<String>| fingerprint.unwrap_or_else(|| "absent".to_owned());
        let now = plan.credentials.iter();
        Self {
            host: host.clone(),
            machine: format!("{} as uid {} ({}, {})", facts.machine, facts.uid, facts.login, facts.state_dir),
            batch,
            changes: plan.changes(),
            credentials: now.map(|c| (c.path.clone(), word(c.now.as_ref().map(ToString::to_string)))).collect(),
            steps: plan.steps.iter().map(ProposedStep::of).collect(),
            notes: plan.notes.clone(),
            acts: acts(plan, run),
        }
    }

    fn differs(&self, now: &Self) -> Option<String> {
        let name = &self.host.name;
        if self.host != now.host {
            return Some(format!("{name}: the inventory says something else of it"));
        }
        if self.machine != now.machine {
            return Some(format!("{name}: another machine answers, or we work there as somebody else"));
        }
        if self.batch != now.batch {
            return Some(format!("{name}: it would be in batch {}, and was in batch {}", now.batch, self.batch));
        }
        for (path, was) in &self.credentials {
            if let Some(is) = now.credentials.get(path).filter(|is| *is != was) {
                return Some(format!("{name}: {path} held {was}, and holds {is} now"));
            }
        }
        for (was, is) in self.steps.iter().zip(&now.steps) {
            if (&was.step, was.status, was.once) != (&is.step, is.status, is.once) {
                return Some(format!("{name}: step {} was to be {}, and is {} now", was.step, was.status, is.status));
            }
            if was.diff != is.diff {
                return Some(format!("{name}: step {} would do something else now", was.step));
            }
        }
        (self != now).then(|| format!("{name}: it stands otherwise than when the plan was made"))
    }
}

impl ProposedStep {
    fn of(step: &PlannedStep) -> Self {
        // What a service manager says of a runner differs from look to look (its pid, for one), and is no part of the plan.
        let passing = matches!(step.work, Work::Act { act: Act::Restart { was_up: true, .. }, .. });
        let settled = |text: &String| match text.split_once(" (") {
            Some((first, _)) if passing => first.to_owned(),
            _ => text.clone(),
        };
        Self {
            step: step.id.to_string(),
            once: step.once,
            status: step.status,
            detail: settled(&step.detail),
            diff: step.diff.iter().map(settled).collect(),
            at_most: step.at_most().map(|limit| limit.as_secs()),
        }
    }
}

/// Everything that would be done, with its way back.
fn acts(plan: &HostPlan, run: &RunId) -> String {
    let works: Vec<_> = plan.steps.iter().map(|step| (&step.id, step.retries, step.drain, &step.work)).collect();
    // Plain data without maps: it always serialises, and always alike.
    let all = serde_json::to_string(&(works, &plan.undo, &plan.superseded, &plan.taken_out)).unwrap_or_default();
    sha_hex(&[all.replace(run.as_str(), "RUN").as_bytes()])
}

impl Proposal {
    /// In what a plan that is made now differs from this one: nothing, if it may run.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.version != now.version {
            found.push(format!("it was made by keyswap {}, and this is {}", self.version, now.version));
        }
        for was in &self.files {
            let same = |is: &&FileSeen| is.what == was.what && is.sha256 == was.sha256;
            if !now.files.iter().any(|is| same(&is)) {
                found.push(format!("the {} is another one than {} was", was.what, was.path));
            }
        }
        let mut say = |same: bool, what: &str| {
            if !same {
                found.push(what.to_owned());
            }
        };
        say(self.files.len() == now.files.len(), "it was made from other files");
        say(self.wanted.limit == now.wanted.limit, "other hosts are selected (--limit)");
        say(self.wanted.variables == now.wanted.variables, "the variables (-e) are others");
        say(self.approval == now.approval, "the approvals that are demanded are others");
        say(self.rollout == now.rollout, "the rollout is another one");
        say(self.services == now.services, "the servers are others");
        for (name, was) in &self.secrets {
            match now.secrets.get(name) {
                Some(is) if is == was => {}
                Some(is) if is.source == was.source => {
                    let word = |seen: &SecretSeen| seen.fingerprint.clone().unwrap_or_else(|| "to come".to_owned());
                    found.push(format!("the secret `{name}` was {}, and is {} now", word(was), word(is)));
                }
                _ => found.push(format!("the secret `{name}` comes from somewhere else")),
            }
        }
        let names = |all: &Self| -> (Vec<HostName>, Vec<HostName>) {
            let hosts = all.hosts.iter().map(|host| host.host.name.clone()).collect();
            (hosts, all.left_out.iter().map(|left| left.host.clone()).collect())
        };
        if names(self) == names(now) {
            found.extend(self.hosts.iter().zip(&now.hosts).filter_map(|(was, is)| was.differs(is)));
        } else {
            found.push("other hosts are selected, or others can be reached".to_owned());
        }
        let alike = Self {
            nonce: self.nonce.clone(),
            made: self.made,
            by: self.by.clone(),
            // Files may lie elsewhere: what counts is what stands in them.
            wanted: Wanted {
                playbook: self.wanted.playbook.clone(),
                inventory: self.wanted.inventory.clone(),
                ..now.wanted.clone()
            },
            files: self.files.clone(),
            ..now.clone()
        };
        if found.is_empty() && alike != *self {
            found.push("it is not the plan that would be made now".to_owned());
        }
        found
    }

    /// Whether any host would be changed.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.hosts.iter().any(|host| host.changes)
    }
}

/// A limit in words that people use.
#[must_use]
pub fn for_people(limit: Duration) -> String {
    match limit.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds >= 120 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{seconds} s"),
    }
}
