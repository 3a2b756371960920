//! `keyswap retire`: the point of no return. Only where every host of a run is seen on the new credential, every copy of
//! the old one that the run knows is removed; with `--revoke` the old one is killed at its issuer first, and only if
//! keyswap minted it in an earlier run.
//!
//! What was seen before the operator was asked is seen again under the run's lock, and only that counts. Then, in this order: the
//! journal says that there is no way back, each host says so (by a rename that only one can win), the old token is revoked
//! and seen to be refused, the copies go, each host is asked again. What fails on that way is owed, and is gone on with by the
//! same command.

mod from_hosts;
mod issuer;
mod look;
mod say;

use std::sync::Arc;

use camino::Utf8PathBuf;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use self::issuer::{Condemned, Doomed, condemned, doomed, kill};
use self::look::{Looking, Ready, Refused, close, not_new};
use self::say::Say;
use super::audit::judge::{FromRuns, Names};
use super::errand::{Leave, PlanFiles};
use super::inventory::word;
use super::prompt::Terminal;
use super::session::Session;
use super::{CliError, error, order, signals};
use crate::approval::Kind;
use crate::journal::{Journal, Operator, Record, RunState, Store};
use crate::load;
use crate::model::{ApprovalPolicy, Inventory};
use crate::plan::RunPlan;
use crate::remote::{Answer, CopiesVerb, Op};
use crate::report::Printer;
use crate::rollout::Retirable;

/// What is retired.
#[derive(Debug, clap::Args)]
pub(super) struct RetireArgs {
    /// The run: its id or a unique prefix; the latest if left out
    pub(super) run: Option<String>,
    /// Kill the old credential at its issuer, too: only if keyswap minted it in an earlier run
    #[arg(long)]
    pub(super) revoke: bool,
    /// Go by what the hosts recorded of the run: without its journal, for another operator. Not with --revoke
    #[arg(long, requires = "inventory")]
    pub(super) from_hosts: bool,
    /// With --from-hosts, the hosts; with --revoke, the inventory whose `[approval]` counts, where the run's own is not where it was
    #[arg(short, long, value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Only these: names, groups, * globs, !not, &and, @file
    #[arg(short, long, value_name = "PATTERN", requires = "from_hosts")]
    pub(super) limit: Option<String>,
    /// Log in as this user
    #[arg(short, long, requires = "from_hosts")]
    pub(super) user: Option<String>,
    /// Log in with this key
    #[arg(long, value_name = "FILE", requires = "from_hosts")]
    pub(super) private_key: Option<Utf8PathBuf>,
    /// Become root by sudo where the inventory says none
    #[arg(short, long = "become", requires = "from_hosts")]
    pub(super) become_root: bool,
    /// How many hosts are looked at at the same time
    #[arg(short, long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) forks: u16,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) files: PlanFiles,
}

/// Why what is known from the hosts alone revokes nothing.
const NOT_FROM_HOSTS: &str = "what the hosts recorded says which token they replaced, not who minted it: only a journal of this machine can \
     tell that keyswap did, and that nobody else lives on it. Leave --revoke out, or run it where the journal is";

pub(super) async fn retire(session: &Session, args: &RetireArgs) -> Result<u8, CliError> {
    if !args.revoke && (args.files.out.is_some() || args.files.plan.is_some()) {
        return Err(CliError::usage("a plan is for retire --revoke: what only removes copies needs none"));
    }
    if !args.inventory.is_empty() && !args.revoke && !args.from_hosts {
        return Err(CliError::usage("-i is for --from-hosts and for --revoke: a run's journal knows its hosts"));
    }
    if args.from_hosts {
        return from_hosts::retire(session, args).await;
    }
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    let (plan, state): (RunPlan, RunState) = (store.plan(&run)?, store.state(&run)?);
    if args.revoke && plan.of.is_some() {
        return Err(CliError::usage(NOT_FROM_HOSTS));
    }
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
    let (policies, names) = match args.revoke {
        true => {
            let inventory = inventory(session, args, &plan)?;
            let mut policies = plan.approval.clone();
            policies.extend(inventory.approval.iter().filter(|policy| !plan.approval.contains(policy)).cloned());
            (policies, Names::new(&inventory, FromRuns::default()))
        }
        false => (Vec::new(), Names::default()),
    };
    let inventory: String = args.inventory.iter().map(|path| format!(" -i {}", word(path.as_str()))).collect();
    args.files.may_begin(session, &policies, &format!("keyswap retire {run} --revoke{inventory}"))?;
    can_ask(args)?;
    let of = Retiring { session, args, store: &store, plan: &plan, policies: &policies, names: &names, recorded: None };
    of.told(&state).await
}

