//! `keyswap audit`: which credential does each host hold now, who has drifted, what expires. Changes nothing.

pub(super) mod judge;
pub(super) mod places;
mod say;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::judge::{FromRuns, Judge, MintedName, Names, Report};
use self::places::Places;
use self::say::Audited;
use super::args::{Output, Reach, Select};
use super::inventory::{joined, reachable, reached};
use super::session::{Session, told};
use super::{CliError, error};
use crate::load;
use crate::model::{Fingerprint, Host, HostName, RemotePath, Vars};
use crate::plan::RunPlan;
use crate::remote::{Answer, CallError, Connect, KnownPlace, NoGate, Op, Seen, Survey};

/// What an audit is told.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    /// The playbook whose places are looked at; without it, what the hosts' own runs were about
    pub(super) playbook: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) reach: Reach,
    /// A token that ends sooner is drift, such as 14d
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = load::length)]
    pub(super) expires_within: Duration,
    /// Look below this directory for stray copies of the known credentials, of those that runs brought or found, and of what
    /// the hosts hold: whole files, and tokens among other text
    #[arg(long, value_name = "DIR")]
    pub(super) search: Vec<RemotePath>,
    /// With --search: of this one, too (sha256: and 12 to 64 digits)
    #[arg(long, value_name = "FINGERPRINT", requires = "search", value_parser = digits)]
    pub(super) fingerprint: Vec<String>,
}

/// The digits of a fingerprint.
fn digits(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let good = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    match (12..=64).contains(&hex.len()) && hex.chars().all(good) {
        true => Ok(hex.to_owned()),
        false => Err("a fingerprint is sha256: and 12 to 64 hex digits".to_owned()),
    }
}

pub(super) async fn audit(session: &Session, args: &AuditArgs) -> Result<u8, CliError> {
    let context = session.context()?;
    let extra = super::inventory::extra_vars(session, &args.select.extra_vars)?;
    let playbook = args.playbook.as_ref().map(|path| load::playbook(path, &context)).transpose();
    let secrets = playbook.as_ref().ok().and_then(Option::as_ref).map(|playbook| playbook.secrets.values());
    session.sources.environment().withhold_sources(secrets.into_iter().flatten());
    let pattern = playbook.as_ref().ok().and_then(Option::as_ref).map_or("all", |playbook| playbook.hosts.as_str());
    let wanted = (pattern, args.select.limit.as_deref(), args.reach.user.as_deref());
    let inventory = reachable(session, &args.select.inventory, &context, wanted);
    let (inventory, playbook) = super::inventory::both(inventory, playbook)?;
    let pattern = playbook.as_ref().map_or("all", |playbook| playbook.hosts.as_str());
    if let Some(playbook) = &playbook {
        playbook.check_hosts(&inventory)?;
    }
    let names = load::select(&inventory, pattern, args.select.limit.as_deref())
        .map_err(|error| CliError::usage(error.to_string()))?;
    let mut hosts: Vec<(Host, Option<Places>)> = Vec::new();
    for host in names.iter().filter_map(|name| inventory.hosts.get(name)) {
        let places = match &playbook {
            Some(playbook) => Some(Places::of_steps(&playbook.steps_for(host, &Vars::clone(&extra))?)),
            None => None,
        };
        hosts.push((reached(host, &args.reach), places));
    }
    let known = Names::new(&inventory, from_runs(session)?);
    let connect = session.connect(&joined(&args.select.inventory))?;
    let looked = all(connect, hosts, &known, args).await;
    tell(session, &looked)
}

/// The credentials that runs of this machine minted, brought, or found.
pub(super) fn from_runs(session: &Session) -> Result<FromRuns, CliError> {
    let mut found = FromRuns::default();
    let mut nameless = BTreeSet::new();
    let store = session.store()?;
    for run in store.list()? {
        let Ok(state) = run.state else { continue };
        if let Ok(plan) = store.plan::<RunPlan>(&run.run) {
            // What a pointer used to name lies where it was until the run is retired: that is no stray copy.
            nameless.extend(plan.hosts.into_iter().flat_map(|planned| planned.plan.taken_out));
        }
        if let Some((token, minted)) = state.token.as_ref().and_then(|token| Some((token, token.minted.as_ref()?))) {
            let (fingerprint, revoked) = (minted.fingerprint.clone(), token.revoked.is_some());
            found.minted.push(MintedName { fingerprint, run: run.run.to_string(), revoked });
        }
        let before = state.hosts.values().flat_map(|host| &host.credentials);
        nameless.extend(before.filter_map(|credential| credential.before.clone()));
        nameless.extend(state.secrets.into_values());
    }
    found.nameless = nameless.into_iter().collect();
    Ok(found)
}

async fn all(
    connect: Arc<dyn Connect>,
    hosts: Vec<(Host, Option<Places>)>,
    names: &Names,
    args: &AuditArgs,
) -> Vec<(HostName, Audited)> {
    let permits = Arc::new(Semaphore::new(usize::from(args.reach.forks)));
    let mut tasks = JoinSet::new();
    for (at, (host, places)) in hosts.into_iter().enumerate() {
        let (connect, permits, names) = (Arc::clone(&connect), Arc::clone(&permits), names.clone());
        let (search, within) = (Search::of(args), args.expires_within);
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let judge = Judge { names: &names, now: Timestamp::now(), within };
            (at, host.name.clone(), one(connect.as_ref(), &host, places, &judge, &search).await)
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(at, ..)| *at);
    done.into_iter().map(|(_, name, audited)| (name, audited)).collect()
}

