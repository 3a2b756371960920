//! `keyswap demo` and `keyswap sandbox`: the real program against throw-away hosts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use camino::Utf8PathBuf;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::args::{DemoArgs, Reach, RunArgs, RunSelect, SandboxArgs};
use super::session::Session;
use super::{CliError, run, signals};
use crate::report::Printer;
use crate::sandbox::forge::{DispatchedRun, Ending, Outcome, Setup, StandIn, Version};
use crate::sandbox::{BreakRestart, ForgeAccess, HostFacts, InfisicalAccess, Sandbox, SandboxOptions, infisical};

/// Made up: it opens nothing but the stand-in, which ends with this process.
const FORGE_TOKEN: &str = "test-token-forge-stand-in";
const REPO: &str = "owner/repo";
const IMAGE: &str = "owner/name:latest";

/// Who may take a job of the stand-in forge: the hosts' runners, as their files tell of them.
struct Runners {
    /// Names and directories.
    hosts: Vec<(String, PathBuf)>,
    /// How the first token stands in a runner's status.
    old: String,
}

impl Runners {
    /// The runner that came up last with another token than the first one takes it, and says so in its log.
    fn take(&self, run: &DispatchedRun) -> Option<String> {
        let up = |(_, dir): &&(String, PathBuf)| {
            let status = std::fs::read_to_string(dir.join("runner.status")).ok()?;
            let since = std::fs::metadata(dir.join("runner.status")).and_then(|meta| meta.modified()).ok()?;
            Some((!status.lines().any(|line| line == self.old), since))
        };
        let (name, dir) = self.hosts.iter().max_by_key(up)?;
        let line = format!("level=info msg=\"task {} repo is {} (stand-in)\"\n", run.task, run.repo);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("tasks.log"));
        log.and_then(|mut log| std::io::Write::write_all(&mut log, line.as_bytes())).ok()?;
        Some(name.clone())
    }
}

/// Hosts, the forge that their playbook verifies with, and the Infisical whose shared token they hold.
struct Stage {
    sandbox: Sandbox,
    forge: StandIn,
    infisical: Option<infisical::StandIn>,
}