fn can_ask(args: &RetireArgs) -> Result<(), CliError> {
    if !args.yes && args.files.out.is_none() && !Terminal::is_there() {
        return Err(CliError::usage("retire asks before it removes anything: give --yes, or run it on a terminal"));
    }
    Ok(())
}

/// The inventory as it is now: whose approval the end of the old credential needs, and which credentials others use. Where
/// nobody can tell, it is not done.
fn inventory(session: &Session, args: &RetireArgs, plan: &RunPlan) -> Result<Inventory, CliError> {
    let files: Vec<Utf8PathBuf> = match (args.inventory.as_slice(), plan.inventory_files.as_slice()) {
        ([], []) => plan.inventory.split(" -i ").filter(|path| !path.is_empty()).map(Utf8PathBuf::from).collect(),
        ([], known) => known.to_vec(),
        (named, _) => named.to_vec(),
    };
    let read = if files.is_empty() { None } else { load::inventory(&files, &session.context()?).ok() };
    read.ok_or_else(|| {
        let which = super::inventory::joined(&files);
        order::no(format!(
            "whether the end of the old credential needs an approval stands in the run's inventory ({which}), which cannot be read: \
             name it with -i"
        ))
    })
}

/// Why it is not done.
enum No {
    Error(CliError),
    Because(String),
    Refused(Refused),
    /// The point of no return was passed.
    Owed(String),
}

impl<E: Into<CliError>> From<E> for No {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What a retirement works with.
struct Retiring<'a> {
    session: &'a Session,
    args: &'a RetireArgs,
    store: &'a Store,
    plan: &'a RunPlan,
    policies: &'a [ApprovalPolicy],
    names: &'a Names,
    /// The run has no journal here: this one is begun once the operator has agreed.
    recorded: Option<&'a Retirable>,
}