/// Where copies are looked for, and of what beside all that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    dirs: Vec<RemotePath>,
    fingerprints: Vec<String>,
}

impl Search {
    fn of(args: &AuditArgs) -> Self {
        Self { dirs: args.search.clone(), fingerprints: args.fingerprint.clone() }
    }
}

/// Looks at one host.
async fn one(
    connect: &dyn Connect,
    host: &Host,
    places: Option<Places>,
    judge: &Judge<'_>,
    search: &Search,
) -> Audited {
    let mut conn = match connect.connect(host, &NoGate).await {
        Ok(conn) => conn,
        Err(error) => {
            let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            return Audited::Unreachable(format!("{error}{hint}"));
        }
    };
    let looked = look(conn.as_mut(), places, judge, search).await;
    conn.close().await;
    match looked {
        Ok((_, report)) => Audited::Seen(Box::new(report)),
        Err(CallError::Lost(lost)) => Audited::Unreachable(lost.to_string()),
        Err(CallError::Failed(failure)) => Audited::Failed(failure.to_string()),
    }
}

/// Looks at a host that is connected: what its runs were about, then all places, and where copies may lie.
pub(super) async fn look(
    conn: &mut dyn crate::remote::Host,
    places: Option<Places>,
    judge: &Judge<'_>,
    search: &Search,
) -> Result<(Vec<KnownPlace>, Report), CallError> {
    let mut seen = survey(conn, vec![Survey::Known, Survey::State]).await?;
    let state = seen.pop();
    let mut known = match seen.pop() {
        Some(Seen::Known(known)) => known,
        Some(Seen::Refused(failure)) => return Err(failure.into()),
        _ => Vec::new(),
    };
    // Ids come from several controllers' clocks. Which run was here last, the host itself says.
    let last = match &state {
        Some(Seen::State(state)) => state.run.clone(),
        _ => String::new(),
    };
    known.sort_by_key(|place| place.run == last);
    let named = places.is_some();
    let mut places = places.unwrap_or_default();
    places.learn(&known, named);
    let surveys = places.surveys();
    let seen = if surveys.is_empty() { Vec::new() } else { survey(conn, surveys).await? };
    let mut extra: Vec<Seen> = state.into_iter().collect();
    if !search.dirs.is_empty() {
        let mut prefixes: BTreeSet<String> = judge.names.prefixes().into_iter().collect();
        prefixes.extend(search.fingerprints.iter().cloned());
        for seen in seen.iter().chain(&extra) {
            let whole: Vec<&Fingerprint> = match seen {
                Seen::File(file) => file.fingerprint.iter().collect(),
                Seen::Env(env) => env.target.iter().collect(),
                Seen::State(state) => {
                    let of_tokens = state.copies.iter().filter(|copy| !copy.of_env);
                    of_tokens.filter_map(|copy| copy.fingerprint.as_ref()).collect()
                }
                _ => Vec::new(),
            };
            prefixes.extend(whole.into_iter().map(|whole| whole.hex().to_owned()));
        }
        let prefixes: Vec<String> = prefixes.into_iter().collect();
        let searches = search.dirs.iter().map(|dir| Survey::Search { dir: dir.clone(), prefixes: prefixes.clone() });
        extra.extend(survey(conn, searches.collect()).await?);
    }
    Ok((known, judge.report(&places, seen, extra)))
}

async fn survey(conn: &mut dyn crate::remote::Host, surveys: Vec<Survey>) -> Result<Vec<Seen>, CallError> {
    match conn.call(&Op::Survey(surveys), None).await? {
        Answer::Surveyed(seen) => Ok(seen),
        _ => Ok(Vec::new()),
    }
}

fn tell(session: &Session, looked: &[(HostName, Audited)]) -> Result<u8, CliError> {
    let any = |wanted: fn(&Audited) -> bool| looked.iter().any(|(_, audited)| wanted(audited));
    let code = if any(|audited| matches!(audited, Audited::Failed(_))) {
        2
    } else if any(|audited| matches!(audited, Audited::Unreachable(_))) {
        error::UNREACHABLE
    } else if any(|audited| matches!(audited, Audited::Seen(report) if !report.drift.is_empty())) {
        error::CHANGES
    } else {
        0
    };
    let mut out = session.out();
    if session.global.output == Output::Jsonl {
        for (host, audited) in looked {
            out.json(&say::object(host, audited));
        }
        // The worst of them, in the order of the exit codes.
        let words = ["failed", "unreachable", "drift", "unknown"];
        let is = |word: &&&str| looked.iter().any(|(_, audited)| audited.status() == **word);
        let status = words.iter().find(is).unwrap_or(&"ok");
        out.json(&json!({ "event": "audit-finished", "status": status, "exit_code": code }));
    } else {
        for line in say::table(looked) {
            out.line(&line);
        }
    }
    told(out, code)
}
