//! `keyswap retire`: the point of no return. Only where every host of a run is seen on the new credential, every copy of
//! the old one that the run knows is removed; with `--revoke` the old one is killed at its issuer first, and only if
//! keyswap minted it in an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::Output;
use super::audit::judge::{Judge, Names, Report};
use super::audit::places::Places;
use super::errand::{Leave, PlanFiles};
use super::prompt::Terminal;
use super::session::Session;
use super::{CliError, audit, error, order, token};
use crate::approval::Kind;
use crate::journal::{HostPhase, Journal, MintedState, Record, RunPhase, RunState, Store, TokenState};
use crate::load;
use crate::model::{ApprovalPolicy, Fingerprint, HostName, HostStatus, RemotePath, RunId, chain};
use crate::plan::{PlannedHost, RunPlan};
use crate::remote::{Answer, CallError, Copy, Op};
use crate::secret::SecretValue;
use crate::service::infisical::{Claims, Death, Infisical, TokenId};
use crate::step::Work;

/// What is retired.
#[derive(Debug, clap::Args)]
pub(super) struct RetireArgs {
    /// The run: its id or a unique prefix; the latest if left out
    pub(super) run: Option<String>,
    /// Kill the old credential at its issuer, too: only if keyswap minted it in an earlier run
    #[arg(long)]
    pub(super) revoke: bool,
    /// The inventory whose `[approval]` counts, where the run's own is not where it was
    #[arg(short, long, value_name = "FILE", requires = "revoke")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) files: PlanFiles,
}

/// A host that was seen on the new credential, and what goes from it.
struct Ready {
    name: HostName,
    conn: Box<dyn crate::remote::Host>,
    old: Vec<Fingerprint>,
    superseded: Vec<RemotePath>,
    copies: Vec<Copy>,
}

/// An old credential that is to be killed: who minted it, and its value for the one request that shows that it is dead.
struct Doomed {
    run: RunId,
    token: TokenState,
    minted: MintedState,
    value: SecretString,
    operator: Arc<Infisical>,
}

pub(super) async fn retire(session: &Session, args: &RetireArgs) -> Result<u8, CliError> {
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    let (plan, state): (RunPlan, RunState) = (store.plan(&run)?, store.state(&run)?);
    let say = Say { session, run: &run };
    if state.retired.as_ref().is_some_and(|retired| retired.finished.is_some()) {
        if args.revoke {
            return Err(CliError::usage(format!(
                "run {run} was retired already: no copy of the old credential is left to show that it is dead"
            )));
        }
        say.end("ok", &format!("run {run} was retired already"), 0);
        return Ok(0);
    }
    let policies = if args.revoke { policies(session, args, &plan)? } else { Vec::new() };
    if !args.revoke && (args.files.out.is_some() || args.files.plan.is_some()) {
        return Err(CliError::usage("a plan is for retire --revoke: what only removes copies needs none"));
    }
    args.files.may_begin(&policies, &format!("keyswap retire {run} --revoke"))?;
    if !args.yes && args.files.out.is_none() && !Terminal::is_there() {
        return Err(CliError::usage("retire asks before it removes anything: give --yes, or run it on a terminal"));
    }
    let reasons = not_new(&plan, &state);
    if !reasons.is_empty() {
        return Ok(say.refused(&reasons, 2));
    }
    let (mut ready, reasons, unreachable) = look(session, &plan, &state).await?;
    if !reasons.is_empty() {
        close(ready).await;
        return Ok(say.refused(&reasons, if unreachable { error::UNREACHABLE } else { 2 }));
    }
    let done = go(session, (args, &policies), (&store, &plan, &state), &mut ready).await;
    close(ready).await;
    match done {
        Ok(end) => {
            say.end(if args.files.out.is_some() { "planned" } else { "retired" }, &end, 0);
            Ok(0)
        }
        Err(No::Error(error)) => Err(error),
        Err(No::Because(reason)) => Ok(say.refused(&[reason], 2)),
    }
}

