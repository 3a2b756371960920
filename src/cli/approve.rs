//! `keyswap approve`: shows what a plan says, and signs its digest.

use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::CliError;
use super::args::Output;
use super::order::{open, plan_of};
use super::session::Session;
use crate::approval::{AllowedSigners, Kind, NAMESPACE, Sealed, Statement, signer_name};
use crate::model::{ApprovalPolicy, StepStatus};
use crate::plan::{Proposal, for_people};
use crate::remote::ssh::SignerKey;

/// How long an approval holds where the plan demands none.
const VALID: Duration = Duration::from_secs(4 * 3600);

/// What is approved, and by whom.
#[derive(Debug, clap::Args)]
pub(super) struct ApproveArgs {
    /// The plan's file
    pub(super) plan: Utf8PathBuf,
    /// Who signs: the name in `allowed_signers`
    #[arg(long, value_name = "NAME")]
    pub(super) signer: String,
    /// The SSH key that signs, or its public half while an agent holds the other; without it, the agent's only key
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<Utf8PathBuf>,
    /// A line that is signed with it
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: Option<String>,
}

pub(super) async fn approve(session: &Session, args: &ApproveArgs) -> Result<u8, CliError> {
    let usage = |error: crate::approval::StatementError| CliError::usage(error.to_string());
    signer_name(&args.signer).map_err(usage)?;
    let sealed = open(&args.plan)?;
    let policies = show(session, &sealed, args)?;
    let valid = policies.iter().map(|policy| Duration::from_secs(policy.valid_seconds)).min().unwrap_or(VALID);
    let statement =
        Statement::new(sealed.kind, sealed.digest(), &args.signer, (Timestamp::now(), valid), args.comment.as_deref())
            .map_err(usage)?;
    let zone = TimeZone::system();
    let books: Vec<_> = policies.iter().map(|policy| AllowedSigners::read(&policy.allowed_signers, &zone)).collect();
    let known = |key: &SignerKey| books.iter().flatten().any(|book| book.knows(&args.signer, key));
    let signers = session.signers();
    let signed = signers.sign(args.key.as_deref(), known, NAMESPACE, &statement.bytes()).await;
    let (signature, key) = signed.map_err(|error| CliError::usage(crate::model::chain(&error)))?;
    let path = statement
        .write(&args.plan, &signature)
        .map_err(|error| CliError::internal(&format!("cannot write beside {}", args.plan), error))?;
    say(session, &statement, &key, path.as_str());
    for book in &books {
        let stands = match book {
            Ok(book) => book.allows(&args.signer, &key, Timestamp::now()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = stands {
            session.warn(&format!("as things stand this approval does not count: {why}"));
        }
    }
    Ok(0)
}

/// Shows what is about to be signed; gives back whose approval it needs.
fn show(session: &Session, sealed: &Sealed, args: &ApproveArgs) -> Result<Vec<ApprovalPolicy>, CliError> {
    let (lines, policies) = match sealed.kind {
        Kind::Run => {
            let proposal: Proposal = plan_of(sealed, &args.plan)?;
            (said_of(&proposal), proposal.approval)
        }
        kind => {
            let policies = sealed.plan.get("approval").cloned().unwrap_or_default();
            let policies = serde_json::from_value(policies).unwrap_or_default();
            let what = sealed.plan.get("says").and_then(|says| serde_json::from_value(says.clone()).ok());
            (what.unwrap_or_else(|| vec![kind.as_str().to_owned()]), policies)
        }
    };
    if session.global.output != Output::Jsonl {
        let mut out = session.out();
        for line in lines {
            out.line(&crate::report::sanitize::line(&line, 400));
        }
    }
    Ok(policies)
}

/// A plan in lines for people.
pub(super) fn said_of(proposal: &Proposal) -> Vec<String> {
    let Proposal { name, by, made, rollout, hosts, .. } = proposal;
    let changed = hosts.iter().filter(|host| host.changes).count();
    let mut lines = vec![
        format!("plan: {name}, on {changed} of {} hosts; made by {by} at {made}", hosts.len()),
        format!("  {:?}: at most {} failures are borne", rollout.on_failure, rollout.max_failures),
    ];
    for (secret, seen) in &proposal.secrets {
        let what = seen.fingerprint.clone().unwrap_or_else(|| "minted for this run".to_owned());
        lines.push(format!("  secret {secret}: {what}"));
    }
    for host in hosts {
        let word = if host.changes { "" } else { " (nothing to change)" };
        lines.push(format!("  {} [batch {}]{word}", host.host.name, host.batch));
        for step in host.steps.iter().filter(|step| step.status != StepStatus::Skipped) {
            let limit = step.at_most.map(|limit| format!(" [at most {}]", for_people(Duration::from_secs(limit))));
            let limit = limit.unwrap_or_default();
            lines.push(format!("    {} {}: {}{limit}", step.status, step.step, step.detail));
            if step.status == StepStatus::Changed {
                lines.extend(step.diff.iter().map(|line| format!("      {line}")));
            }
        }
        lines.extend(host.notes.iter().map(|note| format!("    note: {note}")));
    }
    lines
}

fn say(session: &Session, statement: &Statement, key: &SignerKey, path: &str) {
    let Statement { plan, signer, expires, .. } = statement;
    let key = key.fingerprint();
    let mut out = session.out();
    if session.global.output == Output::Jsonl {
        let line = json!({
            "event": "approved", "plan": plan, "signer": signer, "key": key, "expires": expires, "file": path,
        });
        out.json(&line);
        return;
    }
    out.line(&format!("approved {plan}"));
    out.line(&format!("  by `{signer}` with {key}, until {expires}"));
    out.line(&format!("  {path} and {path}.sig"));
}
