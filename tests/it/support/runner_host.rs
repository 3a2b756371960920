//! A real host laid out like a runner host, a stand-in forge, and the real program as its operator runs it.
//!
//! The runner is the sandbox's, as user 1000, under a control script that reads its env file at each start. Before a
//! rotation its pointer leads to another file with another token (`shared`), so that content, pointer and process of
//! old and new can each be told apart. All tokens are made up, and other ones for each host.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyswap::model::Fingerprint;
use keyswap::sandbox::forge::{DispatchedRun, Ending, Outcome, Repo, Setup, StandIn, Version};
use sha2::{Digest, Sha256};

use super::real_host::{Builder, RealHost};
pub(crate) use super::said::{AtWork, Said};

const RUNNER: &str = include_str!("../../../src/sandbox/runner.sh");
const CONTROL: &str = include_str!("runnerctl.sh");

/// The name in the inventory.
pub(crate) const NAME: &str = "runner-01";
/// The directory that jobs can write.
pub(crate) const DATA: &str = "/srv/forgejo-runner/data";
/// The file that a rotation replaces.
pub(crate) const TOKEN_FILE: &str = "/srv/forgejo-runner/data/infisical-token-auth-token";
/// Where the pointer leads before a rotation.
pub(crate) const SHARED_FILE: &str = "/srv/forgejo-runner/data/shared-token";
/// The runner's env file.
pub(crate) const ENV_FILE: &str = "/srv/forgejo-runner/runner.env";
/// What lives while the runner runs: pid file, status, heartbeat, log. Not part of a [`Picture`].
pub(crate) const LIVE: &str = "/run/forgejo-runner";
/// The pid file.
pub(crate) const PID_FILE: &str = "/run/forgejo-runner/runner.pid";
/// The control script.
pub(crate) const CONTROL_FILE: &str = "/usr/local/sbin/runnerctl";
/// The pointer's key.
pub(crate) const POINTER: &str = "INFISICAL_TOKEN_AUTH_FILE";

/// A host, its runner, its forge, its operator.
pub(crate) struct RunnerHost {
    /// The host.
    pub(crate) host: RealHost,
    /// The token in the token file before.
    pub(crate) old: String,
    /// The token that the runner uses before.
    pub(crate) shared: String,
    /// The token that the operator brings.
    pub(crate) new: String,
    /// What the runs of the forge end in.
    ending: Arc<Mutex<Ending>>,
    forge: StandIn,
    runtime: tokio::runtime::Runtime,
}

/// A running runner, as the host's `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runner {
    /// Its process id on the host.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) started: u64,
    /// Whose it is.
    pub(crate) uid: u32,
    /// The pointer in its environment.
    pub(crate) pointer: Option<String>,
    /// The whole digest of the token that it read when it started.
    pub(crate) token: String,
}

impl Deref for RunnerHost {
    type Target = RealHost;

    fn deref(&self) -> &RealHost {
        &self.host
    }
}

impl RunnerHost {
    /// A host with a runner that is up.
    pub(crate) fn start() -> Self {
        Self::on(RealHost::builder())
    }