/// Whose approval the end of the old credential needs: by the inventory as it is now, and by what the run was approved by. Where
/// nobody can tell, it is not done.
fn policies(session: &Session, args: &RetireArgs, plan: &RunPlan) -> Result<Vec<ApprovalPolicy>, CliError> {
    let files: Vec<Utf8PathBuf> = match (args.inventory.as_slice(), plan.inventory_files.as_slice()) {
        ([], []) => plan.inventory.split(" -i ").filter(|path| !path.is_empty()).map(Utf8PathBuf::from).collect(),
        ([], known) => known.to_vec(),
        (named, _) => named.to_vec(),
    };
    let read = if files.is_empty() { None } else { load::inventory(&files, &session.context()?).ok() };
    let Some(inventory) = read else {
        let which = super::inventory::joined(&files);
        return Err(order::no(format!(
            "whether the end of the old credential needs an approval stands in the run's inventory ({which}), which cannot be read: \
             name it with -i"
        )));
    };
    let mut policies = plan.approval.clone();
    policies.extend(inventory.approval.filter(|policy| !plan.approval.contains(policy)));
    Ok(policies)
}

/// Why it is not done.
enum No {
    Error(CliError),
    Because(String),
}

impl<E: Into<CliError>> From<E> for No {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

async fn close(ready: Vec<Ready>) {
    for host in ready {
        host.conn.close().await;
    }
}

/// Hosts that the journal does not know on the new credential.
fn not_new(plan: &RunPlan, state: &RunState) -> Vec<String> {
    let mut reasons = Vec::new();
    if !matches!(state.phase, RunPhase::Finished(_)) {
        reasons.push("it was cut off: settle it first (keyswap resume)".to_owned());
    }
    for (name, host) in &state.hosts {
        let status = host.result.as_ref().map(|result| result.status);
        let planned = plan.hosts.iter().any(|planned| planned.host.name == *name);
        match (host.phase, status) {
            (HostPhase::New, _) if planned => {}
            // It had nothing to do: it was on the new credential before.
            (HostPhase::Spared, Some(HostStatus::Ok)) if planned => {}
            (_, status) => {
                let word = status.map_or_else(|| format!("{:?}", host.phase), |status| status.to_string());
                reasons.push(format!("{name}: it is not known to be on the new credential ({word})"));
            }
        }
    }
    reasons
}

/// Connects to every host and looks: is it on the new credential, and what goes.
async fn look(
    session: &Session,
    plan: &RunPlan,
    state: &RunState,
) -> Result<(Vec<Ready>, Vec<String>, bool), CliError> {
    let connect = session.connect(&plan.inventory)?;
    let names = Names::of_runs(audit::minted(session)?);
    let mut looking = tokio::task::JoinSet::new();
    for (at, planned) in plan.hosts.iter().cloned().enumerate() {
        let (connect, names, run) = (Arc::clone(&connect), names.clone(), plan.run.clone());
        let secrets: Vec<Fingerprint> = state.secrets.values().cloned().collect();
        looking.spawn(async move {
            let name = planned.host.name.clone();
            let conn = connect.connect(&planned.host).await;
            let looked = match conn {
                Ok(conn) => one(conn, &planned, &run, &names, &secrets).await,
                Err(error) => Err((error.to_string(), true)),
            };
            (at, looked.map_err(|(why, unreachable)| (format!("{name}: {why}"), unreachable)))
        });
    }
    let mut looked = looking.join_all().await;
    looked.sort_by_key(|(at, _)| *at);
    let (mut ready, mut reasons, mut unreachable) = (Vec::new(), Vec::new(), false);
    for (_, host) in looked {
        match host {
            Ok(host) => ready.push(host),
            Err((why, lost)) => {
                reasons.push(why);
                unreachable |= lost;
            }
        }
    }
    Ok((ready, reasons, unreachable))
}

async fn one(
    mut conn: Box<dyn crate::remote::Host>,
    planned: &PlannedHost,
    run: &RunId,
    names: &Names,
    secrets: &[Fingerprint],
) -> Result<Ready, (String, bool)> {
    let lost = |error: CallError| (error.to_string(), matches!(error, CallError::Lost(_)));
    // A token that has ended is a reason to rotate again, and none to keep copies of the one before it.
    let judge = Judge { names, now: Timestamp::MIN, within: std::time::Duration::ZERO };
    let places = Places::of_plan(&planned.plan);
    let (_, report) = audit::look(conn.as_mut(), Some(places), &judge, &[]).await.map_err(lost)?;
    if !report.drift.is_empty() {
        return Err((format!("audit finds drift: {}", report.drift.join("; ")), false));
    }
    let old = old_of(planned, secrets);
    let superseded = superseded_of(planned, &report);
    on_the_new(planned, run, &report, (&old, secrets)).map_err(|why| (why, false))?;
    let op = Op::Copies { run: run.clone(), old: old.clone(), superseded: superseded.clone(), remove: false };
    let copies = match conn.call(&op, None).await.map_err(lost)? {
        Answer::Copies(copies) => copies,
        _ => return Err(("the host answered another question".to_owned(), false)),
    };
    Ok(Ready { name: planned.host.name.clone(), conn, old, superseded, copies })
}

/// The credentials that the run replaced on a host.
fn old_of(planned: &PlannedHost, secrets: &[Fingerprint]) -> Vec<Fingerprint> {
    let before = planned.plan.credentials.iter().filter_map(|credential| credential.before.clone());
    let pointed = planned.plan.superseded.iter().map(|superseded| superseded.fingerprint.clone());
    let all: BTreeSet<Fingerprint> = before.chain(pointed).filter(|old| !secrets.contains(old)).collect();
    all.into_iter().collect()
}

/// Files that a pointer used to name, and that nothing names now.
fn superseded_of(planned: &PlannedHost, report: &Report) -> Vec<RemotePath> {
    let in_use = |path: &RemotePath| {
        report.credentials.iter().any(|credential| credential.path == path.as_str())
            || report.pointers.iter().any(|pointing| pointing.value.as_deref() == Some(path.as_str()))
            || report.processes.iter().any(|process| process.pointer.as_deref() == Some(path.as_str()))
    };
    let named = planned.plan.superseded.iter().map(|superseded| superseded.path.clone());
    named.filter(|path| !in_use(path)).collect()
}

/// Every credential file holds what the run brought, or what a later run brought after it.
fn on_the_new(
    planned: &PlannedHost,
    run: &RunId,
    report: &Report,
    (old, secrets): (&[Fingerprint], &[Fingerprint]),
) -> Result<(), String> {
    let brings = planned.plan.steps.iter().any(|step| matches!(&step.work, Work::Act { data: Some(_), .. }));
    let (last, phase) = (report.last.0.as_str(), report.last.1.as_str());
    if last == run.as_str() && phase != "new" {
        return Err(format!("the host says that the run is {phase}, not new"));
    }
    // What a later run left was compared with that run's own digest: anything else would be drift. One that was taken
    // back left what this one brought.
    let later = phase == "new" && last > run.as_str();
    if report.credentials.is_empty() {
        return Err("no credential file is known here".to_owned());
    }
    for credential in &report.credentials {
        let Some(whole) = &credential.whole else { return Err(format!("{} is not there", credential.path)) };
        if old.contains(whole) {
            return Err(format!("{} still holds the old credential ({whole})", credential.path));
        }
        if brings && !later && !secrets.contains(whole) {
            return Err(format!("{} holds another credential ({whole})", credential.path));
        }
    }
    Ok(())
}

/// Shows, asks, revokes where that is asked for, removes.
async fn go(
    session: &Session,
    (args, policies): (&RetireArgs, &[ApprovalPolicy]),
    (store, plan, state): (&Store, &RunPlan, &RunState),
    ready: &mut [Ready],
) -> Result<String, No> {
    let say = Say { session, run: &plan.run };
    if !say.is_json() {
        session.out().line(&format!("run {}: every host is on the new credential; what goes:", plan.run));
    }
    let count: usize = ready.iter().map(|host| host.copies.len()).sum();
    for host in ready.iter() {
        for copy in &host.copies {
            say.copy(&host.name, copy);
        }
    }
    let doomed = match args.revoke {
        true => doomed(session, store, plan, ready).await?,
        false => Vec::new(),
    };
    for one in &doomed {
        say.line(&format!("{} is revoked at {}, which run {} minted", one.token.describe(), one.token.server, one.run));
    }
    if count == 0 && doomed.is_empty() && state.retired.is_none() && ready.iter().all(|host| host.old.is_empty()) {
        return Err(No::Because("there is no old credential to retire".to_owned()));
    }
    let mut says = vec![format!("run {}: the old token is revoked, and every copy of it goes", plan.run)];
    says.extend(
        doomed.iter().map(|one| format!("{} at {}, minted by run {}", one.token.describe(), one.token.server, one.run)),
    );
    says.extend(
        ready
            .iter()
            .flat_map(|host| host.copies.iter().map(|copy| format!("{}: {} {}", host.name, copy.kind, copy.at))),
    );
    let leave = args.files.leave(session, Kind::Retire, &says, policies)?;
    if matches!(leave, Leave::Written) {
        return Ok("a plan was written, and nothing was removed or revoked".to_owned());
    }
    if !args.yes {
        let also = if doomed.is_empty() { "" } else { " and revoke the old token" };
        let hosts = ready.len();
        session
            .terminal()
            .confirm(&format!("Remove these {count} copies from {hosts} hosts{also}? There is no way back"))?;
    }
    let by = session.operator();
    let (journal, _) = store.reopen(&plan.run, "retire", &by)?;
    if let Leave::By(warrant) = &leave {
        warrant.claim(store, &format!("retire of run {}", plan.run), &by)?;
        journal.append(None, warrant.record()).await?;
    }
    let done = finish(store, &journal, ready, doomed, by).await;
    journal.close().await?;
    done
}

async fn finish(
    store: &Store,
    journal: &Journal,
    ready: &mut [Ready],
    doomed: Vec<Doomed>,
    by: crate::journal::Operator,
) -> Result<String, No> {
    journal.append(None, Record::RetireStarted { revoke: !doomed.is_empty(), by: by.clone() }).await?;
    let killed = doomed.len();
    for one in doomed {
        let detail = kill(&one).await.map_err(No::Because)?;
        let record = Record::OldRevoked {
            fingerprint: one.minted.fingerprint.clone(),
            id: one.minted.id.clone(),
            minted_by: one.run.to_string(),
            detail: format!("{detail}; for this one request its value was read from a host's backup"),
        };
        journal.append(None, record).await?;
        if one.run != *journal.run() {
            let (its_own, _) = store.reopen(&one.run, "retire", &by)?;
            its_own.append(None, Record::TokenRevoked { ids: vec![one.minted.id.clone()], detail }).await?;
            its_own.close().await?;
        }
        // What was lent for this ends by itself, too.
        let _ = one.operator.log_out().await;
    }
    let mut removed = 0;
    for host in ready.iter_mut() {
        removed += remove(journal, host).await.map_err(|why| No::Because(format!("{}: {why}", host.name)))?;
    }
    journal.append(None, Record::Retired).await?;
    let dead = if killed > 0 { "; the old token is dead" } else { "" };
    Ok(format!("{removed} copies removed from {} hosts{dead}", ready.len()))
}

/// Revokes a token and makes sure that a request with it is refused.
async fn kill(one: &Doomed) -> Result<String, String> {
    let id = TokenId(one.minted.id.clone());
    one.operator.revoke(&id).await.map_err(|error| format!("it could not be revoked: {}", chain(&error)))?;
    match one.operator.death(&one.value).await {
        Ok(Death::Dead(class)) => Ok(format!("revoked, and a request with it was refused ({})", class.word())),
        Ok(Death::Alive) => Err("the server says that it is revoked, and takes it all the same".to_owned()),
        Err(error) => Err(format!("it was revoked, and nobody could see that it is dead: {}", chain(&error))),
    }
}

/// Removes a host's copies, and looks whether any is left.
async fn remove(journal: &Journal, host: &mut Ready) -> Result<usize, String> {
    let mut left = Vec::new();
    let mut removed = 0;
    for remove in [true, false] {
        let (old, superseded) = (host.old.clone(), host.superseded.clone());
        let op = Op::Copies { run: journal.run().clone(), old, superseded, remove };
        let copies = match host.conn.call(&op, None).await.map_err(|error| error.to_string())? {
            Answer::Copies(copies) => copies,
            _ => return Err("the host answered another question".to_owned()),
        };
        if remove {
            removed = copies.len();
            let at = copies.into_iter().map(|copy| copy.at).collect();
            let record = Record::CopiesRemoved { at };
            journal.append(Some(&host.name), record).await.map_err(|error| error.to_string())?;
        } else {
            left = copies;
        }
    }
    match left.first() {
        None => Ok(removed),
        Some(copy) => Err(format!("{} is there still", copy.at)),
    }
}

/// The tokens behind the old credentials, if keyswap minted every one of them in an earlier run and no other host holds
/// it: compared by whole digest and id.
async fn doomed(session: &Session, store: &Store, plan: &RunPlan, ready: &mut [Ready]) -> Result<Vec<Doomed>, No> {
    let old: BTreeSet<Fingerprint> = ready.iter().flat_map(|host| host.old.iter().cloned()).collect();
    if old.is_empty() {
        return Err(No::Because("there is no old credential to revoke".to_owned()));
    }
    let runs: Vec<(RunId, RunState)> =
        store.list()?.into_iter().filter_map(|run| Some((run.run, run.state.ok()?))).collect();
    let mut ours = Vec::new();
    for fingerprint in old {
        let minted = runs.iter().find_map(|(run, state)| {
            let token = state.token.as_ref()?;
            let minted = token.minted.as_ref().filter(|minted| minted.fingerprint == fingerprint)?;
            Some((run.clone(), token.clone(), minted.clone()))
        });
        let Some((run, token, minted)) = minted.filter(|(run, ..)| *run != plan.run) else {
            return Err(No::Because(format!(
                "{fingerprint} was not minted by keyswap: others may live on it, and it is not revoked"
            )));
        };
        if token.revoked.is_some() {
            // It was cut off after that, and is gone on with.
            continue;
        }
        let here: BTreeSet<&HostName> = ready.iter().map(|host| &host.name).collect();
        if let Some(other) = holders(&runs, &fingerprint).into_iter().find(|name| !here.contains(name)) {
            return Err(No::Because(format!("{other} lives on {fingerprint}, and is not part of this run")));
        }
        ours.push((run, token, minted));
    }
    let mut found = Vec::new();
    if ours.is_empty() {
        return Ok(found);
    }
    let operator = Arc::new(token::operator(session, &plan.services).await?);
    for (run, token, minted) in ours {
        let (operator, fingerprint) = (Arc::clone(&operator), minted.fingerprint.clone());
        if operator.base() != token.server {
            return Err(No::Because(format!("{fingerprint} was minted at {}, another server", token.server)));
        }
        // Everything that can be found wrong is, before the point of no return.
        let listed = operator.token(&TokenId(minted.id.clone())).await;
        let listed =
            listed.map_err(|error| No::Because(format!("the issuer could not be asked: {}", chain(&error))))?;
        if listed.and_then(|row| row.name).as_ref() != Some(&token.name) {
            return Err(No::Because(format!("the issuer does not know {} under its name", token.describe())));
        }
        let value = reveal(session, ready, &fingerprint).await.map_err(No::Because)?;
        let claims = Claims::read(&value).map_err(|error| No::Because(format!("the old credential: {error}")))?;
        if claims.identity_access_token_id != minted.id || claims.identity_id != token.identity {
            return Err(No::Because(format!("{fingerprint} says that it is another token than {}", minted.id)));
        }
        found.push(Doomed { run, token, minted, value, operator });
    }
    Ok(found)
}

/// Hosts whose latest word in any journal is that they hold a credential.
fn holders(runs: &[(RunId, RunState)], fingerprint: &Fingerprint) -> Vec<HostName> {
    let mut latest: BTreeMap<&HostName, bool> = BTreeMap::new();
    let mut oldest_first: Vec<&(RunId, RunState)> = runs.iter().collect();
    oldest_first.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, state) in oldest_first {
        for (name, host) in state.hosts.iter().filter(|(_, host)| host.phase != HostPhase::Spared) {
            let Some(result) = &host.result else { continue };
            let holds = |now: Option<&Fingerprint>| now.is_none_or(|now| now == fingerprint);
            // What could not be read may hold it.
            let known = state.token.as_ref().and_then(|token| token.minted.as_ref());
            let may = known.is_some_and(|minted| minted.fingerprint == *fingerprint);
            let any = result.credentials.iter().any(|credential| match &credential.now {
                Some(now) => now == fingerprint,
                None => may && holds(None),
            });
            latest.insert(name, any);
        }
    }
    latest.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name.clone()).collect()
}

