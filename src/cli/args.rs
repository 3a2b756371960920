//! The command line.

use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::model::RunId;
use crate::sandbox::forge::Version;

/// What was built, of which sources, by what: all of it the same for the same sources.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("KEYSWAP_COMMIT"),
    "\ntarget: ",
    env!("KEYSWAP_TARGET"),
    "\ncompiler: ",
    env!("KEYSWAP_RUSTC"),
);

/// Swap a credential on a fleet of CI runner hosts over SSH, or put the old one back.
#[derive(Debug, Parser)]
#[command(name = "keyswap", version, long_version = BUILD, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Global {
    /// Say more; up to three times. No level shows a secret
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// How to say what happens
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    pub(super) output: Output,
    /// Colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(super) color: Color,
    /// Ask once, for all hosts, for the password with which sudo makes us root there
    #[arg(short = 'K', long, global = true)]
    pub(super) ask_become_pass: bool,
    /// Where runs are journaled [default: $XDG_STATE_HOME/keyswap or ~/.local/state/keyswap]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<Utf8PathBuf>,
}

/// How to say what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For a person at a terminal; plain lines where there is none
    Human,
    /// Plain lines, no control codes
    Plain,
    /// One JSON object a line
    Jsonl,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Plan, ask, then do it (--check: plan only, read-only)
    Run(RunArgs),
    /// The same plan as a file with a digest: to be read, approved, and run exactly so
    Plan(super::propose::PlanArgs),
    /// Sign a plan's digest with an SSH key: it may run
    Approve(super::approve::ApproveArgs),
    /// Undo a run, newest hosts first; also a run that was cut off
    Rollback(BackArgs),
    /// Settle a run that was cut off: forward, or back with --back
    Resume(ResumeArgs),
    /// Point of no return: remove every copy of the old credential that a run knows
    Retire(super::retire::RetireArgs),
    /// Past runs; with RUN, one run's hosts and steps
    Runs(RunsArgs),
    /// One run told as a self-contained HTML page, or as JSON: timeline, proofs, approvals, what is left to do
    Report(super::report::ReportArgs),
    /// Check files offline: syntax, types, undefined variables
    Lint(LintArgs),
    /// What a pattern selects, with resolved variables (never secrets)
    Hosts(HostsArgs),
    /// Reach, log in, escalate; say what is missing
    Ping(PingArgs),
    /// An ad-hoc command on many hosts: keyswap exec -i INVENTORY -- uptime
    Exec(super::exec::ExecArgs),
    /// Which credential does each host hold now? Who has drifted, what expires? Exits 10 on drift
    Audit(super::audit::AuditArgs),
    /// A dedicated Infisical identity as its file says
    Identity(IdentityArgs),
    /// Take a stale lock away, with a reason that is journaled on the host. Puts nothing back
    Unlock(UnlockArgs),
    /// A commented inventory, playbooks and an identity to start from. Overwrites nothing
    Init(super::init::InitArgs),
    /// Throw-away runner hosts: a rotation, and one host that fails and is rolled back
    Demo(DemoArgs),
    /// Throw-away runner hosts, a stand-in forge and a stand-in Infisical, until Ctrl-C
    Sandbox(SandboxArgs),
    /// A JSON Schema for editors: `#:schema FILE` as a file's first line points to it
    Schema {
        /// Of which kind of file
        kind: SchemaKind,
    },
    /// A completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// The manual page; with --out the pages of all commands
    Man {
        /// Write one page a command into this directory: keyswap.1, keyswap-run.1 …
        #[arg(long, value_name = "DIR")]
        out: Option<Utf8PathBuf>,
    },
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaKind {
    /// A playbook
    Playbook,
    /// An inventory
    Inventory,
    /// An Infisical identity
    Identity,
}

impl From<SchemaKind> for crate::load::schema::Kind {
    fn from(kind: SchemaKind) -> Self {
        match kind {
            SchemaKind::Playbook => Self::Playbook,
            SchemaKind::Inventory => Self::Inventory,
            SchemaKind::Identity => Self::Identity,
        }
    }
}

/// Which hosts, from which inventory.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Select {
    /// Inventory file; may be given several times, later ones win
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Only these: names, groups, * globs, !not, &and, @file
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) limit: Option<String>,
    /// Variables that outrank all others: k=v or @file. Never a secret
    #[arg(short, long = "extra-vars", value_name = "K=V|@FILE")]
    pub(super) extra_vars: Vec<String>,
}

/// Which hosts, from which inventory, where a plan file may say so instead.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct RunSelect {
    /// Inventory file; may be given several times, later ones win
    #[arg(short, long, required_unless_present = "plan", value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Only these: names, groups, * globs, !not, &and, @file
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) limit: Option<String>,
    /// Variables that outrank all others: k=v or @file. Never a secret
    #[arg(short, long = "extra-vars", value_name = "K=V|@FILE")]
    pub(super) extra_vars: Vec<String>,
}

