//! Where the secrets are after a rotation, a failure with its way back, and a rollback, at the highest verbosity and in every
//! form of output: nowhere but where they belong. The same search finds a leak of each kind that is planted.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::real_host::keygen;
use crate::support::runner_host::{ENV_FILE, Playbook, RunnerHost, SHARED_FILE, TOKEN_FILE, command};
use crate::support::sentinel::trace::{Attached, Start};
use crate::support::sentinel::{Finding, Form, Kind, Sentinel, Sweep, Trace};

const PASSPHRASE: &str = "test-passphrase-of-the-login-key";
const FORGE: &str = "test-token-forge-stand-in";
const LEGACY: &str = "test-token-legacy";

/// A host whose login key has a passphrase, everything that is said, and a trace of every program start.
struct Scene {
    host: RunnerHost,
    sentinel: Sentinel,
    /// Outside of all that is searched.
    logs: tempfile::TempDir,
    on_host: Option<Attached>,
    starts: Vec<Start>,
    said: Vec<(String, Vec<u8>)>,
}

impl Scene {
    fn new() -> Self {
        let host = RunnerHost::start();
        let key = host.host.scratch().join("locked");
        keygen(&key, "ed25519", PASSPHRASE);
        fs::copy(key.with_extension("pub"), host.path("/home/ops/.ssh/authorized_keys")).unwrap();
        let inventory = host.controller().join("inventory.toml");
        let text = fs::read_to_string(&inventory).unwrap();
        let open = host.host.identity().display().to_string();
        assert!(text.contains(&open));
        fs::write(&inventory, text.replace(&open, key.to_str().unwrap())).unwrap();

        let sentinel = Sentinel::new([
            ("old", host.old.as_str()),
            ("new", &host.new),
            ("shared", &host.shared),
            ("forge", FORGE),
            ("legacy", LEGACY),
            ("passphrase", PASSPHRASE),
        ]);
        let logs = tempfile::tempdir().unwrap();
        let root = host.host.root();
        let init = root.iter().nth(2).and_then(OsStr::to_str).unwrap().parse().unwrap();
        let on_host = Trace::attach(logs.path().join("host"), &[init]).unwrap();
        Self { host, sentinel, logs, on_host: Some(on_host), starts: Vec::new(), said: Vec::new() }
    }