    /// As [`Self::start`], on a host with other choices.
    pub(crate) fn on(builder: Builder) -> Self {
        let host = builder.start();
        let token = |what: &str| format!("test-token-{what}-{}", uuid::Uuid::new_v4().simple());
        let (old, shared, new) = (token("old"), token("shared"), token("new"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ending = Arc::new(Mutex::new(Ending::Success));
        let ends = Arc::clone(&ending);
        let live = host.root().join(&LIVE[1..]);
        let publish = move |run: &DispatchedRun| {
            take_task(&live, run);
            let outcome = Outcome::new(*ends.lock().unwrap()).after(Duration::from_millis(50));
            outcome.pushing("owner/name:latest", &format!("sha256:{:064x}", run.id))
        };
        let setup = Setup::new(Version::Forgejo(15), "test-token-forge-stand-in");
        let forge = runtime.block_on(StandIn::start(setup, publish)).unwrap();
        let this = Self { host, old, shared, new, ending, forge, runtime };
        this.lay_out();
        this
    }

    fn lay_out(&self) {
        let write = |name: &str, text: &str| fs::write(self.host.scratch().join(name), text).unwrap();
        let live = self.host.root().join(&LIVE[1..]);
        // The stranger's name begins like ours: nobody may take it for a leftover.
        // The last line makes these part of what pictures look at, whether or not anything is written below them.
        self.host.sh(&format!(
            "mkdir -p {DATA} && chmod 700 {DATA} && mkdir {LIVE}
             umask 077; : >{TOKEN_FILE}; : >{SHARED_FILE}; : >{ENV_FILE}; chmod 640 {ENV_FILE}
             : >{CONTROL_FILE}; chmod 755 {CONTROL_FILE}
             chown 1000:1000 {DATA} {DATA}/* {LIVE}
             echo notes >{DATA}/.keyswap-notes; cp {DATA}/.keyswap-notes /srv/forgejo-runner
             chmod 755 /var/lib; [ ! -d /etc/cron.d ] || chmod 755 /etc/cron.d"
        ));
        let put = |path: &str, text: &str| fs::write(self.host.root().join(&path[1..]), text).unwrap();
        put(TOKEN_FILE, &self.old);
        put(SHARED_FILE, &self.shared);
        put(ENV_FILE, &env_text(SHARED_FILE, true));
        put(CONTROL_FILE, CONTROL);
        fs::write(live.join("runner.sh"), RUNNER).unwrap();
        self.control("start");
        fs::create_dir(self.controller()).unwrap();
        write_private(&self.controller().join("token"), &self.new);
        write_private(&self.controller().join("forge-token"), "test-token-forge-stand-in");
        let inventory = format!(
            "[groups.docker-publish]\nhosts = [\"{NAME}\"]\nvars = {{ data_dir = \"{DATA}\" }}\n\n{}\n\
             [services.forge]\nurl = \"{}\"\ntoken = {{ from = \"file\", path = \"{}\" }}\n",
            self.host.inventory_host(NAME),
            self.forge.url(),
            self.controller().join("forge-token").display(),
        );
        write("controller/inventory.toml", &inventory);
    }

    /// Runs the control script: `start`, `stop`, `restart`.
    pub(crate) fn control(&self, verb: &str) {
        self.host.sh(&format!("{CONTROL_FILE} {verb}"));
    }

    /// The runner refuses every token but the one that it has now: `after` seconds from its start (0: it does not come up).
    pub(crate) fn pin_runner(&self, after: u32) {
        let wanted = self.runner().expect("the runner is up").token;
        self.host.sh(&format!("echo '{wanted} {after}' >{LIVE}/pinned"));
    }

    /// What the forge's runs end in from now on.
    pub(crate) fn publishing_ends_in(&self, ending: Ending) {
        *self.ending.lock().unwrap() = ending;
    }

    /// How the forge sees the host's runner, which it calls by the inventory's name.
    pub(crate) fn forge_sees_runner(&self, state: &str) {
        let _in = self.runtime.enter();
        self.forge.world().runners = vec![(NAME.to_owned(), state.to_owned())];
    }

    /// Changes what the forge keeps for the repository.
    pub(crate) fn with_forge(&self, change: impl FnOnce(&mut Repo)) {
        let _in = self.runtime.enter();
        self.forge.with_repo(change);
    }

    /// How many runs were dispatched.
    pub(crate) fn dispatched(&self) -> usize {
        let _in = self.runtime.enter();
        self.forge.world().runs.len()
    }

    /// The operator's directory: inventory, playbooks, sources of secrets, state.
    pub(crate) fn controller(&self) -> PathBuf {
        self.host.scratch().join("controller")
    }

    /// The program with what an operator's shell gives it. `state` names the state directory below [`Self::controller`].
    pub(crate) fn keyswap(&self, state: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        let home = self.controller();
        command.env_clear().env("HOME", &home).env("USER", "operator").env("PATH", "/usr/bin:/bin").current_dir(&home);
        command.args(["--output", "jsonl", "--state-dir", state]).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end, with the state directory `state`.
    pub(crate) fn say(&self, args: &[&str]) -> Said {
        Said::of(&mut self.keyswap("state"), args)
    }

    /// Writes the playbook and runs it: `run PLAYBOOK -i INVENTORY --yes ARGS`.
    pub(crate) fn rotate(&self, playbook: &Playbook, args: &[&str]) -> Said {
        let mut all = self.run_args(playbook);
        all.extend(args.iter().map(ToString::to_string));
        Said::of(&mut self.keyswap("state"), &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Writes the playbook and gives the arguments that run it without a question.
    pub(crate) fn run_args(&self, playbook: &Playbook) -> Vec<String> {
        self.run_args_of(&playbook.text())
    }

    /// As [`Self::run_args`], of a playbook's text.
    pub(crate) fn run_args_of(&self, playbook: &str) -> Vec<String> {
        fs::write(self.controller().join("playbook.toml"), playbook).unwrap();
        ["run", "playbook.toml", "-i", "inventory.toml", "--yes"].map(str::to_owned).into()
    }

    /// A file of the host, as seen from outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.host.root().join(path.trim_start_matches('/'))
    }

    /// Its content.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The runner, if it runs.
    pub(crate) fn runner(&self) -> Option<Runner> {
        let pid: u32 = fs::read_to_string(self.path(PID_FILE)).ok()?.trim().parse().ok()?;
        let proc = self.path(&format!("/proc/{pid}"));
        let environ = fs::read(proc.join("environ")).ok()?;
        let var = |name: &str| {
            let mut vars = environ.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            vars.find_map(|var| var.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        (var("HOME").as_deref() == Some(LIVE)).then_some(())?;
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let status = fs::read_to_string(self.path(LIVE).join("runner.status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        (field("pid") == Some(&pid.to_string())).then_some(())?;
        Some(Runner {
            pid,
            started: stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?,
            uid: fs::metadata(&proc).ok()?.uid(),
            pointer: var(POINTER),
            token: field("token")?.to_owned(),
        })
    }

    /// What the runner has open, but for its standard streams.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let pid = self.runner().expect("the runner is up").pid;
        let fds = fs::read_dir(self.path(&format!("/proc/{pid}/fd"))).unwrap().map(|entry| entry.unwrap().path());
        let others = fds.filter(|fd| !["0", "1", "2"].contains(&fd.file_name().unwrap().to_str().unwrap()));
        others.filter_map(|fd| fs::read_link(fd).ok()).collect()
    }

    /// The host from outside, without what lives by itself: see [`Picture`].
    pub(crate) fn picture(&self) -> Picture {
        Picture::of(self)
    }

    /// Every file of the host, the state directory included, that holds this text.
    pub(crate) fn holders(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (at, path) in files(self) {
            let holds = fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file())
                && fs::read(&at).is_ok_and(|content| contains(&content, text.as_bytes()));
            if holds {
                found.push(path);
            }
        }
        found
    }
}

/// The runner takes a task and says so in its log, unless a file `elsewhere` says that another runner was faster; it works
/// on it for as long as there is a file `working`.
fn take_task(live: &Path, run: &DispatchedRun) {
    if live.join("elsewhere").exists() {
        return;
    }
    let line =
        format!("level=info msg=\"task {} repo is {} https://example.net http://127.0.0.1\"\n", run.task, run.repo);
    let log = fs::OpenOptions::new().create(true).append(true).open(live.join("tasks.log"));
    std::io::Write::write_all(&mut log.unwrap(), line.as_bytes()).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while live.join("working").exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `sha256:` and 12 hex digits, as keyswap says it.
pub(crate) fn short(token: &str) -> String {
    Fingerprint::of(token.as_bytes()).short()
}

/// `sha256:` and all hex digits, as the runner says it.
pub(crate) fn whole(token: &str) -> String {
    format!("sha256:{}", Fingerprint::of(token.as_bytes()).hex())
}

/// The env file, with this pointer; before a rotation a key stands in it that would outrank the pointer.
pub(crate) fn env_text(pointer: &str, outranked: bool) -> String {
    let legacy = if outranked { "INFISICAL_TOKEN=test-token-legacy\n" } else { "" };
    format!(
        "# Environment of the runner; read at its start.\nRUNNER_CAPACITY=2\n\n{legacy}  # the pointer\n{POINTER}={pointer}\n\
         GREETING=\"two words\"   \nTZ=Europe/Paris"
    )
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// A playbook: the five steps, to be changed by a test.
#[derive(Debug, Clone)]
pub(crate) struct Playbook {
    /// Keys of `[rollout]`.
    pub(crate) rollout: String,
    /// Each step's name and its other lines.
    pub(crate) steps: Vec<(String, String)>,
}

impl Playbook {
    /// The five steps, quick.
    pub(crate) fn rotate() -> Self {
        let steps = [
            ("backup", r#"backup = { path = "{{ token_file }}" }"#.to_owned()),
            (
                "place",
                r#"place = { secret = "token", path = "{{ token_file }}", mode = "0600", owner = "1000", group = "1000" }"#
                    .to_owned(),
            ),
            (
                "point",
                format!(
                    r#"point = {{ file = "{ENV_FILE}", key = "{POINTER}", value = "{TOKEN_FILE}", remove = ["INFISICAL_TOKEN"] }}"#
                ),
            ),
            ("restart", restart(&format!("{CONTROL_FILE} restart"), "500ms", "20s")),
            ("verify", verify("20s")),
        ];
        Self {
            rollout: "batches = [\"100%\"]\nguard = \"off\"\n".to_owned(),
            steps: steps.map(|(name, lines)| (name.to_owned(), lines)).into(),
        }
    }

    /// With other lines for a step.
    pub(crate) fn with(mut self, step: &str, lines: impl Into<String>) -> Self {
        let at = self.at(step);
        self.steps[at].1 = lines.into();
        self
    }

    /// With a step more, right before another one.
    pub(crate) fn before(mut self, step: &str, name: &str, lines: impl Into<String>) -> Self {
        let at = self.at(step);
        self.steps.insert(at, (name.to_owned(), lines.into()));
        self
    }

    /// Without a step.
    pub(crate) fn without(mut self, step: &str) -> Self {
        let at = self.at(step);
        self.steps.remove(at);
        self
    }

    fn at(&self, step: &str) -> usize {
        self.steps.iter().position(|(name, _)| name == step).unwrap_or_else(|| panic!("no step {step}"))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "name = \"Rotate\"\nhosts = \"docker-publish\"\n\n[vars]\n\
             token_file = \"{{{{ data_dir }}}}/infisical-token-auth-token\"\n\n[rollout]\n{}\n",
            self.rollout
        );
        // A secret that no step uses would be one more thing to go wrong.
        if self.steps.iter().any(|(_, lines)| lines.contains("secret = \"token\"")) {
            text.push_str("[secrets.token]\nfrom = \"file\"\npath = \"token\"\n\n");
        }
        for (name, lines) in &self.steps {
            text.push_str(&format!("[[steps]]\nname = \"{name}\"\n{lines}\n\n"));
        }
        text
    }
}

/// A `restart` by a command line, with the runner's pid file.
pub(crate) fn restart(command: &str, healthy: &str, timeout: &str) -> String {
    format!(
        "restart = {{ command = '''{command}''', pid_file = \"{PID_FILE}\", healthy = \"{healthy}\", timeout = \"{timeout}\" }}"
    )
}

/// A `verify-publish` with this patience.
pub(crate) fn verify(timeout: &str) -> String {
    format!(
        "once = \"batch\"\nverify-publish = {{ repo = \"owner/repo\", workflow = \"docker-publish.yml\", ref = \"main\", timeout = \"{timeout}\" }}"
    )
}

/// A `command` step.
pub(crate) fn command(run: &str, undo: &str) -> String {
    format!("command = {{ run = '''{run}''', undo = '''{undo}''' }}")
}

/// Every file of a host that a run could have touched, from outside: kind, mode, owner, group, content.
///
/// Not in it: keyswap's state directory, what lives while the runner runs, and what sshd and sudo write by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture(BTreeMap<String, String>);

impl Picture {
    fn of(host: &RunnerHost) -> Self {
        let mut all = BTreeMap::new();
        for (at, path) in files(host) {
            if path.starts_with("/var/lib/keyswap") || path.starts_with(&format!("{LIVE}/")) {
                continue;
            }
            let Ok(meta) = fs::symlink_metadata(&at) else { continue };
            // The mark of an overlay that a file of the machine is hidden: on the host there is none.
            if meta.file_type().is_char_device() && meta.rdev() == 0 {
                continue;
            }
            let content = if meta.is_file() {
                sha256(&fs::read(&at).unwrap())
            } else if meta.is_symlink() {
                fs::read_link(&at).unwrap().display().to_string()
            } else {
                "-".to_owned()
            };
            all.insert(path, format!("{:06o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid()));
        }
        Self(all)
    }

    /// What differs in a later picture: path, before, after.
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let word = |entry: Option<&String>| entry.map_or("absent", String::as_str).to_owned();
        let paths = self.0.keys().chain(later.0.keys().filter(|path| !self.0.contains_key(*path)));
        let differs = paths.filter(|path| self.0.get(*path) != later.0.get(*path));
        differs.map(|path| format!("{path}: {} -> {}", word(self.0.get(path)), word(later.0.get(path)))).collect()
    }

    /// The paths that differ.
    pub(crate) fn changed(&self, later: &Self) -> Vec<String> {
        let differences = self.differences(later);
        differences.iter().map(|line| line.split(": ").next().unwrap_or_default().to_owned()).collect()
    }

    /// Nothing differs.
    #[track_caller]
    pub(crate) fn assert_same(&self, later: &Self, said: &Said) {
        assert_eq!(self.differences(later), [""; 0], "{}", said.all());
    }
}

/// What a run could have touched: where it is seen from outside, and its path on the host. Of the directories that
/// are private copies only what differs from the machine's is looked at.
fn files(host: &RunnerHost) -> Vec<(PathBuf, String)> {
    let trees = [
        ("srv", "/srv"),
        ("run", "/run"),
        ("tmp", "/tmp"),
        ("home", "/home"),
        ("root", "/root"),
        ("mnt/etc/upper", "/etc"),
        ("mnt/var/upper", "/var"),
        ("mnt/usr/local/upper", "/usr/local"),
    ];
    let mut found = Vec::new();
    for (from, to) in trees {
        walk(&host.host.root().join(from), to, &mut found);
    }
    let alive = ["/run/sshd", "/run/sudo", "/run/utmp", "/var/log/sshd.log", "/var/log/lastlog", "/var/log/wtmp"];
    found.retain(|(_, path)| !alive.iter().any(|own| path.starts_with(own)));
    found
}

fn walk(at: &Path, path: &str, found: &mut Vec<(PathBuf, String)>) {
    found.push((at.to_owned(), path.to_owned()));
    if !fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let name = entry.file_name();
        walk(&entry.path(), &format!("{path}/{}", name.to_string_lossy()), found);
    }
}
