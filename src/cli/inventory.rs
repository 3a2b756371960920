//! Reading the files that a command names; `lint` does nothing else.

use camino::Utf8PathBuf;
use serde_json::json;

use super::CliError;
use super::args::{LintArgs, Output, Reach, Select};
use super::proving;
use super::rerun::Rerun;
use super::session::{Session, told};
use super::ssh_program::SshProgram;
use crate::load::{self, Asking, Context, Diagnostics, Playbook};
use crate::model::{ApprovalPolicy, Become, Host, IdentitySpec, Inventory, SecretName, SecretSource, Step, Vars};
use crate::plan::Wanted;

/// The files of a run, and the hosts that they select with their steps.
pub(super) struct Selected {
    pub(super) inventory: Inventory,
    /// What the operator gave as `-i`.
    pub(super) inventory_name: String,
    /// Its files, by their whole names.
    pub(super) inventory_files: Vec<Utf8PathBuf>,
    pub(super) playbook: Playbook,
    pub(super) hosts: Vec<(Host, Vec<Step>)>,
    /// The secret that is minted, and the identity that it is minted for.
    pub(super) identity: Option<(SecretName, IdentitySpec)>,
    /// The identities that other secrets must be for.
    pub(super) proved: Vec<(SecretName, IdentitySpec)>,
}

impl Selected {
    /// Whose approval a run of this needs.
    pub(super) fn approval(&self) -> Vec<ApprovalPolicy> {
        self.inventory.approval.iter().chain(&self.playbook.approval).cloned().collect()
    }

    /// Reads the files; of the hosts that they select, only those of `rerun` where it is given.
    pub(super) fn load(session: &Session, wanted: &Wanted, rerun: Option<&Rerun>) -> Result<Self, CliError> {
        let context = session.context()?;
        let playbook = load::playbook(&wanted.playbook, &context);
        let inventory = match &playbook {
            Ok(playbook) => {
                // Reading the inventory may start a program.
                session.sources.environment().withhold_sources(playbook.secrets.values());
                let (limit, user) = (wanted.limit.as_deref(), wanted.user.as_deref());
                reachable(session, &wanted.inventory, &context, (&playbook.hosts, limit, user))
            }
            Err(_) => load::inventory(&wanted.inventory, &context),
        };
        let (inventory, playbook) = both(inventory, playbook)?;
        playbook.check_hosts(&inventory)?;
        let identity = identity(&playbook)?;
        let mut names = load::select(&inventory, &playbook.hosts, wanted.limit.as_deref())
            .map_err(|error| CliError::usage(error.to_string()))?;
        if let Some(rerun) = rerun {
            rerun.narrow(&mut names)?;
        }
        let mut hosts = Vec::new();
        let mut faults: Option<Diagnostics> = None;
        for name in names {
            let Some(host) = inventory.hosts.get(&name) else { continue };
            let host = as_wanted(host, wanted);
            let steps = playbook.steps_for(&host, &wanted.variables).and_then(|steps| {
                playbook.check_proofs(&inventory.services, &host, &steps)?;
                Ok(steps)
            });
            match steps {
                Ok(steps) => hosts.push((host, steps)),
                Err(found) => merge(&mut faults, found),
            }
        }
        match faults {
            Some(faults) => Err(faults.into()),
            None => Ok(Self {
                proved: proving::read(&proving::of_steps(hosts.iter().flat_map(|(_, steps)| steps)))?,
                inventory,
                inventory_name: joined(&wanted.inventory),
                inventory_files: wanted.inventory.iter().map(|path| context.cwd.join(path)).collect(),
                playbook,
                hosts,
                identity,
            }),
        }
    }
}

/// The secret that is minted, and its identity's file, read.
fn identity(playbook: &Playbook) -> Result<Option<(SecretName, IdentitySpec)>, Diagnostics> {
    let mut sources = playbook.secrets.iter();
    let Some((name, file)) = sources.find_map(|(name, source)| match source {
        SecretSource::Infisical { identity } => Some((name, identity)),
        _ => None,
    }) else {
        return Ok(None);
    };
    Ok(Some((name.clone(), load::identity(file)?)))
}

/// A host as a plan wants it reached.
fn as_wanted(host: &Host, wanted: &Wanted) -> Host {
    let reach = Reach {
        user: wanted.user.clone(),
        private_key: wanted.private_key.clone(),
        become_root: wanted.become_root,
        forks: 1,
    };
    reached(host, &reach)
}

/// A host as the command line wants it reached.
pub(super) fn reached(host: &Host, reach: &Reach) -> Host {
    let mut host = host.clone();
    if let Some(user) = &reach.user {
        host.connection.user.clone_from(user);
    }
    if let Some(key) = &reach.private_key {
        host.connection.identity_files = vec![key.clone()];
    }
    if reach.become_root && host.connection.become_method == Become::None {
        host.connection.become_method = Become::Sudo;
    }
    host
}

