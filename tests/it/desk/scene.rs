//! Runner hosts of the shipped inventory, its two services, and a desk with the shipped files at which a person types.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use keyswap::sandbox::infisical::{Clock, StandIn, Story, World};

use crate::support::real_host::keygen;
use crate::support::runner_host::{AtWork, CONTROL_FILE, LIVE, RunnerHost, TOKEN_FILE, restart};
use crate::support::wait_until;

/// The hosts of the shipped inventory's group `docker-publish`, in its order.
pub(super) const HOSTS: [&str; 4] = ["rs2000-docker", "runner-01", "runner-02", "runner-03"];

/// Asks of systemd what a paper may ask, for the one runner that a throw-away host has.
const SYSTEMCTL: &str = "#!/bin/sh\ncase $1 in\nstart | restart) exec /usr/local/sbin/runnerctl \"$1\" ;;\n\
    status) /usr/local/sbin/runnerctl status && echo 'Active: active (running)' ;;\n\
    is-active) /usr/local/sbin/runnerctl status && echo active ;;\n*) exit 1 ;;\nesac\n";

/// What was said to the person, and how it ended.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) code: Option<i32>,
    pub(super) said: String,
}

/// The hosts, the services, the desk.
pub(super) struct Scene {
    pub(super) hosts: Vec<RunnerHost>,
    /// What the operator brings at the moment.
    token: RefCell<String>,
    story: Story,
    _infisical: StandIn,
    _runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Scene {
    pub(super) fn start() -> Self {
        let hosts: Vec<RunnerHost> = std::thread::scope(|scope| {
            let starting: Vec<_> = HOSTS.iter().map(|_| scope.spawn(RunnerHost::start)).collect();
            starting.into_iter().map(|host| host.join().unwrap()).collect()
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut world = World::new(Clock::real());
        let story = world.tell();
        let infisical = runtime.block_on(StandIn::start(world)).unwrap();
        let dir = tempfile::Builder::new().prefix("keyswap-desk-").tempdir().unwrap();
        let token = RefCell::new(hosts[0].new.clone());
        let scene = Self { hosts, token, story, dir, _infisical: infisical, _runtime: runtime };
        scene.lay_out();
        scene
    }

    fn lay_out(&self) {
        for host in &self.hosts {
            fs::write(host.path("/usr/local/sbin/systemctl"), SYSTEMCTL).unwrap();
            host.sh("chmod 755 /usr/local/sbin/systemctl");
            fs::write(host.path("/etc/ssh/ssh_host_ed25519_key.pub"), format!("{}\n", host.host_key())).unwrap();
        }
        for dir in ["playbooks", "inventory/identities", ".ssh"] {
            fs::create_dir_all(self.path(dir)).unwrap();
        }
        keygen(&self.path(".ssh/id_ed25519"), "ed25519", "");
        let key = fs::read_to_string(self.path(".ssh/id_ed25519.pub")).unwrap();
        for place in ["allowed_signers", "inventory/allowed_signers"] {
            fs::write(self.path(place), format!("alice@example.net {key}")).unwrap();
        }
        for name in ["rotate-token.toml", "mint-token.toml", "emergency-token.toml", "rollback-token.toml"] {
            fs::write(self.path("playbooks").join(name), fitted(&shipped(&format!("playbooks/{name}")))).unwrap();
        }
        let identity = "inventory/identities/forgejo-docker-publish.toml";
        fs::write(self.path(identity), shipped(identity)).unwrap();
        fs::write(self.path("inventory/example.toml"), self.inventory()).unwrap();
        // The same rotation without a person, for what a test prepares.
        let prompt = "from = \"prompt\"";
        let by_file =
            fitted(&shipped("playbooks/rotate-token.toml")).replace(prompt, "from = \"file\"\npath = \"../token\" #");
        fs::write(self.path("playbooks/by-file.toml"), by_file).unwrap();
    }

    /// The shipped inventory with these machines' addresses, ports, keys and services.
    fn inventory(&self) -> String {
        let text = shipped("inventory/example.toml");
        let (head, rest) = text.split_once("[hosts.rs2000-docker]").unwrap();
        let (_, tail) = rest.split_once("# --- credentials you know").unwrap();
        let hosts: Vec<String> = HOSTS.iter().zip(&self.hosts).map(|(name, host)| host.inventory_host(name)).collect();
        let forge = fs::read_to_string(self.hosts[0].controller().join("inventory.toml")).unwrap();
        let forge =
            forge.lines().find_map(|line| line.strip_prefix("url = \"")).unwrap().trim_end_matches('"').to_owned();
        let tail = tail
            .replace("https://infisical.example.net", &self._infisical.url())
            .replace("4a0e7a1c-1d39-4b0e-9d86-2f0d6c1f4e11", &self.story.client_id)
            .replace("https://git.example.net", &forge);
        format!("{head}{}# --- credentials you know{tail}", hosts.join("\n"))
    }

    /// A file of the desk.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The token that is typed when one is asked for.
    pub(super) fn token(&self) -> String {
        self.token.borrow().clone()
    }

    /// The operator has another one, which also lies in a file.
    pub(super) fn another_token(&self) {
        *self.token.borrow_mut() = format!("test-token-desk-{}", uuid::Uuid::new_v4().simple());
        write_private(&self.path("token"), &self.token());
    }

    /// A host by its name.
    pub(super) fn host(&self, name: &str) -> &RunnerHost {
        &self.hosts[HOSTS.iter().position(|host| *host == name).unwrap()]
    }

    fn environment(&self, command: &mut Command) {
        let bin = Path::new(env!("CARGO_BIN_EXE_keyswap")).parent().unwrap();
        command.env_clear().env("HOME", self.dir.path()).env("USER", "operator").current_dir(self.dir.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("TERM", "dumb").env("SHELL", "/bin/sh");
        command.env("FORGE_TOKEN", "test-token-forge-stand-in");
        command.env("INFISICAL_CLIENT_SECRET", &self.story.client_secret).env("KEYSWAP_TEST_HURRY", "1");
    }

    /// Types a command line at a terminal; questions are answered with yes, and with the token.
    pub(super) fn types(&self, line: &str) -> Typed {
        let mut command = Command::new("script");
        self.environment(&mut command);
        command.args(["-qefc", line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("script can be run: it is part of util-linux");
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, receive) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(180);
        let (mut said, mut answered) = (Vec::new(), 0);
        loop {
            match receive.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => said.extend(bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let now = String::from_utf8_lossy(&said[answered..]);
            let answer = if now.ends_with("[y/N] ") {
                Some("y".to_owned())
            } else if now.ends_with("`token`: ") || now.ends_with("`token` again: ") {
                Some(self.token())
            } else {
                None
            };
            if let Some(answer) = answer {
                answered = said.len();
                writeln!(keyboard, "{answer}").unwrap();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{line} does not end: {}", String::from_utf8_lossy(&said));
            }
        }
        drop(keyboard);
        let status = child.wait().unwrap();
        reader.join().unwrap();
        Typed { code: status.code(), said: String::from_utf8_lossy(&said).into_owned() }
    }

    /// The same, which must end so.
    #[track_caller]
    pub(super) fn must(&self, line: &str, code: i32) -> Typed {
        let typed = self.types(line);
        assert_eq!(typed.code, Some(code), "{line}\n{}", typed.said);
        assert!(!typed.said.contains(&self.token()), "{line}: the token was shown\n{}", typed.said);
        typed
    }

    /// A rotation is begun and killed when the first host has the new token, before its batch is let go.
    pub(super) fn cut_off(&self) {
        self.another_token();
        let first = self.host("rs2000-docker");
        let working = first.path(LIVE).join("working");
        fs::write(&working, "").unwrap();
        let dispatched = first.dispatched();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        self.environment(&mut command);
        command.stdin(Stdio::null());
        let run = ["run", "playbooks/by-file.toml", "-i", "inventory/example.toml", "--yes"];
        let work = AtWork::start(&mut command, &run);
        let end = Instant::now() + Duration::from_secs(60);
        while first.dispatched() == dispatched {
            assert!(Instant::now() < end, "the first batch is not verified: {}", work.so_far());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(first.read(TOKEN_FILE), self.token());
        work.signal("KILL");
        work.end();
        fs::remove_file(working).unwrap();
        self.wait_for_silence();
    }

    /// The shells of a controller that was killed are gone.
    fn wait_for_silence(&self) {
        let shells = "for dir in /proc/[0-9]*; do read -r comm 2>/dev/null <$dir/comm || continue; case $comm in sshd-session|sshd-auth) exit 1 ;; sshd) [ ${dir#/proc/} = \"$(cat /run/sshd.pid)\" ] || exit 1 ;; esac; done";
        for host in &self.hosts {
            wait_until("its connections are gone", || host.exec(shells).status.success());
        }
    }

    /// The whole rotation, without a person.
    pub(super) fn rotate(&self) {
        self.another_token();
        self.must("keyswap run playbooks/by-file.toml -i inventory/example.toml --yes", 0);
    }

    /// The operator's journals are lost.
    pub(super) fn lose_the_journal(&self) {
        let state = self.path(".local/state/keyswap");
        let _ = fs::remove_dir_all(state);
    }

    /// From now on the inventory demands an approval, or none any more.
    pub(super) fn demand_approval(&self, yes: bool) {
        let policy = "\n[approval]\nrequired = 1\nallowed_signers = \"allowed_signers\"\nvalid = \"4h\"\n";
        let text = self.inventory();
        fs::write(self.path("inventory/example.toml"), if yes { text + policy } else { text }).unwrap();
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A file of the repository.
pub(super) fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A playbook without what these hosts have not: docker compose, a container's path, and a runner that the forge's runs are
/// played on (it knows of the first host alone, and the verification has tests of its own).
fn fitted(playbook: &str) -> String {
    let lines = playbook.lines().map(|line| {
        if line.starts_with("restart = {") {
            let fitted = restart(&format!("{CONTROL_FILE} restart"), "500ms", "20s");
            if line.contains("drain = \"off\"") { fitted.replace(" }", ", drain = \"off\" }") } else { fitted }
        } else {
            line.replace("value = \"/data/infisical-token-auth-token\"", &format!("value = \"{TOKEN_FILE}\""))
                .replace(", on = \"this-runner\", runner = \"{{ runner_name }}\"", "")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
