//! Plain data: names, ids, the inventory, the playbook, fingerprints, outcomes, an error's text. No I/O happens here.

pub mod algorithms;
mod approval;
mod chain;
mod fingerprint;
mod identity;
mod inventory;
mod name;
mod outcome;
mod path;
mod playbook;
mod proof;

pub use approval::ApprovalProof;
pub use chain::chain;
pub use fingerprint::{Fingerprint, ParseFingerprintError};
pub use identity::{Access, IdentityScope, IdentitySpec};
pub use inventory::{
    Algorithms, ApprovalPolicy, Become, Connection, Group, Host, Inventory, Jump, KnownCredential, Origin, Origins,
    Service, Services, Vars,
};
pub use name::{BadName, HostName, RunId};
pub use outcome::{CredentialState, HostResult, HostStatus, RunStatus, StepStatus};
pub use path::{BadPath, RemotePath};
pub use playbook::{
    Action, Approve, AssertNotStored, Backup, BatchSize, Command, CommandLine, Drain, EnvFormat, Http, OnFailure, Once,
    Place, Point, Prove, PublishOn, Reaches, Restart, RestartHow, Restore, Rollout, SecretName, SecretSource, Step,
    StepRef, VerifyPublish, Wait, WaitFor,
};
pub use proof::{ProofRow, Verdict};