impl Retiring<'_> {
    /// Does it, and tells how it ended.
    async fn told(&self, state: &RunState) -> Result<u8, CliError> {
        let (args, run) = (self.args, self.plan.on_hosts());
        let say = Say { session: self.session, run };
        match self.whole(state).await {
            Ok(end) => {
                say.end(if args.files.out.is_some() { "planned" } else { "retired" }, &end, 0);
                Ok(0)
            }
            Err(No::Error(error)) => Err(error),
            Err(No::Because(reason)) => Ok(say.refused(&[reason], 2)),
            Err(No::Refused(Refused { reasons, unreachable })) => {
                Ok(say.refused(&reasons, if unreachable { error::UNREACHABLE } else { 2 }))
            }
            Err(No::Owed(reason)) => Ok(say.owed(&reason, &self.again())),
        }
    }

    /// The command that goes on with it.
    fn again(&self) -> String {
        let revoke = if self.args.revoke { " --revoke" } else { "" };
        self.session.typed(&format!("keyswap retire{revoke} {}", self.plan.run))
    }

    /// From here on Ctrl-C and its kin are heard, and answered between two phases.
    fn watch(&self) -> Result<CancellationToken, CliError> {
        let cancel = CancellationToken::new();
        let (redactor, again) = (self.session.redactor.clone(), self.again());
        signals::watch(cancel.clone(), &self.session.screen, move || {
            let text =
                format!("stopping: what is under way is waited for. Again: leave at once; {again} goes on with it");
            Printer::new(std::io::stderr(), &redactor).line(&text);
        })?;
        Ok(cancel)
    }

    /// Looks, asks, looks again under the lock, and does it.
    async fn whole(&self, state: &RunState) -> Result<String, No> {
        let refused = |reasons: Vec<String>| No::Refused(Refused { reasons, unreachable: false });
        let reasons = not_new(self.plan, state);
        if !reasons.is_empty() {
            return Err(refused(reasons));
        }
        let looking = Looking::new(self.session, self.plan, state, usize::from(self.args.forks))?;
        let ready = looking.all(self.plan, state, Vec::new()).await.map_err(No::Refused)?;
        let agreed = self.agree(state, &ready);
        let (leave, killed) = match agreed {
            Ok((Leave::Written, _)) => {
                close(ready).await;
                return Ok("a plan was written, and nothing was removed or revoked".to_owned());
            }
            Ok(agreed) => agreed,
            Err(no) => {
                close(ready).await;
                return Err(no);
            }
        };
        let by = self.session.operator();
        if let Some(recorded) = self.recorded
            && let Err(error) = from_hosts::begin(self.store, self.plan, recorded, by.clone()).await
        {
            close(ready).await;
            return Err(error.into());
        }
        let (journal, state) = match self.store.reopen(&self.plan.run, "retire", &by) {
            Ok(reopened) => reopened,
            Err(error) => {
                close(ready).await;
                return Err(error.into());
            }
        };
        let done = self.locked((&journal, &state), &looking, ready, (leave, killed), by).await;
        let closed = journal.close().await;
        let done = done?;
        closed?;
        Ok(done)
    }

    /// Shows what goes, and asks.
    fn agree(&self, state: &RunState, ready: &[Ready]) -> Result<(Leave, Vec<Condemned>), No> {
        let run = self.plan.on_hosts();
        let say = Say { session: self.session, run };
        if !say.is_json() {
            say.line(&format!("run {run}: every host is on the new credential; what goes:"));
        }
        let count: usize = ready.iter().map(|host| host.goes.copies.len()).sum();
        for host in ready {
            for copy in &host.goes.copies {
                say.copy(&host.name, copy);
            }
        }
        let condemned = match self.args.revoke {
            true => condemned(self.store, self.plan, ready, self.names)?,
            false => Vec::new(),
        };
        for one in &condemned {
            let (token, server) = (one.token.describe(), &one.token.server);
            say.line(&format!("{token} is revoked at {server}, which run {} minted", one.run));
        }
        if count == 0
            && condemned.is_empty()
            && state.retired.is_none()
            && ready.iter().all(|host| host.goes.all_old().is_empty())
        {
            return Err(No::Because("there is no old credential to retire".to_owned()));
        }
        let mut says = vec![format!("run {}: the old token is revoked, and every copy of it goes", self.plan.run)];
        says.extend(
            condemned
                .iter()
                .map(|one| format!("{} at {}, minted by run {}", one.token.describe(), one.token.server, one.run)),
        );
        says.extend(
            ready.iter().flat_map(|host| {
                host.goes.copies.iter().map(|copy| format!("{}: {} {}", host.name, copy.kind, copy.at))
            }),
        );
        let leave = self.args.files.leave(self.session, Kind::Retire, &says, self.policies)?;
        if !matches!(leave, Leave::Written) && !self.args.yes {
            let also = if condemned.is_empty() { "" } else { " and revoke the old token" };
            let hosts = ready.len();
            self.session
                .terminal()
                .confirm(&format!("Remove these {count} copies from {hosts} hosts{also}? There is no way back"))?;
        }
        Ok((leave, condemned))
    }

    /// With the run's lock: nobody on this machine takes it back any more. What was shown may be of yesterday.
    async fn locked(
        &self,
        (journal, state): (&Journal, &RunState),
        looking: &Arc<Looking>,
        shown: Vec<Ready>,
        (leave, killed): (Leave, Vec<Condemned>),
        by: Operator,
    ) -> Result<String, No> {
        let stale = || No::Because("what was shown is stale: it has changed meanwhile. Look again".to_owned());
        let reasons = not_new(self.plan, state);
        if !reasons.is_empty() {
            close(shown).await;
            return Err(No::Refused(Refused { reasons, unreachable: false }));
        }
        let cancel = self.watch()?;
        let goes: Vec<_> = shown.iter().map(|host| host.goes.clone()).collect();
        let mut ready = looking.all(self.plan, state, shown).await.map_err(No::Refused)?;
        let done = async {
            if !ready.iter().zip(&goes).all(|(host, shown)| host.goes.is_as_shown(shown)) {
                return Err(stale());
            }
            if self.args.revoke && condemned(self.store, self.plan, &ready, self.names)? != killed {
                return Err(stale());
            }
            let doomed = doomed(self.session, self.plan, &mut ready, killed).await?;
            if cancel.is_cancelled() {
                return Err(CliError::Declined.into());
            }
            if let Leave::By(warrant) = &leave {
                warrant.claim(self.store, &format!("retire of run {}", self.plan.run), &by)?;
                journal.append(None, warrant.record()).await?;
            }
            journal.append(None, Record::RetireStarted { revoke: !doomed.is_empty(), by: by.clone() }).await?;
            finish(self.store, journal, (&mut ready, doomed), by, &cancel).await.map_err(No::Owed)
        }
        .await;
        close(ready).await;
        done
    }
}

