//! `keyswap identity apply`: the dedicated Infisical identity as its file says: look, show, ask, do, read back.

use camino::Utf8PathBuf;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{IdentityArgs, IdentityVerb, Output};
use super::errand::{Leave, PlanFiles};
use super::inventory::{both, joined, word};
use super::prompt::Terminal;
use super::session::Session;
use super::{CliError, error, signals, token};
use crate::approval::Kind;
use crate::load;
use crate::model::{ApprovalPolicy, IdentitySpec, chain};
use crate::report::Printer;
use crate::service::infisical::{Applied, Change, Infisical};

pub(super) async fn identity(session: &Session, args: &IdentityArgs) -> Result<u8, CliError> {
    let IdentityVerb::Apply(args) = &args.verb;
    let spec = load::identity(&args.file);
    let inventory = load::inventory(&args.inventory, &session.context()?);
    let (spec, inventory) = both(spec, inventory)?;
    if !args.check && !args.yes && args.files.out.is_none() && !Terminal::is_there() {
        return Err(CliError::usage(
            "identity apply asks before it changes anything: give --yes, or run it on a terminal",
        ));
    }
    let policies: Vec<ApprovalPolicy> = inventory.approval.iter().cloned().collect();
    if !args.check {
        let (file, inventory) = (word(args.file.as_str()), joined(&args.inventory));
        let command = format!("keyswap identity apply {file} -i {inventory}");
        args.files.may_begin(session, &policies, &command)?;
    }
    let client = token::operator(session, &inventory.services).await?;
    let done = apply(session, (args, &policies), &client, &spec).await;
    // What was lent ends by itself, too.
    let _ = client.log_out().await;
    done
}

async fn apply(
    session: &Session,
    (args, policies): (&ApplyArgs, &[ApprovalPolicy]),
    client: &Infisical,
    spec: &IdentitySpec,
) -> Result<u8, CliError> {
    let server = |error| CliError::Server(chain(&error));
    let planned = client.plan_identity(spec).await.map_err(server)?;
    let say = Say { session, spec };
    say.plan(&planned.changes);
    if planned.changes.is_empty() {
        say.end("ok", "it is what its file says", 0);
        return Ok(0);
    }
    if args.check {
        say.end("changed", "it would be changed", error::CHANGES);
        return Ok(error::CHANGES);
    }
    let head = format!("identity `{}` in {} at {}", spec.name, spec.project, client.base());
    let reads = spec.access.iter().map(|access| format!("reads {access}"));
    let says: Vec<String> =
        std::iter::once(head).chain(reads).chain(planned.changes.iter().map(Change::to_string)).collect();
    let leave = args.files.leave(session, Kind::Identity, &says, policies)?;
    if matches!(leave, Leave::Written) {
        say.end("changed", "a plan was written, and nothing was changed", 0);
        return Ok(0);
    }
    if !args.yes {
        session.terminal().confirm(&format!("Make these {} changes?", planned.changes.len()))?;
    }
    let redactor = session.redactor.clone();
    // What was begun is done and read back: nobody asked for an identity in between.
    signals::watch(CancellationToken::new(), &session.screen, move || {
        let text = "stopping: the changes are made and read back first. Again: leave at once; the same command goes on";
        Printer::new(std::io::stderr(), &redactor).line(text);
    })?;
    if let Leave::By(warrant) = &leave {
        warrant.claim(&session.store()?, &format!("identity `{}`", spec.name), &session.operator())?;
    }
    let Applied { identity, changed, .. } = client.apply_identity(spec, &planned.changes).await.map_err(server)?;
    let detail = format!("{} changes made, read back and in effect; its id is {identity}", changed.len());
    say.end("changed", &detail, 0);
    Ok(0)
}

/// Tells of the identity, for people or for programs.
struct Say<'a> {
    session: &'a Session,
    spec: &'a IdentitySpec,
}

impl Say<'_> {
    fn plan(&self, changes: &[Change]) {
        let mut out = self.session.out();
        if self.session.global.output == Output::Jsonl {
            for change in changes {
                let line =
                    json!({"event": "identity-change", "identity": self.spec.name, "change": change.to_string()});
                out.json(&line);
            }
            return;
        }
        let reads: Vec<String> = self.spec.access.iter().map(ToString::to_string).collect();
        out.line(&format!("identity `{}` in {}: reads {}", self.spec.name, self.spec.project, reads.join("; ")));
        for change in changes {
            out.line(&format!("  {change}"));
        }
    }

    fn end(&self, status: &str, detail: &str, code: u8) {
        let mut out = self.session.out();
        if self.session.global.output == Output::Jsonl {
            let line = json!({
                "event": "identity-finished", "identity": self.spec.name, "status": status, "detail": detail,
                "exit_code": code,
            });
            out.json(&line);
            return;
        }
        out.line(&format!("identity `{}`: {detail}", self.spec.name));
    }
}

/// An identity's file and where its server stands.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The identity's file
    pub(super) file: Utf8PathBuf,
    /// Inventory file: which server, and how to log in; may be given several times, later ones win
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Only look and say what would change. Exits 10 when something would
    #[arg(short = 'C', long)]
    pub(super) check: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) files: PlanFiles,
}
