//! One host on which many runs are cut off, one after the other, and what must be true of it afterwards.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use keyswap::journal::{HostPhase, RunPhase, RunState, Store};
use keyswap::model::{RunId, RunStatus};

use crate::support::runner_host::{
    CONTROL_FILE, ENV_FILE, POINTER, Picture, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, env_text, whole,
};

/// The variable by which a program is told where to stop itself.
const PAUSE: &str = "KEYSWAP_TEST_PAUSE";

/// What starts the guard at boot while a host is held.
const HOOKS: [&str; 3] = [
    "/etc/cron.d/keyswap-guard",
    "/etc/systemd/system/keyswap-guard.service",
    "/etc/systemd/system/multi-user.target.wants/keyswap-guard.service",
];

/// A program that was started and may have stopped itself.
pub(crate) struct Controller {
    child: Child,
    files: PathBuf,
}

impl Controller {
    /// Starts it; with a point at which it stops itself.
    pub(crate) fn start(mut command: Command, args: &[&str], pause: Option<&str>) -> Self {
        let files = tempfile::Builder::new().prefix("keyswap-said-").tempdir().unwrap().keep();
        let file = |name: &str| fs::File::create(files.join(name)).unwrap();
        if let Some(pause) = pause {
            command.env(PAUSE, pause);
        }
        let child = command.args(args).stdout(file("out")).stderr(file("err")).spawn().expect("keyswap can be run");
        Self { child, files }
    }

    /// Waits until it has stopped itself (true) or has ended (false).
    pub(crate) fn stops(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(120);
        let stat = format!("/proc/{}/stat", self.child.id());
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let text = fs::read_to_string(&stat).unwrap_or_default();
            if text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return true;
            }
            assert!(Instant::now() < deadline, "it neither stops nor ends");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal: `KILL`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Kills it as nothing can be caught.
    pub(crate) fn kill(mut self) -> Said {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let read = |name: &str| fs::read(self.files.join(name)).unwrap();
        Said::new(self.child.wait().unwrap().code(), read("out"), read("err"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.files);
    }
}

/// What a host is, read from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Old,
    New,
}

/// A run that was only cut off ends forward.
pub(super) fn went_on(stand: Stand) -> Result<Stand, String> {
    if stand == Stand::New { Ok(stand) } else { Err("nothing had failed, and it went back".to_owned()) }
}

/// A host with a runner, as it was before.
pub(super) struct Bench {
    pub(super) host: RunnerHost,
    pub(super) before: Picture,
}

impl Bench {
    pub(super) fn start() -> Self {
        let host = RunnerHost::start();
        let before = host.picture();
        Self { host, before }
    }

    /// Runs the program to its end with this state directory.
    pub(super) fn say(&self, state: &str, args: &[&str]) -> Said {
        Controller::start(self.host.keyswap(state), args, None).end()
    }

    /// The name of the host's state, in its parts.
    pub(super) fn cas(&self) -> Vec<String> {
        let dir = self.host.path("/var/lib/keyswap/cas");
        let mut names = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let Some(name) = names.next() else { return vec!["none".to_owned(); 7] };
        assert!(names.next().is_none(), "one state");
        name.into_string().unwrap().split('.').map(str::to_owned).collect()
    }

    /// The host's phase and run.
    pub(super) fn phase(&self) -> (String, String) {
        let cas = self.cas();
        if cas[0] == "none" { ("none".to_owned(), "-".to_owned()) } else { (cas[2].clone(), cas[3].clone()) }
    }

