//! `keyswap run --plan`: exactly that plan, if it may run. What says no here says it before any host is asked, except that the
//! hosts have changed since.
//!
//! Invariants: whoever demands an approval is asked anew, from the files as they are now; a plan is used up, synced, before
//! the run's journal begins; every doubt is a no (7).

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::CliError;
use super::args::RunArgs;
use super::inventory::{Selected, word};
use super::propose::{files, seen, whole_paths};
use super::run::{self, Purpose};
use super::session::Session;
use crate::approval::{self, AllowedSigners, Approved, Kind, Sealed, SealedError};
use crate::event::{EventKind, Sink};
use crate::journal::{Operator, Record, Store};
use crate::model::{ApprovalPolicy, ApprovalProof, RunId};
use crate::plan::{Proposal, Wanted};
use crate::step::Proofs;

/// A plan with what makes it good.
pub(super) struct Order {
    pub(super) proposal: Proposal,
    pub(super) warrant: Warrant,
}

/// A sealed plan, and the approvals of it that count.
pub(super) struct Warrant {
    sealed: Sealed,
    proofs: Vec<ApprovalProof>,
    allowed_signers: Vec<String>,
}

pub(super) async fn run(session: &Session, args: &RunArgs, file: &Utf8Path) -> Result<u8, CliError> {
    let sealed = read(file, Kind::Run)?;
    let proposal: Proposal = plan_of(&sealed, file)?;
    let version = session.operator().version;
    if proposal.version != version {
        return Err(no(format!("{file} was made by keyswap {}, and this is {version}: plan anew", proposal.version)));
    }
    unused(&session.store()?, &sealed)?;
    let wanted = whole_paths(
        session,
        Wanted {
            playbook: args.playbook.clone().unwrap_or_else(|| proposal.wanted.playbook.clone()),
            inventory: match args.select.inventory.as_slice() {
                [] => proposal.wanted.inventory.clone(),
                named => named.to_vec(),
            },
            ..proposal.wanted.clone()
        },
    )?;
    same_files(&proposal, &wanted)?;
    let selected = Selected::load(session, &wanted, None)?;
    if files(&wanted, &selected)?.iter().map(|file| &file.sha256).ne(proposal.files.iter().map(|file| &file.sha256)) {
        return Err(no(format!("{file} is stale: it was made from other files")));
    }
    if selected.approval() != proposal.approval {
        return Err(no(format!("{file} is stale: other approvals are demanded now")));
    }
    let warrant = Warrant::open(sealed, file, &proposal.approval)?;
    if !args.check && !args.yes && !super::prompt::Terminal::is_there() {
        return Err(CliError::usage("run asks before it changes anything: give --yes, or run it on a terminal"));
    }
    let args = RunArgs { skip_unreachable: wanted.skip_unreachable, ..args.clone() };
    let order = Order { proposal, warrant };
    run::go(session, &args, (&wanted, &selected), &Purpose::Follow(&order)).await
}

/// Files as the plan knows them; what they select needs no look when they are others.
fn same_files(proposal: &Proposal, wanted: &Wanted) -> Result<(), CliError> {
    let named = std::iter::once(("playbook", &wanted.playbook));
    let now: Vec<_> = named.chain(wanted.inventory.iter().map(|path| ("inventory", path))).collect();
    let was: Vec<_> = proposal.files.iter().filter(|file| file.what != "identity").collect();
    if was.len() != now.len() {
        return Err(no("the plan was made from other files"));
    }
    for (was, (what, path)) in was.into_iter().zip(now) {
        let is = seen(what, path).map_err(|error| no(error.to_string()))?;
        if (was.what.as_str(), &was.sha256) != (what, &is.sha256) {
            return Err(no(format!("the plan is stale: the {what} {path} is another one than it was made from")));
        }
    }
    Ok(())
}

