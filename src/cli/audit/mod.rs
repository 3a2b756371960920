//! `keyswap audit`: which credential does each host hold now, who has drifted, what expires. Changes nothing.

pub(super) mod judge;
pub(super) mod places;
mod say;

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::judge::{Judge, MintedName, Names, Report};
use self::places::Places;
use self::say::Audited;
use super::args::{Output, Reach, Select};
use super::inventory::{joined, reached};
use super::session::Session;
use super::{CliError, error};
use crate::load;
use crate::model::{Host, HostName, RemotePath, Vars};
use crate::remote::{Answer, CallError, Connect, KnownPlace, Op, Seen, Survey};

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
    /// Look for stray copies of the known credentials, and of what the hosts hold, below this directory
    #[arg(long, value_name = "DIR")]
    pub(super) search: Vec<RemotePath>,
}

pub(super) async fn audit(session: &Session, args: &AuditArgs) -> Result<u8, CliError> {
    let context = session.context()?;
    let extra = super::inventory::extra_vars(session, &args.select.extra_vars)?;
    let inventory = load::inventory(&args.select.inventory, &context);
    let playbook = args.playbook.as_ref().map(|path| load::playbook(path, &context)).transpose();
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
    let known = Names::new(&inventory, minted(session)?);
    let connect = session.connect(&joined(&args.select.inventory))?;
    let looked = all(connect, hosts, &known, args).await;
    Ok(tell(session, &looked))
}

/// The tokens that runs of this machine minted.
pub(super) fn minted(session: &Session) -> Result<Vec<MintedName>, CliError> {
    let mut found = Vec::new();
    for run in session.store()?.list()? {
        let Ok(state) = run.state else { continue };
        if let Some((token, minted)) = state.token.as_ref().and_then(|token| Some((token, token.minted.as_ref()?))) {
            let (fingerprint, revoked) = (minted.fingerprint.clone(), token.revoked.is_some());
            found.push(MintedName { fingerprint, run: run.run.to_string(), revoked });
        }
    }
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
        let (search, within) = (args.search.clone(), args.expires_within);
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

/// Looks at one host.
async fn one(
    connect: &dyn Connect,
    host: &Host,
    places: Option<Places>,
    judge: &Judge<'_>,
    search: &[RemotePath],
) -> Audited {
    let mut conn = match connect.connect(host).await {
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
    search: &[RemotePath],
) -> Result<(Vec<KnownPlace>, Report), CallError> {
    let mut seen = survey(conn, vec![Survey::Known, Survey::State]).await?;
    let state = seen.pop();
    let known = match seen.pop() {
        Some(Seen::Known(known)) => known,
        Some(Seen::Refused(failure)) => return Err(failure.into()),
        _ => Vec::new(),
    };
    let named = places.is_some();
    let mut places = places.unwrap_or_default();
    places.learn(&known, named);
    let surveys = places.surveys();
    let seen = if surveys.is_empty() { Vec::new() } else { survey(conn, surveys).await? };
    let mut extra: Vec<Seen> = state.into_iter().collect();
    if !search.is_empty() {
        let mut prefixes = judge.names.prefixes();
        prefixes.extend(seen.iter().filter_map(|seen| match seen {
            Seen::File(file) => file.fingerprint.as_ref().map(|whole| whole.hex().to_owned()),
            _ => None,
        }));
        let searches = search.iter().map(|dir| Survey::Search { dir: dir.clone(), prefixes: prefixes.clone() });
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

fn tell(session: &Session, looked: &[(HostName, Audited)]) -> u8 {
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
            out.line(&say::object(host, audited).to_string());
        }
        let status = if code == 0 { "ok" } else { "drift" };
        out.line(&json!({ "event": "audit-finished", "status": status, "exit_code": code }).to_string());
    } else {
        for line in say::table(looked) {
            out.line(&line);
        }
    }
    code
}