/// The old credential itself, from the first host that has a copy.
async fn reveal(session: &Session, ready: &mut [Ready], wanted: &Fingerprint) -> Result<SecretString, String> {
    let mut why = "no host has a copy of it, so that nobody could see that it is dead".to_owned();
    for host in ready.iter_mut().filter(|host| host.old.contains(wanted)) {
        match host.conn.call(&Op::Reveal { fingerprint: wanted.clone() }, None).await {
            Ok(Answer::Revealed(revealed)) => {
                let bytes = Zeroizing::new(revealed.0.as_bytes().to_vec());
                let value = SecretValue::new(bytes).map_err(|error| error.to_string())?;
                session.redactor.register(&value);
                if value.fingerprint() == wanted {
                    return Ok(SecretString::from(value.expose_text()));
                }
                why = format!("{}: its copy is not what it was", host.name);
            }
            Ok(_) => why = format!("{}: the host answered another question", host.name),
            Err(error) => why = format!("{}: {error}", host.name),
        }
    }
    Err(why)
}

/// Tells of it, for people or for programs.
struct Say<'a> {
    session: &'a Session,
    run: &'a RunId,
}

impl Say<'_> {
    fn is_json(&self) -> bool {
        self.session.global.output == Output::Jsonl
    }

    fn copy(&self, host: &HostName, copy: &Copy) {
        let fingerprint = copy.fingerprint.as_ref().map(Fingerprint::short);
        let line = if self.is_json() {
            json!({
                "event": "retire-copy", "run": self.run, "host": host, "kind": copy.kind, "at": copy.at,
                "fingerprint": fingerprint,
            })
            .to_string()
        } else {
            let kind = if copy.kind == "superseded" { "file that the pointer used to name" } else { &copy.kind };
            format!("  {host}: {kind} ({}): {}", fingerprint.unwrap_or_default(), copy.at)
        };
        self.session.out().line(&line);
    }

    fn line(&self, text: &str) {
        let json = json!({ "event": "retire-note", "run": self.run, "message": text }).to_string();
        self.session.out().line(if self.is_json() { &json } else { text });
    }

    fn refused(&self, reasons: &[String], code: u8) -> u8 {
        if !self.is_json() {
            self.session.out().line(&format!("run {} is not retired:", self.run));
        }
        self.end("refused", &reasons.join("\n"), code);
        code
    }

    fn end(&self, status: &str, detail: &str, code: u8) {
        let mut out = self.session.out();
        if self.is_json() {
            let end = json!({
                "event": "retire-finished", "run": self.run, "status": status, "detail": detail, "exit_code": code,
            });
            out.line(&end.to_string());
        } else {
            detail.lines().for_each(|line| out.line(&format!("  {line}")));
        }
    }
}