/// How to reach hosts, over what the inventory says.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Reach {
    /// Log in as this user
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// Log in with this key
    #[arg(long, value_name = "FILE")]
    pub(super) private_key: Option<Utf8PathBuf>,
    /// Become root by sudo where the inventory says none
    #[arg(short, long = "become")]
    pub(super) become_root: bool,
    /// How many hosts are worked on at the same time
    #[arg(short, long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) forks: u16,
}

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct RunArgs {
    /// The playbook
    #[arg(required_unless_present_any = ["rerun", "plan"])]
    pub(super) playbook: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) select: RunSelect,
    /// Run exactly this plan, which `keyswap plan` made: its playbook, inventory and selection. Of the files' names given
    /// beside it, the content must be the plan's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["limit", "extra_vars", "user", "private_key", "become_root", "rerun", "skip_unreachable", "list_hosts", "list_steps"])]
    pub(super) plan: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) reach: Reach,
    /// Only hosts that an earlier run left so: failed, unreachable or rolled-back; the latest run if RUN is left out.
    /// With --limit: those that are in both
    #[arg(long, num_args = 1..=2, value_names = ["failed|unreachable|rolled-back", "RUN"])]
    pub(super) rerun: Vec<String>,
    /// Only look and plan; change nothing. Exits 10 when something would change
    #[arg(short = 'C', long)]
    pub(super) check: bool,
    /// Show what changes: fingerprints, modes, owners, the one env key
    #[arg(short = 'D', long)]
    pub(super) diff: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Leave hosts out that cannot be reached, instead of refusing to begin
    #[arg(long)]
    pub(super) skip_unreachable: bool,
    /// Only list the selected hosts
    #[arg(long)]
    pub(super) list_hosts: bool,
    /// Only list the steps
    #[arg(long)]
    pub(super) list_steps: bool,
}

/// A run is rebuilt from what its hosts recorded, and these are the hosts.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct FromHosts {
    /// Go by what the hosts recorded of the run: without its journal, for another operator
    #[arg(long, requires = "inventory")]
    pub(super) from_hosts: bool,
    /// Inventory file with those hosts; may be given several times, later ones win
    #[arg(short, long, value_name = "FILE", requires = "from_hosts")]
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
}

impl FromHosts {
    /// The hosts, as a selection.
    pub(super) fn as_select(&self) -> Select {
        Select { inventory: self.inventory.clone(), limit: self.limit.clone(), extra_vars: Vec::new() }
    }

    /// How they are reached.
    pub(super) fn as_reach(&self, forks: u16) -> Reach {
        Reach { user: self.user.clone(), private_key: self.private_key.clone(), become_root: self.become_root, forks }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct BackArgs {
    /// The run: its id or a unique prefix; the latest if left out
    pub(super) run: Option<String>,
    #[command(flatten)]
    pub(super) from: FromHosts,
    /// How many hosts are worked on at the same time
    #[arg(short, long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) forks: u16,
    /// For scripts that say it everywhere: the way back never asks
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    pub(super) back_args: BackArgs,
    /// Back to the old credential instead of forward
    #[arg(long)]
    pub(super) back: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct RunsArgs {
    /// The run: its id or a unique prefix
    pub(super) run: Option<String>,
    #[command(flatten)]
    pub(super) from: FromHosts,
}

#[derive(Debug, ClapArgs)]
pub(super) struct LintArgs {
    /// The playbook
    pub(super) playbook: Option<Utf8PathBuf>,
    /// Inventory file; with it, variables are checked for every host
    #[arg(short, long, value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Variables that outrank all others
    #[arg(short, long = "extra-vars", value_name = "K=V|@FILE")]
    pub(super) extra_vars: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct HostsArgs {
    #[command(flatten)]
    pub(super) select: Select,
    /// `accept`: scan host keys, show fingerprints, ask, add them to known_hosts
    #[arg(value_enum)]
    pub(super) verb: Option<HostsVerb>,
    /// Do not ask (accept)
    #[arg(short, long)]
    pub(super) yes: bool,
    /// How many hosts are scanned at the same time (accept)
    #[arg(short, long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) forks: u16,
}

/// What `hosts` does beside listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum HostsVerb {
    /// Scan host keys, show fingerprints, ask, add them to known_hosts
    Accept,
}

#[derive(Debug, ClapArgs)]
pub(super) struct PingArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) reach: Reach,
}

#[derive(Debug, ClapArgs)]
pub(super) struct UnlockArgs {
    /// The host's name
    pub(super) host: String,
    /// Inventory file; may be given several times, later ones win
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(super) inventory: Vec<Utf8PathBuf>,
    /// Why; it is written down on the host
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// The run that holds it: take its lock even if its controller may be at work
    #[arg(long, value_name = "RUN")]
    pub(super) run: Option<RunId>,
    #[command(flatten)]
    pub(super) reach: Reach,
}

impl UnlockArgs {
    /// The one host, as a selection.
    pub(super) fn as_select(&self) -> Select {
        Select { inventory: self.inventory.clone(), limit: Some(self.host.clone()), extra_vars: Vec::new() }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct IdentityArgs {
    #[command(subcommand)]
    pub(super) verb: IdentityVerb,
}

/// What is done with an identity.
#[derive(Debug, Subcommand)]
pub(super) enum IdentityVerb {
    /// Plan, ask, make it so, read back; twice is once
    Apply(super::identity::ApplyArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct DemoArgs {
    /// How many hosts are rotated; one more fails and is rolled back
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(super) hosts: u16,
}

#[derive(Debug, ClapArgs)]
pub(super) struct SandboxArgs {
    /// How many hosts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(super) hosts: u16,
    /// Which server the stand-in forge is: forgejo-11 to forgejo-16, gitea-1.24 to gitea-1.26
    #[arg(long, value_name = "SERVER", default_value = "forgejo-15", value_parser = forge_version)]
    pub(super) forge: Version,
}

/// Reads `forgejo-15` or `gitea-1.26`.
fn forge_version(text: &str) -> Result<Version, String> {
    let forgejo = text.strip_prefix("forgejo-").and_then(|number| number.parse().ok());
    let gitea = text.strip_prefix("gitea-1.").and_then(|number| number.parse().ok());
    match (forgejo, gitea) {
        (Some(number @ 11..=16), _) => Ok(Version::Forgejo(number)),
        (_, Some(number @ 24..=26)) => Ok(Version::Gitea(number)),
        _ => Err("the stand-in plays forgejo-11 to forgejo-16 and gitea-1.24 to gitea-1.26".to_owned()),
    }
}