/// An inventory whose hosts will be reached: those of a pattern and a limit, with the user of the command line.
pub(super) fn reachable(
    session: &Session,
    files: &[Utf8PathBuf],
    context: &Context,
    (pattern, limit, user): (&str, Option<&str>, Option<&str>),
) -> Result<Inventory, Diagnostics> {
    let ssh = SshProgram::new(session.sources.environment());
    load::inventory_asking(files, context, &Asking { ssh: &ssh, pattern, limit, user })
}

/// The selected hosts of an inventory, without a playbook.
pub(super) fn select(session: &Session, select: &Select, reach: Option<&Reach>) -> Result<Vec<Host>, CliError> {
    Ok(select_from(session, select, reach)?.1)
}

/// The same, and the inventory.
pub(super) fn select_from(
    session: &Session,
    select: &Select,
    reach: Option<&Reach>,
) -> Result<(Inventory, Vec<Host>), CliError> {
    let user = reach.and_then(|reach| reach.user.as_deref());
    let wanted = ("all", select.limit.as_deref(), user);
    let inventory = reachable(session, &select.inventory, &session.context()?, wanted)?;
    let names =
        load::select(&inventory, "all", select.limit.as_deref()).map_err(|error| CliError::usage(error.to_string()))?;
    let hosts = names.iter().filter_map(|name| inventory.hosts.get(name));
    let hosts = hosts.map(|host| reach.map_or_else(|| host.clone(), |reach| reached(host, reach))).collect();
    Ok((inventory, hosts))
}

/// The inventory's files as they stand in a command line, after the first `-i`.
pub(super) fn joined(paths: &[Utf8PathBuf]) -> String {
    paths.iter().map(|path| word(path.as_str())).collect::<Vec<_>>().join(" -i ")
}

/// One word of a command line that an operator may paste.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@%+=:,./-_".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn merge(all: &mut Option<Diagnostics>, found: Diagnostics) {
    match all {
        Some(all) => all.merge(found),
        None => *all = Some(found),
    }
}

/// Both, or the faults of both at once.
pub(super) fn both<A, B>(a: Result<A, Diagnostics>, b: Result<B, Diagnostics>) -> Result<(A, B), Diagnostics> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(mut a), Err(b)) => {
            a.merge(b);
            Err(a)
        }
        (Err(a), _) => Err(a),
        (_, Err(b)) => Err(b),
    }
}

pub(super) fn extra_vars(session: &Session, args: &[String]) -> Result<Vars, CliError> {
    let context = session.context()?;
    load::extra_vars(args, &context).map_err(|error| CliError::usage(crate::model::chain(&error)))
}

pub(super) fn lint(session: &Session, args: &LintArgs) -> Result<u8, CliError> {
    let context = session.context()?;
    let extra = extra_vars(session, &args.extra_vars)?;
    let mut faults = None;
    let mut inventory = None;
    let mut playbook = None;
    if args.playbook.is_none() && args.inventory.is_empty() {
        return Err(CliError::usage("name a playbook, an inventory (-i), or both"));
    }
    if !args.inventory.is_empty() {
        match load::inventory(&args.inventory, &context) {
            Ok(read) => inventory = Some(read),
            Err(found) => merge(&mut faults, found),
        }
    }
    if let Some(path) = &args.playbook {
        match load::playbook(path, &context) {
            Ok(read) => playbook = Some(read),
            Err(found) => merge(&mut faults, found),
        }
    }
    if let Some(playbook) = &playbook {
        let minted = identity(playbook).err();
        let others = playbook.identities.values().filter_map(|file| load::identity(file).err());
        minted.into_iter().chain(others).for_each(|found| merge(&mut faults, found));
    }
    if let (Some(inventory), Some(playbook)) = (&inventory, &playbook) {
        playbook.check_hosts(inventory)?;
        let names =
            load::select(inventory, &playbook.hosts, None).map_err(|error| CliError::usage(error.to_string()))?;
        for host in names.iter().filter_map(|name| inventory.hosts.get(name)) {
            // Where the inventory does not say how a host is reached, OpenSSH's settings may, and nobody asks for them here.
            let origins = inventory.origins.get(&host.name);
            let reach = origins.is_some_and(|said| ["address", "jump"].iter().any(|key| said.of.contains_key(key)));
            let checked = playbook.steps_for(host, &extra).and_then(|steps| match reach {
                true => playbook.check_proofs(&inventory.services, host, &steps),
                false => Ok(()),
            });
            if let Err(found) = checked {
                merge(&mut faults, found);
            }
        }
    }
    match faults {
        Some(faults) => Err(faults.into()),
        None => {
            let mut out = session.out();
            match session.global.output {
                Output::Jsonl => out.json(&json!({ "event": "lint-finished", "status": "ok", "exit_code": 0 })),
                Output::Human | Output::Plain => out.line("ok"),
            }
            told(out, 0)
        }
    }
}
