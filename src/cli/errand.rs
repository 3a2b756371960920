//! Plans for what is done beside a run and needs an approval where one is demanded: the end of an old credential, an identity.
//!
//! What is shown, what is signed and what is compared when it is done are the same lines.

use camino::Utf8Path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::CliError;
use super::order::{Warrant, demands_none, no, plan_of, read, unused};
use super::session::Session;
use crate::approval::{Kind, Sealed};
use crate::model::ApprovalPolicy;

/// The plan of an errand. [`super::approve`] shows `says`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Errand {
    version: String,
    nonce: String,
    made: Timestamp,
    by: String,
    approval: Vec<ApprovalPolicy>,
    says: Vec<String>,
}

/// The operator's word on plans: write one, follow one, or neither.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct PlanFiles {
    /// Do nothing: write what would be done into a plan file, to be approved
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    pub(super) out: Option<camino::Utf8PathBuf>,
    /// Do exactly what this plan file says, if it was approved and nothing has changed since
    #[arg(long, value_name = "FILE")]
    pub(super) plan: Option<camino::Utf8PathBuf>,
}

/// What may be done.
pub(super) enum Leave {
    /// All of it: nobody's approval is demanded, and no plan is followed.
    Free,
    /// All of it, by this plan.
    By(Box<Warrant>),
    /// Nothing: the plan was written.
    Written,
}

impl PlanFiles {
    /// Refuses, before anybody is asked anything, what needs an approval and has no plan.
    pub(super) fn may_begin(
        &self,
        session: &Session,
        policies: &[ApprovalPolicy],
        command: &str,
    ) -> Result<(), CliError> {
        if self.out.is_some() || self.plan.is_some() {
            return Ok(());
        }
        let with = |option: &str| session.typed(&format!("{command} {option} FILE"));
        let leads_on = format!("{}\nkeyswap approve FILE --signer NAME\n{}", with("--out"), with("--plan"));
        demands_none(policies, &leads_on)
    }

    /// Decides, once it is known what would be done.
    pub(super) fn leave(
        &self,
        session: &Session,
        kind: Kind,
        says: &[String],
        policies: &[ApprovalPolicy],
    ) -> Result<Leave, CliError> {
        let operator = session.operator();
        let errand = Errand {
            version: operator.version.clone(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            made: Timestamp::now(),
            by: format!("{}@{}", operator.user, operator.host),
            approval: policies.to_vec(),
            says: says.to_vec(),
        };
        if let Some(out) = &self.out {
            write(session, kind, &errand, out)?;
            return Ok(Leave::Written);
        }
        let Some(file) = &self.plan else {
            // Asked before anything was looked at; asked again, where it counts.
            demands_none(policies, "make a plan first (--out FILE)")?;
            return Ok(Leave::Free);
        };
        let sealed = read(file, kind)?;
        let planned: Errand = plan_of(&sealed, file)?;
        unused(&session.store()?, &sealed)?;
        let alike = Errand { nonce: planned.nonce.clone(), made: planned.made, by: planned.by.clone(), ..errand };
        if alike != planned {
            let other = planned.says.iter().zip(&alike.says).find(|(was, is)| was != is);
            let (was, is) = other.map_or(("its conditions", "others"), |(was, is)| (was.as_str(), is.as_str()));
            return Err(no(format!("{file} is stale: it says `{was}`, and now it would be `{is}`")));
        }
        Ok(Leave::By(Box::new(Warrant::open(sealed, file, policies)?)))
    }
}

fn write(session: &Session, kind: Kind, errand: &Errand, out: &Utf8Path) -> Result<(), CliError> {
    let plan = serde_json::to_value(errand).map_err(|error| CliError::internal("cannot write the plan", error))?;
    let sealed = Sealed::new(kind, plan);
    sealed.write(out).map_err(|error| CliError::usage(error.to_string()))?;
    let mut said = session.out();
    match session.global.output {
        super::args::Output::Jsonl => {
            said.json(&serde_json::json!({ "event": "plan-written", "path": out, "digest": sealed.digest() }));
        }
        _ => said.line(&format!("plan: {out} ({})", sealed.digest())),
    }
    Ok(())
}