impl Stage {
    async fn set(hosts: usize, broken: Option<usize>, minting: bool, version: Version) -> Result<Self, CliError> {
        let (infisical, access) = if minting {
            let mut world = infisical::World::new(infisical::Clock::real());
            let story = world.tell();
            let stand_in = infisical::StandIn::start(world)
                .await
                .map_err(|error| CliError::internal("cannot start the stand-in Infisical", error))?;
            let access = InfisicalAccess {
                url: stand_in.url(),
                client_id: story.client_id,
                client_secret: SecretString::from(story.client_secret),
                shared_token: SecretString::from(story.admin_token),
            };
            (Some(stand_in), Some(access))
        } else {
            (None, None)
        };
        let setup = Setup::new(version, FORGE_TOKEN);
        let runners: Arc<OnceLock<Runners>> = Arc::default();
        let players = Arc::clone(&runners);
        let publish = move |run: &DispatchedRun| {
            let outcome = Outcome::new(Ending::Success).after(Duration::from_millis(500));
            let outcome = outcome.pushing(IMAGE, &format!("{:064x}", run.id));
            match players.get().and_then(|runners| runners.take(run)) {
                Some(name) => outcome.on(&name),
                None => outcome,
            }
        };
        let forge = StandIn::start(setup, publish)
            .await
            .map_err(|error| CliError::internal("cannot start the forge", error))?;
        let options = SandboxOptions {
            forge: Some(ForgeAccess {
                url: forge.url(),
                token: SecretString::from(FORGE_TOKEN),
                repo: REPO.to_owned(),
                workflow: "docker-publish.yml".to_owned(),
                git_ref: "main".to_owned(),
                image: Some(IMAGE.to_owned()),
            }),
            infisical: access,
            logs_tasks: true,
            break_restart: broken.map(|number| (number, BreakRestart::AtOnce)).into_iter().collect::<BTreeMap<_, _>>(),
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::start(hosts, options)
            .await
            .map_err(|error| CliError::internal("cannot start the hosts", error))?;
        let hosts = sandbox.hosts().iter().map(|host| (host.name().to_string(), host.dir().to_owned())).collect();
        let of = Runners { hosts, old: format!("token=sha256:{}", sandbox.old_token().hex()) };
        forge.world().runners = of.hosts.iter().map(|(name, _)| (name.clone(), "idle".to_owned())).collect();
        let _ = runners.set(of);
        Ok(Self { sandbox, forge, infisical })
    }

    async fn strike(self) -> Result<(), CliError> {
        drop((self.forge, self.infisical));
        self.sandbox.stop().await.map_err(|error| CliError::internal("cannot clean up", error))
    }
}

fn utf8(path: PathBuf) -> Result<Utf8PathBuf, CliError> {
    Utf8PathBuf::from_path_buf(path).map_err(|path| CliError::usage(format!("{} is not UTF-8", path.display())))
}

/// Rotates hosts, lets one more fail its restart, and shows from outside where each of them ended.
pub(super) async fn demo(session: &Session, args: &DemoArgs) -> Result<u8, CliError> {
    let rotated = usize::from(args.hosts);
    let mut out = session.out();
    for line in [
        "keyswap demo: throw-away runner hosts in this process (real SSH on loopback, real sh, stand-in runners)"
            .to_owned(),
        format!("and a stand-in forge. {rotated} hosts get the new token; one more has a runner that will not come up"),
        "with it, and is rolled back. First the rollout of one host, then of the rest.".to_owned(),
        String::new(),
    ] {
        out.line(&line);
    }
    let stage = Stage::set(rotated + 1, Some(rotated + 1), false, Version::Forgejo(15)).await?;
    let before: Vec<HostFacts> = stage.sandbox.hosts().iter().map(|host| stage.sandbox.facts(host)).collect();
    let mut global = session.global.clone();
    global.state_dir = Some(utf8(stage.sandbox.dir().join("controller"))?);
    let inner = session.with(global);
    let run_args = RunArgs {
        playbook: Some(utf8(stage.sandbox.playbook())?),
        select: RunSelect { inventory: vec![utf8(stage.sandbox.inventory())?], limit: None, extra_vars: Vec::new() },
        plan: None,
        reach: Reach { user: None, private_key: None, become_root: false, forks: 25 },
        rerun: Vec::new(),
        check: false,
        diff: true,
        yes: true,
        skip_unreachable: false,
        list_hosts: false,
        list_steps: false,
    };
    let ran = run::run(&inner, &run_args).await;
    let shown = ran.as_ref().is_ok_and(|code| *code == 2) && show(&mut out, &stage, &before, rotated);
    let struck = stage.strike().await;
    let code = ran?;
    struck?;
    if code == super::error::INTERRUPTED {
        return Ok(code);
    }
    out.line("");
    out.line(if shown {
        "Shown: rotation, a failed restart, and a rollback that was checked on the host. Nothing is left behind."
    } else {
        "This is not what the demo should have shown: please report it."
    });
    Ok(u8::from(!shown))
}

/// Looks at every host with plain file access, past keyswap, and says what is there.
fn show(out: &mut Printer<std::io::Stdout>, stage: &Stage, before: &[HostFacts], rotated: usize) -> bool {
    let mut good = true;
    out.line("");
    out.line("As seen on the hosts, past keyswap:");
    for ((number, host), before) in (1usize..).zip(stage.sandbox.hosts()).zip(before) {
        let facts = stage.sandbox.facts(host);
        let wanted = if number <= rotated { stage.sandbox.new_token() } else { stage.sandbox.old_token() };
        let runs_on = facts.runner.as_ref().and_then(|runner| runner.token.as_ref());
        let old = number > rotated;
        let as_it_was = !old || (facts.token == before.token && facts.env_line == before.env_line);
        good &= facts.token.as_ref() == Some(wanted) && runs_on == Some(wanted) && as_it_was;
        let name = |fingerprint: Option<&crate::model::Fingerprint>| {
            fingerprint.map_or_else(|| "nothing".to_owned(), crate::model::Fingerprint::short)
        };
        out.line(&format!(
            "  {:<9} file {} mode {:04o}, runner on {}: {}",
            host.name().as_str(),
            name(facts.token.as_ref()),
            facts.mode.unwrap_or_default(),
            name(runs_on),
            if old { "the old token, as it was" } else { "the new token" },
        ));
    }
    good
}

/// Keeps hosts up until Ctrl-C, and says what to try.
pub(super) async fn sandbox(session: &Session, args: &SandboxArgs) -> Result<u8, CliError> {
    let stage = Stage::set(usize::from(args.hosts), None, true, args.forge).await?;
    let cancel = CancellationToken::new();
    signals::watch(cancel.clone(), &session.screen, || {})?;
    let (inventory, playbook) = (stage.sandbox.inventory(), stage.sandbox.playbook());
    let (identity, minted) = (stage.sandbox.identity(), stage.sandbox.minted_playbook());
    let state = stage.sandbox.dir().join("controller");
    let tail = format!("--state-dir {}", state.display());
    let mut out = session.out();
    for line in [
        format!(
            "{} hosts are up; stand-in forge ({}, simulated) at {}",
            args.hosts,
            args.forge.text(),
            stage.forge.url()
        ),
        format!(
            "stand-in Infisical (simulated) at {}; every runner holds its admin's shared token",
            stage.infisical.as_ref().map(infisical::StandIn::url).unwrap_or_default()
        ),
        "Try, in another terminal:".to_owned(),
        format!("  keyswap run {} -i {} --check --diff {tail}", playbook.display(), inventory.display()),
        format!("  keyswap run {} -i {} {tail}", playbook.display(), inventory.display()),
        format!("  keyswap runs {tail}"),
        format!("  keyswap rollback {tail}"),
        "From the shared token to one that reads two keys:".to_owned(),
        format!("  keyswap audit -i {} {} {tail}", inventory.display(), minted.display()),
        format!("  keyswap identity apply {} -i {} {tail}", identity.display(), inventory.display()),
        format!("  keyswap run {} -i {} {tail}", minted.display(), inventory.display()),
        format!("  keyswap audit -i {} {} {tail}", inventory.display(), minted.display()),
        format!("  keyswap retire {tail}          # and after the next run: retire --revoke"),
        "Ctrl-C ends it and leaves nothing behind.".to_owned(),
    ] {
        out.line(&line);
    }
    cancel.cancelled().await;
    stage.strike().await?;
    Ok(0)
}