impl Order {
    /// Whether the plan that would be made now is the same one.
    ///
    /// # Errors
    /// In what it is another one.
    pub(super) fn is_fresh(&self, now: &Proposal) -> Result<(), Vec<String>> {
        let found = self.proposal.differences(now);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

impl Warrant {
    /// A plan with the approvals that lie beside it, if they are enough for each of these policies.
    ///
    /// # Errors
    /// 7, with the reasons and what leads on.
    pub(super) fn open(sealed: Sealed, file: &Utf8Path, policies: &[ApprovalPolicy]) -> Result<Self, CliError> {
        let gathered = approval::gather(&sealed, file)
            .map_err(|error| no(format!("the approvals beside {file} cannot be read: {error}")))?;
        let zone = TimeZone::system();
        let (mut proofs, mut allowed_signers) = (Vec::<ApprovalProof>::new(), Vec::new());
        for policy in policies {
            let approved = approval::satisfy(policy, &gathered, (Timestamp::now(), &zone)).map_err(|why| {
                no(format!("{file}: {why}\nto approve it: keyswap approve {} --signer NAME", word(file.as_str())))
            })?;
            for proof in approved.iter().map(proof) {
                if !proofs.contains(&proof) {
                    proofs.push(proof);
                }
            }
            let digest = AllowedSigners::read(&policy.allowed_signers, &zone).map(|read| read.digest().to_owned());
            allowed_signers.extend(digest.ok());
        }
        Ok(Self { sealed, proofs, allowed_signers })
    }

    /// Says whose approvals count.
    pub(super) fn say(&self, events: &Sink) {
        for proof in &self.proofs {
            let ApprovalProof { signer, key, signed, expires, comment, .. } = proof.clone();
            events.emit(None, None, EventKind::Approval { signer, key, signed, expires, comment });
        }
    }

    /// Uses the plan up.
    ///
    /// # Errors
    /// When it was used before.
    pub(super) fn claim(&self, store: &Store, by_run: &str, by: &Operator) -> Result<(), CliError> {
        Ok(store.claim(self.sealed.digest(), by_run, by)?)
    }

    /// Who signed.
    pub(super) fn names(&self) -> String {
        let name = |proof: &ApprovalProof| format!("`{}` ({})", proof.signer, proof.key);
        self.proofs.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// What was signed, by whom.
    pub(super) fn proofs(self) -> Proofs {
        Proofs { plan: self.sealed.digest().to_owned(), approvals: self.proofs, allowed_signers: self.allowed_signers }
    }

    /// What the journal keeps of it.
    pub(super) fn record(&self) -> Record {
        Record::PlanApproved {
            what: self.sealed.kind.as_str().to_owned(),
            plan: self.sealed.digest().to_owned(),
            approvals: self.proofs.clone(),
            allowed_signers: self.allowed_signers.clone(),
        }
    }

    /// Keeps the plan itself beside a run's journal: what was signed can be read as long as the run is known.
    pub(super) fn keep(&self, store: &Store, run: &RunId, events: &Sink) {
        let path = store.dir(run).path().join("approved-plan.json");
        let kept = Utf8PathBuf::from_path_buf(path).map(|path| self.sealed.write(&path));
        if !matches!(kept, Ok(Ok(()))) {
            events.warn(None, "the plan itself could not be kept beside the journal; its digest is");
        }
    }
}

fn proof(approved: &Approved) -> ApprovalProof {
    let Approved { statement, key, text, signature } = approved;
    ApprovalProof {
        signer: statement.signer.clone(),
        key: key.fingerprint(),
        signed: statement.signed,
        expires: statement.expires,
        comment: statement.comment.clone(),
        statement: text.clone(),
        signature: signature.clone(),
    }
}

/// A refusal (7).
pub(super) fn no(why: impl Into<String>) -> CliError {
    CliError::Approval(why.into())
}

/// Reads a plan of some kind.
pub(super) fn read(file: &Utf8Path, kind: Kind) -> Result<Sealed, CliError> {
    let sealed = open(file)?;
    if sealed.kind != kind {
        return Err(no(format!("{file} is a plan for `{}`, not for `{}`", sealed.kind.as_str(), kind.as_str())));
    }
    Ok(sealed)
}

/// Reads any plan.
pub(super) fn open(file: &Utf8Path) -> Result<Sealed, CliError> {
    Sealed::read(file).map_err(|error| match error {
        SealedError::Io { .. } => CliError::usage(error.to_string()),
        _ => no(error.to_string()),
    })
}

/// What a plan says.
pub(super) fn plan_of<T: serde::de::DeserializeOwned>(sealed: &Sealed, file: &Utf8Path) -> Result<T, CliError> {
    // Not the parser's own words: they may quote the file.
    serde_json::from_value(sealed.plan.clone())
        .map_err(|_| no(format!("{file} does not say what a plan for `{}` says", sealed.kind.as_str())))
}

/// A plan runs once.
pub(super) fn unused(store: &Store, sealed: &Sealed) -> Result<(), CliError> {
    match store.used(sealed.digest())? {
        None => Ok(()),
        Some(when) => Err(crate::journal::JournalError::PlanUsed(when).into()),
    }
}

/// Refuses to change anything without a plan where one is demanded.
pub(super) fn demands_none(policies: &[ApprovalPolicy], leads_on: &str) -> Result<(), CliError> {
    let Some(policy) = policies.first() else { return Ok(()) };
    let people = if policy.required == 1 { "one signer".to_owned() } else { format!("{} signers", policy.required) };
    Err(no(format!("this needs an approval ([approval]: {people} of {}):\n{leads_on}", policy.allowed_signers)))
}