    /// Runs the program on a terminal, under the tracer, with `-vvv`, and gives it the passphrase when it asks.
    fn run(&mut self, output: &str, args: &[&str]) -> (Option<i32>, String) {
        let trace = Trace::to(self.logs.path().join(format!("controller.{}", self.said.len())));
        let mut inner = trace.command(env!("CARGO_BIN_EXE_keyswap"));
        inner.args(["-vvv", "--output", output, "--state-dir", "state"]).args(args);
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let home = self.host.controller();
        let mut script = Command::new("script")
            .args(["-qefc", &line.join(" "), "/dev/null"])
            .env_clear()
            .envs([
                ("HOME", home.to_str().unwrap()),
                ("USER", "operator"),
                ("PATH", "/usr/bin:/bin"),
                ("TERM", "xterm"),
            ])
            .env("SHELL", "/bin/sh")
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script can be run");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (mut stdout, ear) = (script.stdout.take().unwrap(), Arc::clone(&heard));
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                ear.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        let mut stdin = script.stdin.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut answered = false;
        let status = loop {
            if let Some(status) = script.try_wait().unwrap() {
                break status;
            }
            let text = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
            assert!(Instant::now() < deadline, "it does not end: {text}");
            // Not before it is silent: what is typed earlier would be echoed by the terminal itself.
            if !answered && text.contains("Passphrase") && trace.pid().is_some_and(is_silent) {
                stdin.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
                answered = true;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        drop(stdin);
        listener.join().unwrap();
        let heard = heard.lock().unwrap().clone();
        let text = String::from_utf8_lossy(&heard).into_owned();
        assert!(answered, "it asked for no passphrase: {text}");
        self.said.push((format!("{output} {}", args.join(" ")), heard));
        self.starts.extend(trace.starts().unwrap());
        (status.code(), text)
    }

    fn rotate(&mut self, output: &str, playbook: &Playbook) -> (Option<i32>, String) {
        let args = self.host.run_args(playbook);
        self.run(output, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Searches everything: the controller's files, the host's files, running processes, every start, all output.
    fn sweep(&mut self) -> Sweep<'_> {
        if let Some(attached) = self.on_host.take() {
            self.starts.extend(attached.detach().unwrap());
        }
        let mut sweep = self.sentinel.sweep();
        let controller = self.host.controller();
        sweep.allow(controller.join("token"), "new").allow(controller.join("forge-token"), "forge");
        for secret in ["old", "new"] {
            sweep.allow(self.host.path(TOKEN_FILE), secret);
        }
        sweep.allow(self.host.path(SHARED_FILE), "shared").allow(self.host.path(ENV_FILE), "legacy");
        for kept in kept(&self.host) {
            for secret in ["old", "shared", "legacy"] {
                sweep.allow(&kept, secret);
            }
        }
        sweep.files(self.host.host.scratch());
        // What differs from the machine's own /etc, /usr/local and /var lies in /mnt.
        for dir in ["home", "mnt", "root", "run", "srv", "tmp"] {
            sweep.files(self.host.host.root().join(dir));
        }
        for (name, bytes) in &self.said {
            sweep.output(name, bytes);
        }
        sweep.starts(&self.starts).processes();
        sweep
    }
}

/// Preimages and named backups in the host's state directory, where it lies below /mnt.
fn kept(host: &RunnerHost) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    let state = host.path("/mnt/var/upper/lib/keyswap");
    for run in fs::read_dir(state.join("runs")).unwrap().flatten() {
        let files = fs::read_dir(run.path()).unwrap().flatten().map(|file| file.path());
        kept.extend(files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pre.")));
    }
    for backup in fs::read_dir(state.join("backups")).unwrap().flatten() {
        kept.push(backup.path().join("content"));
    }
    kept
}

/// Whether the terminal of a process has stopped to echo.
fn is_silent(pid: u32) -> bool {
    let Ok(tty) = fs::File::open(format!("/proc/{pid}/fd/0")) else { return false };
    let modes = rustix::termios::tcgetattr(&tty);
    modes.is_ok_and(|modes| !modes.local_modes.contains(rustix::termios::LocalModes::ECHO))
}

fn failing() -> Playbook {
    Playbook::rotate().before("verify", "fail", command("exit 7", "true"))
}

#[test]
fn rotation_failure_and_rollback_leave_the_secrets_where_they_belong() {
    let mut scene = Scene::new();
    let (code, text) = scene.rotate("plain", &failing());
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = scene.rotate("human", &Playbook::rotate());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(scene.host.read(TOKEN_FILE), scene.host.new);
    let (code, text) = scene.run("jsonl", &["rollback"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("run-finished"), "{text}");
    assert_eq!(scene.host.read(TOKEN_FILE), scene.host.old);

    let (new, old) = (scene.host.new.clone(), scene.host.old.clone());
    let sweep = scene.sweep();
    // The runner that still has it has it in its environment: its env file says so.
    let objections: Vec<_> = sweep
        .findings()
        .iter()
        .filter(|found| (found.secret.as_str(), found.kind) != ("legacy", Kind::Environment))
        .collect();
    assert!(objections.is_empty(), "{objections:#?}");
    let looked = sweep.looked();
    assert!(looked.starts > 200 && looked.files > 100 && looked.processes > 5, "{looked:?}");
    assert_eq!(sweep.blind_spots(), [""; 0]);
    drop(sweep);
    // After a rollback the new one is nowhere on the host, and the old one where it was and in what undoes a run.
    assert_eq!(scene.host.holders(&new), [""; 0]);
    let outside = |path: &String| !path.starts_with("/var/lib/keyswap/");
    let old: Vec<String> = scene.host.holders(&old).into_iter().filter(outside).collect();
    assert_eq!(old, [TOKEN_FILE]);
}

#[test]
fn the_same_search_finds_a_planted_leak_of_each_kind() {
    let mut scene = Scene::new();
    let read = format!("t=$(cat {TOKEN_FILE})");
    // Each of them is what a careless step of ours would do on the host.
    let plants = [
        ("argv", format!("{read}; /bin/true --token \"$t\"")),
        ("environment", format!("{read}; TOKEN=\"$t\" /bin/true")),
        ("file", format!("cp {TOKEN_FILE} /srv/left-behind")),
        ("log", format!("{read}; echo \"placed $t\" >>/var/log/runner.log")),
        ("base64", format!("base64 {TOKEN_FILE} >/tmp/encoded")),
        ("name", format!("{read}; : >\"/home/ops/$t\"")),
    ];
    let mut playbook = Playbook::rotate().without("verify");
    for (name, run) in &plants {
        playbook.steps.push(((*name).to_owned(), command(run, "true")));
    }
    let peek = format!("command = {{ run = \"cat {SHARED_FILE}\", changes = false }}");
    playbook.steps.push(("output".to_owned(), peek));
    let (code, text) = scene.rotate("jsonl", &playbook);
    assert_eq!(code, Some(0), "{text}");
    // And these what it would do on the controller.
    let (new, controller, host) = (scene.host.new.clone(), scene.host.controller(), scene.host.host.root());
    fs::write(controller.join("state/trace.log"), format!("sent {new}")).unwrap();
    let sweep = scene.sweep();
    let found = |kind: Kind, form: Form, place: &Path| {
        let same = |finding: &&Finding| finding.kind == kind && finding.form == form;
        sweep.findings().iter().filter(same).any(|finding| Path::new(&finding.place) == place)
    };
    let started =
        |kind: Kind| sweep.findings().iter().any(|finding| finding.kind == kind && finding.place.contains("/bin/true"));
    assert!(started(Kind::Argv), "{:?}", sweep.findings());
    assert!(started(Kind::Environment), "{:?}", sweep.findings());
    assert!(found(Kind::Content, Form::Raw, &host.join("srv/left-behind")), "{:?}", sweep.findings());
    assert!(found(Kind::Content, Form::Raw, &host.join("mnt/var/upper/log/runner.log")), "{:?}", sweep.findings());
    assert!(found(Kind::Content, Form::Base64, &host.join("tmp/encoded")), "{:?}", sweep.findings());
    assert!(found(Kind::Name, Form::Raw, &host.join("home/ops").join(&new)), "{:?}", sweep.findings());
    assert!(found(Kind::Content, Form::Raw, &controller.join("state/trace.log")), "{:?}", sweep.findings());
    let output = sweep.findings().iter().filter(|finding| finding.kind == Kind::Output);
    assert_eq!(output.map(|finding| finding.secret.as_str()).collect::<Vec<_>>(), ["shared"]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sweep.assert_clean())).is_err());
}
