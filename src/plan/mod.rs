//! What a run set out to do: everything that going on with it, or taking it back, needs. Kept beside its journal. And what
//! it would do: the content of a plan file.

mod proposal;

use serde::{Deserialize, Serialize};

pub use proposal::{FileSeen, LeftOut, Proposal, ProposedHost, ProposedStep, SecretSeen, Wanted, for_people};

use crate::model::{ApprovalPolicy, Host, Rollout, RunId, SecretName, SecretSource, Services};
use crate::step::HostPlan;

/// The plan of a run, as it is written before the run's first record. It holds references to secrets and digests, never
/// a secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The format's version.
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// It takes back another run, whose plan is not known: this is what its hosts recorded, and knows no way forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<RunId>,
    /// The playbook's name.
    pub playbook: String,
    /// Its batches, budget and scope.
    pub rollout: Rollout,
    /// Where its secrets come from.
    pub secrets: Vec<(SecretName, SecretSource)>,
    /// The servers of the environment.
    pub services: Services,
    /// Whose approval it needed; the end of its old credential needs theirs, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approval: Vec<ApprovalPolicy>,
    /// The hosts in the run's order.
    pub hosts: Vec<PlannedHost>,
    /// How many hosts are worked on at the same time.
    pub forks: usize,
    /// What the operator gave as inventory, for hints.
    pub inventory: String,
    /// The inventory's files, by their whole names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory_files: Vec<camino::Utf8PathBuf>,
}

/// One host of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedHost {
    /// How it is reached.
    pub host: Host,
    /// Its batch, counted from 1.
    pub batch: u32,
    /// What is to be done on it.
    pub plan: HostPlan,
}

/// The format that this version writes.
pub const VERSION: u32 = 1;

impl RunPlan {
    /// The run as its hosts know it.
    #[must_use]
    pub fn on_hosts(&self) -> &RunId {
        self.of.as_ref().unwrap_or(&self.run)
    }

    /// SHA-256 (hex) of the whole plan.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        crate::step::sha_hex(&[&text])
    }
}