    /// Whether the host is wholly old or wholly new: files, modes, owners, nothing beside them, and the runner.
    pub(super) fn stand(&self) -> Result<Stand, String> {
        let runner = self.host.runner().ok_or("the runner is not up")?;
        let after = self.host.picture();
        let runs_on = (runner.pointer.as_deref(), runner.token.clone(), runner.uid);
        if let Some(hook) = HOOKS.iter().find(|hook| fs::symlink_metadata(self.host.path(hook)).is_ok()) {
            return Err(format!("{hook} is left"));
        }
        // Of a private copy the picture shows the upper layer: a file that came and went below it leaves a mark there.
        let below = |path: &str| path.starts_with("/etc/cron.d") || path.starts_with("/etc/systemd");
        let mut differences = self.before.differences(&after);
        differences.retain(|line| !below(line));
        if differences.is_empty() {
            let wanted = (Some(SHARED_FILE), whole(&self.host.shared), 1000);
            return if runs_on == wanted { Ok(Stand::Old) } else { Err(format!("old files, runner {runs_on:?}")) };
        }
        let mut changed = self.before.changed(&after);
        changed.retain(|path| !below(path));
        if changed != [TOKEN_FILE, ENV_FILE] {
            return Err(format!("neither old nor new: {differences:?}"));
        }
        let meta =
            |path: &str| fs::metadata(self.host.path(path)).map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid()));
        let files = (self.host.read(TOKEN_FILE), self.host.read(ENV_FILE), meta(TOKEN_FILE).ok(), meta(ENV_FILE).ok());
        let new = (self.host.new.clone(), env_text(TOKEN_FILE, false), Some((0o600, 1000, 1000)), Some((0o640, 0, 0)));
        let wanted = (Some(TOKEN_FILE), whole(&self.host.new), 1000);
        if files != new || runs_on != wanted {
            return Err(format!("neither old nor new: {differences:?}, runner {runs_on:?} under {POINTER}"));
        }
        Ok(Stand::New)
    }

    /// The only run of a state directory, if one began.
    pub(super) fn run(&self, state: &str) -> Option<(RunId, RunState)> {
        let store = Store::open(&self.host.controller().join(state)).unwrap();
        let ids = store.ids().unwrap();
        assert!(ids.len() < 2, "{ids:?}");
        let run = ids.into_iter().next()?;
        let state = store.state(&run).unwrap_or_else(|error| panic!("the journal cannot be read: {error}"));
        Some((run, state))
    }

    /// After `said`, a recovery by `resume` (`back`: with `--back`): what the host is, what the journal and the program
    /// say of it and what the host itself says are one and the same.
    pub(super) fn settled(&self, state: &str, said: &Said, back: bool) -> Result<Stand, String> {
        let stand = self.stand()?;
        let (phase, holder) = self.phase();
        let Some((run, journal)) = self.run(state) else {
            return if stand == Stand::Old { Ok(stand) } else { Err("no run, and the host is new".to_owned()) };
        };
        let touched = holder == run.as_str();
        let told = journal.hosts.values().next().map(|host| host.phase).unwrap_or_default();
        let right = match (stand, told) {
            (Stand::New, HostPhase::New) => touched && phase == "new",
            (Stand::Old, HostPhase::Old) => !touched || phase == "old",
            (Stand::Old, HostPhase::Untouched | HostPhase::Spared) => !touched,
            _ => false,
        };
        if !right {
            return Err(format!("the host is {stand:?} ({phase} by {holder}), the journal of {run} says {told:?}"));
        }
        if journal.needs_settling() {
            return Err(format!("the run is not settled: {:?}", journal.phase));
        }
        let ended = match (journal.phase, stand) {
            (RunPhase::Fresh, Stand::Old) => true,
            (RunPhase::Finished(status), Stand::New) => status == RunStatus::Succeeded,
            (RunPhase::Finished(status), Stand::Old) => status != RunStatus::Succeeded,
            _ => false,
        };
        if !ended {
            return Err(format!("the host is {stand:?}, the run ended {:?}", journal.phase));
        }
        let spoken = said.events.iter().rfind(|event| event["event"] == "run-finished");
        if let Some(event) = spoken {
            let code = event["exit_code"].as_i64();
            if code != said.code.map(i64::from) {
                return Err(format!("exit code {:?}, said {code:?}", said.code));
            }
        }
        let nothing = said.stdout.contains("there is nothing to resume");
        let code = if back || stand == Stand::New || nothing { 0 } else { 2 };
        if said.code != Some(code) {
            return Err(format!("the host is {stand:?}, and the exit code is {:?}", said.code));
        }
        Ok(stand)
    }

    /// Whether the run's journal came as far as its secrets.
    pub(super) fn knows_its_secrets(&self, state: &str) -> bool {
        self.run(state).is_some_and(|(_, journal)| !journal.secrets.is_empty())
    }

    /// Everything as before, whatever it is now.
    pub(super) fn reset(&self) {
        let put = |path: &str, text: &str| fs::write(self.host.path(path), text).unwrap();
        self.host.sh(&format!(
            "rm -rf /var/lib/keyswap; cd /srv/forgejo-runner && rm -f .keyswap-2* data/.keyswap-2* {TOKEN_FILE} {ENV_FILE}
             rm -f /etc/systemd/system/keyswap-guard.service /etc/cron.d/keyswap-guard
             umask 077; : >{TOKEN_FILE}; chown 1000:1000 {TOKEN_FILE}; : >{ENV_FILE}; chmod 640 {ENV_FILE}"
        ));
        put(TOKEN_FILE, &self.host.old);
        put(ENV_FILE, &env_text(SHARED_FILE, true));
        self.host.sh(&format!("{CONTROL_FILE} restart"));
    }
}
