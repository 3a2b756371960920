//! `keyswap plan`: looks as `run` would, and writes what it would do into a file with a digest.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::CliError;
use super::args::{Reach, RunArgs, RunSelect, Select};
use super::inventory::{Selected, word};
use super::proving;
use super::run::{self, Purpose};
use super::session::Session;
use crate::approval::{Kind, Sealed};
use crate::engine::Shared;
use crate::event::{EventKind, Sink};
use crate::model::{RunStatus, SecretSource};
use crate::plan::{FileSeen, LeftOut, Proposal, ProposedHost, SecretSeen, Wanted};
use crate::rollout::Preflight;
use crate::step::sha_hex;

/// What is planned, and where the plan goes.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// The playbook
    pub(super) playbook: Utf8PathBuf,
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) reach: Reach,
    /// The file to write; one that is there is replaced, and its approvals are for another plan then
    #[arg(short, long, value_name = "FILE")]
    pub(super) out: Utf8PathBuf,
    /// Leave hosts out that cannot be reached, instead of refusing to plan
    #[arg(long)]
    pub(super) skip_unreachable: bool,
}

pub(super) async fn plan(session: &Session, args: &PlanArgs) -> Result<u8, CliError> {
    let Select { inventory, limit, extra_vars } = args.select.clone();
    let run_args = RunArgs {
        playbook: Some(args.playbook.clone()),
        select: RunSelect { inventory, limit, extra_vars },
        plan: None,
        reach: args.reach.clone(),
        rerun: Vec::new(),
        check: true,
        diff: true,
        yes: true,
        skip_unreachable: args.skip_unreachable,
        list_hosts: false,
        list_steps: false,
    };
    let wanted = whole_paths(session, run::wanted(session, &run_args)?)?;
    let selected = Selected::load(session, &wanted, None)?;
    run::go(session, &run_args, (&wanted, &selected), &Purpose::Propose(&args.out)).await
}

/// The same with paths that mean the same from everywhere.
pub(super) fn whole_paths(session: &Session, wanted: Wanted) -> Result<Wanted, CliError> {
    let cwd = session.context()?.cwd;
    let whole = |path: &Utf8PathBuf| if path.starts_with("~") { path.clone() } else { cwd.join(path) };
    Ok(Wanted {
        playbook: whole(&wanted.playbook),
        inventory: wanted.inventory.iter().map(whole).collect(),
        private_key: wanted.private_key.as_ref().map(whole),
        ..wanted
    })
}

/// What the run would do, from what was found.
pub(super) fn proposal(
    session: &Session,
    (wanted, selected): (&Wanted, &Selected),
    shared: &Shared,
    found: &Preflight,
) -> Result<Proposal, CliError> {
    let operator = session.operator();
    let secrets = selected.playbook.secrets.iter().map(|(name, source)| {
        let value = shared.values.get(name).map(|value| value.fingerprint().to_string());
        (name.clone(), SecretSeen { source: source.clone(), fingerprint: value })
    });
    let spared = found.spared.iter().map(|spared| LeftOut { host: spared.host.clone(), status: spared.status });
    Ok(Proposal {
        version: operator.version,
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        made: Timestamp::now(),
        by: format!("{}@{}", operator.user, operator.host),
        wanted: wanted.clone(),
        name: selected.playbook.name.clone(),
        files: files(wanted, selected)?,
        approval: selected.approval(),
        rollout: selected.playbook.rollout.clone(),
        secrets: secrets.collect(),
        services: selected.inventory.services.clone(),
        hosts: found
            .ready
            .iter()
            .map(|saga| ProposedHost::of(saga.host(), saga.facts(), saga.batch(), saga.plan(), &shared.run))
            .collect(),
        left_out: spared.collect(),
    })
}

/// The files that a plan is made from, as they are now.
pub(super) fn files(wanted: &Wanted, selected: &Selected) -> Result<Vec<FileSeen>, CliError> {
    let identities = selected.playbook.secrets.values().filter_map(|source| match source {
        SecretSource::Infisical { identity } => Some(("identity", identity)),
        _ => None,
    });
    let proved = proving::of_steps(selected.hosts.iter().flat_map(|(_, steps)| steps));
    let named = std::iter::once(("playbook", &wanted.playbook))
        .chain(wanted.inventory.iter().map(|path| ("inventory", path)))
        .chain(identities)
        .chain(proved.values().map(|identity| ("identity", identity)));
    named.map(|(what, path)| seen(what, path)).collect()
}

pub(super) fn seen(what: &str, path: &Utf8Path) -> Result<FileSeen, CliError> {
    let bytes = std::fs::read(path).map_err(|error| CliError::usage(format!("{path} cannot be read: {error}")))?;
    Ok(FileSeen { what: what.to_owned(), path: path.to_owned(), sha256: sha_hex(&[&bytes]) })
}

/// Writes the plan, and lets go of the hosts.
pub(super) async fn write(
    session: &Session,
    proposal: &Proposal,
    out: &Utf8Path,
    events: &Sink,
    found: Preflight,
) -> Result<u8, CliError> {
    let plan = serde_json::to_value(proposal).map_err(|error| CliError::internal("cannot write the plan", error))?;
    let sealed = Sealed::new(Kind::Run, plan);
    let written = sealed.write(out).map_err(|error| CliError::usage(error.to_string()));
    let mut hosts = Vec::new();
    for spared in &found.spared {
        hosts.push(spared.result());
    }
    for saga in found.ready {
        hosts.push(saga.looked_at().await);
    }
    if let Err(error) = written {
        events.emit(None, None, EventKind::RunFinished { status: RunStatus::Failed, exit_code: error.code(), hosts });
        return Err(error);
    }
    let digest = sealed.digest().to_owned();
    let file = word(out.as_str());
    let run = session.typed(&format!("keyswap run --plan {file}"));
    let hint = match proposal.approval.iter().map(|policy| policy.required).max() {
        Some(required) => {
            let people = if required == 1 { "one signer".to_owned() } else { format!("{required} signers") };
            format!("it needs {people}: keyswap approve {file} --signer NAME; then {run}")
        }
        None => format!("nobody's approval is demanded; run it with: {run}"),
    };
    events.emit(None, None, EventKind::PlanWritten { path: out.to_string(), digest, next: hint });
    events.emit(None, None, EventKind::RunFinished { status: RunStatus::Succeeded, exit_code: 0, hosts });
    Ok(0)
}