/// Past the point of no return. Who stops it gets no half of a phase: what is left is owed.
async fn finish(
    store: &Store,
    journal: &Journal,
    (ready, doomed): (&mut [Ready], Vec<Doomed>),
    by: Operator,
    cancel: &CancellationToken,
) -> Result<String, String> {
    let text = |error: crate::journal::JournalError| crate::model::chain(&error);
    let go_on = |so_far: &str| match cancel.is_cancelled() {
        true => Err(format!("stopped by the operator: {so_far}, and no copy is gone")),
        false => Ok(()),
    };
    for (name, sealed) in join_all(ready.iter_mut().map(seal)).await {
        sealed.map_err(|why| format!("{name}: {why}; nothing was revoked, and no copy is gone"))?;
    }
    let killed = doomed.len();
    for one in doomed {
        go_on("not every old token is revoked")?;
        let detail = kill(&one).await?;
        let Condemned { run, minted, .. } = &one.is;
        let record = Record::OldRevoked {
            fingerprint: minted.fingerprint.clone(),
            id: minted.id.clone(),
            minted_by: run.to_string(),
            detail: format!("{detail}; for this one request its value was read from a host's backup"),
        };
        journal.append(None, record).await.map_err(text)?;
        if run != journal.run() {
            let (its_own, _) = store.reopen(run, "retire", &by).map_err(text)?;
            let revoked = Record::TokenRevoked { ids: vec![minted.id.clone()], detail };
            its_own.append(None, revoked).await.map_err(text)?;
            its_own.close().await.map_err(text)?;
        }
        // What was lent for this ends by itself, too.
        let _ = one.operator.log_out().await;
    }
    go_on(if killed > 0 { "the old token is dead" } else { "nothing was revoked" })?;
    let (mut removed, mut left) = (0, Vec::new());
    for (name, gone) in join_all(ready.iter_mut().map(|host| remove(journal, host))).await {
        match gone {
            Ok(count) => removed += count,
            Err(why) => left.push(format!("{name}: {why}")),
        }
    }
    if !left.is_empty() {
        return Err(left.join("\n"));
    }
    journal.append(None, Record::Retired).await.map_err(text)?;
    let dead = if killed > 0 { "; the old token is dead" } else { "" };
    Ok(format!("{removed} copies removed from {} hosts{dead}", ready.len()))
}

type OfHost<T> = (crate::model::HostName, Result<T, String>);

/// Asks a host for its copies with this verb.
async fn copies(host: &mut Ready, verb: CopiesVerb) -> Result<Vec<String>, String> {
    let (old, superseded) = (host.goes.all_old(), host.goes.superseded.clone());
    let op = Op::Copies { run: host.run.clone(), old, superseded, verb };
    match host.conn.call(&op, None).await.map_err(|error| error.to_string())? {
        Answer::Copies(copies) => Ok(copies.into_iter().map(|copy| copy.at).collect()),
        _ => Err("the host answered another question".to_owned()),
    }
}

/// From here on the host itself refuses to be taken back.
async fn seal(host: &mut Ready) -> OfHost<()> {
    let sealed = copies(host, CopiesVerb::Seal).await;
    (host.name.clone(), sealed.map(|_| ()))
}

/// Removes a host's copies, and looks whether any is left.
async fn remove(journal: &Journal, host: &mut Ready) -> OfHost<usize> {
    let removed = async {
        let at = copies(host, CopiesVerb::Remove).await?;
        let count = at.len();
        let record = Record::CopiesRemoved { at };
        journal.append(Some(&host.name), record).await.map_err(|error| crate::model::chain(&error))?;
        match copies(host, CopiesVerb::Look).await?.first() {
            None => Ok(count),
            Some(at) => Err(format!("{at} is there still")),
        }
    }
    .await;
    (host.name.clone(), removed)
}
