//! The approvals that lie beside a plan, and whether they are enough.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::NAMESPACE;
use super::sealed::Sealed;
use super::signers::AllowedSigners;
use super::statement::{Statement, read_small, signature_path};
use crate::model::ApprovalPolicy;
use crate::remote::ssh::{self, SignerKey};

/// How far the signer's clock may go before ours.
const SKEW: Duration = Duration::from_secs(300);
/// More files than this are not looked at.
const MOST: usize = 200;

/// A signed word on a plan: its signature is good, and it is about this plan.
#[derive(Debug, Clone)]
pub struct Approved {
    /// What was signed.
    pub statement: Statement,
    /// With which key.
    pub key: SignerKey,
    /// The signed bytes, for whoever wants to look again.
    pub text: String,
    /// The signature over them.
    pub signature: String,
}

/// What lies beside a plan.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// Words that count, if their signer may sign.
    pub good: Vec<Approved>,
    /// Words that do not, and why.
    pub refused: Vec<String>,
}

/// Not enough words count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.say())]
pub struct Insufficient {
    /// How many are needed.
    pub required: u32,
    /// How many count.
    pub found: usize,
    /// Why the others do not.
    pub reasons: Vec<String>,
}

impl Insufficient {
    fn say(&self) -> String {
        let Self { required, found, reasons } = self;
        let people = if *required == 1 { "signer" } else { "different signers" };
        let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        format!("it needs the approval of {required} {people}, and has {found}{why}")
    }
}

/// Reads the approvals beside a plan's file: `F.NAME.approval` with `F.NAME.approval.sig`.
///
/// # Errors
/// When the directory cannot be read.
pub fn gather(sealed: &Sealed, file: &Utf8Path) -> std::io::Result<Gathered> {
    let dir = file.parent().filter(|dir| !dir.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let prefix = format!("{}.", file.file_name().unwrap_or_default());
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(signer) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".approval")) {
            names.insert((signer.to_owned(), dir.join(name)));
        }
    }
    let mut gathered = Gathered::default();
    for (signer, path) in names.into_iter().take(MOST) {
        match one(sealed, &signer, &path) {
            Ok(approved) => gathered.good.push(approved),
            Err(why) => gathered.refused.push(why),
        }
    }
    Ok(gathered)
}

fn one(sealed: &Sealed, signer: &str, path: &Utf8PathBuf) -> Result<Approved, String> {
    let named = path.file_name().unwrap_or_default().escape_debug().to_string();
    let bytes = read_small(path)?;
    let statement = Statement::parse(&bytes).map_err(|why| format!("{named}: {why}"))?;
    let signature_at = signature_path(path);
    let signature = read_small(&signature_at).map_err(|_| format!("{named}: its signature is missing"))?;
    let signature = String::from_utf8(signature).map_err(|_| format!("{named}: its signature is none"))?;
    let key = ssh::verify(&signature, NAMESPACE, &bytes).map_err(|why| format!("{named}: {why}"))?;
    if statement.signer != signer {
        return Err(format!("{named}: it is signed by `{}`", statement.signer));
    }
    if statement.plan != sealed.digest() || statement.kind != sealed.kind {
        return Err(format!("{named}: it is for another plan ({})", short(&statement.plan)));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{named}: it is no text"))?;
    Ok(Approved { statement, key, text, signature })
}

/// Whether the words are enough for a policy; gives back those that count.
///
/// # Errors
/// When they are not, with the reasons.
pub fn satisfy(
    policy: &ApprovalPolicy,
    gathered: &Gathered,
    (now, zone): (Timestamp, &TimeZone),
) -> Result<Vec<Approved>, Insufficient> {
    let mut reasons = gathered.refused.clone();
    let mut count: Vec<Approved> = Vec::new();
    match AllowedSigners::read(&policy.allowed_signers, zone) {
        Err(error) => reasons.push(error.to_string()),
        Ok(signers) => {
            for approved in &gathered.good {
                match stands(policy, &signers, approved, now) {
                    Err(why) => reasons.push(why),
                    Ok(()) if count.iter().any(|other| other.key.is_same(&approved.key)) => {
                        reasons.push(format!("`{}` signed with another signer's key", approved.statement.signer));
                    }
                    Ok(()) => count.push(approved.clone()),
                }
            }
        }
    }
    // A policy cannot ask for less than one.
    let required = policy.required.max(1);
    if count.len() >= usize::try_from(required).unwrap_or(usize::MAX) {
        Ok(count)
    } else {
        Err(Insufficient { required, found: count.len(), reasons })
    }
}

fn stands(
    policy: &ApprovalPolicy,
    signers: &AllowedSigners,
    approved: &Approved,
    now: Timestamp,
) -> Result<(), String> {
    let Statement { signer, signed, expires, .. } = &approved.statement;
    if *expires <= now {
        return Err(format!("the approval of `{signer}` expired at {expires}"));
    }
    let longest = Duration::from_secs(policy.valid_seconds).saturating_add(SKEW);
    if now.checked_add(longest).is_ok_and(|latest| *expires > latest) {
        return Err(format!("the approval of `{signer}` holds for longer than the policy allows (until {expires})"));
    }
    if now.checked_add(SKEW).is_ok_and(|latest| *signed > latest) {
        return Err(format!("the approval of `{signer}` was signed in the future ({signed})"));
    }
    signers.allows(signer, &approved.key, now)
}

/// A digest for people.
fn short(digest: &str) -> String {
    digest.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ':').take(19).collect()
}
