//! Our SSH client against a real OpenSSH server.

mod broken;
mod cases;
mod commands;
mod ping;
mod settings;
mod touch;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use keyswap::model::{Connection, Jump};
use keyswap::remote::ssh::{
    AskPassphrase, ConnectError, Dialer, DialerConfig, HostKeyProblem, Keepalive, KeyFileProblem, Phase, Problem,
};
use keyswap::remote::{Exit, Lost, NoPasswords, Pipe};
use secrecy::SecretString;

use crate::support::real_host::{RealHost, free_port, keygen};
use crate::support::wait_until;

/// Answers with one passphrase, and counts.
struct Answer(Option<&'static str>, AtomicUsize);

impl AskPassphrase for Answer {
    fn ask(&self, prompt: &str) -> Option<SecretString> {
        assert!(prompt.starts_with("Passphrase for /") && !prompt.ends_with([':', ' ']), "{prompt}");
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.map(SecretString::from)
    }
}

fn answer(text: Option<&'static str>) -> Arc<Answer> {
    Arc::new(Answer(text, AtomicUsize::new(0)))
}

fn utf8(path: impl AsRef<Path>) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(path.as_ref().to_owned()).unwrap()
}

/// A dialer whose operator has an empty home and no agent.
fn dialer(host: &RealHost) -> Dialer {
    Dialer::new(config(host, answer(None)))
}

fn config(host: &RealHost, passphrase: Arc<Answer>) -> DialerConfig {
    let home = utf8(host.scratch().join("home"));
    DialerConfig {
        home,
        global_known_hosts: Vec::new(),
        agent_socket: None,
        passphrase,
        passwords: Arc::new(NoPasswords),
        trials: Arc::default(),
        keepalive: Keepalive::default(),
    }
}

fn connection(host: &RealHost) -> Connection {
    Connection {
        identity_files: vec![utf8(host.identity())],
        known_hosts: vec![utf8(host.known_hosts())],
        connect_timeout_ms: 20_000,
        ..Connection::new("127.0.0.1", host.port(), "ops")
    }
}

/// Everything that a program says, and how it ended.
async fn finish(pipe: &mut Box<dyn Pipe>) -> Result<(Vec<u8>, Option<Exit>), Lost> {
    let mut said = Vec::new();
    while let Some(piece) = pipe.recv().await? {
        said.extend_from_slice(&piece);
    }
    Ok((said, pipe.exit()))
}

async fn run(dialer: &Dialer, connection: &Connection, command: &str) -> (String, Option<Exit>) {
    let link = dialer.connect(connection).await.unwrap_or_else(|e| panic!("{e}"));
    let mut pipe = link.start(command.as_bytes()).await.unwrap();
    let (said, exit) = finish(&mut pipe).await.unwrap();
    pipe.close().await;
    link.close().await;
    (String::from_utf8(said).unwrap(), exit)
}

async fn refused(dialer: &Dialer, connection: &Connection) -> ConnectError {
    match dialer.connect(connection).await {
        Ok(link) => panic!("logged in: {}", link.describe()),
        Err(e) => e,
    }
}

fn host_key_problem(error: &ConnectError) -> &HostKeyProblem {
    match &error.problem {
        Problem::HostKey(problem) => problem,
        other => panic!("not about the host key: {other}"),
    }
}

/// An agent of the test's own that holds some keys.
struct Agent(Child, Utf8PathBuf);

impl Agent {
    fn start(socket: &Utf8Path, keys: &[&Path]) -> Self {
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.as_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-agent can be run");
        wait_until("the agent listens", || socket.exists());
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).status();
            assert!(added.unwrap().success());
        }
        Self(child, socket.to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_in_with_a_key_file_and_runs_a_command() {
    let host = RealHost::start();
    let link = dialer(&host).connect(&connection(&host)).await.unwrap();
    let about = link.describe();
    assert!(about.starts_with(&format!("ops@127.0.0.1:{} with {}", host.port(), host.identity().display())), "{about}");
    assert!(about.contains("(SHA256:"), "{about}");

    let mut pipe = link.start(b"cat; echo trouble >&2; exit 7").await.unwrap();
    pipe.send(Bytes::from_static(b"one ")).await.unwrap();
    assert_eq!(pipe.recv().await, Ok(Some(Bytes::from_static(b"one "))));
    assert_eq!(pipe.exit(), None);
    pipe.close().await;

    let mut pipe = link.start(b"echo out; echo trouble >&2; kill -KILL $$").await.unwrap();
    let (said, exit) = finish(&mut pipe).await.unwrap();
    assert_eq!((said.as_slice(), exit), (&b"out\n"[..], Some(Exit::Signal("KILL".to_owned()))));
    assert_eq!(pipe.stderr_tail(), "trouble\n");
    assert!(pipe.send(Bytes::from_static(b"x")).await.is_err(), "nobody is there to read it");
    drop(pipe);

    let mut pipe = link.start(b"exit 7").await.unwrap();
    drop(link);
    assert_eq!(finish(&mut pipe).await, Ok((Vec::new(), Some(Exit::Status(7)))), "a program keeps its link open");
    pipe.close().await;
    let pid = host.sh("cat /run/sshd.pid");
    wait_until("the connection is closed", || {
        host.sh("grep -l ^sshd /proc/[0-9]*/comm") == format!("/proc/{}/comm\n", pid.trim())
    });
    assert!(host.sshd_log().contains("Received disconnect"), "{}", host.sshd_log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passphrase_is_asked_for_once_a_run() {
    let host = RealHost::start();
    let locked = host.scratch().join("locked");
    keygen(&locked, "ed25519", "correct horse");
    host.sh(&format!("echo '{}' >>/home/ops/.ssh/authorized_keys", read(&locked.with_extension("pub")).trim()));
    let connection = Connection { identity_files: vec![utf8(&locked)], ..connection(&host) };

    let ask = answer(Some("correct horse"));
    let dialer = Dialer::new(config(&host, Arc::clone(&ask)));
    let (a, b, c) = tokio::join!(
        run(&dialer, &connection, "echo a"),
        run(&dialer, &connection, "echo b"),
        run(&dialer, &connection, "echo c")
    );
    assert_eq!((a.0.as_str(), b.0.as_str(), c.0.as_str()), ("a\n", "b\n", "c\n"));
    assert_eq!(ask.1.load(Ordering::SeqCst), 1);

    let ask = answer(Some("wrong"));
    let error = refused(&Dialer::new(config(&host, Arc::clone(&ask))), &connection).await;
    assert!(matches!(error.problem, Problem::WrongPassphrase { .. }), "{error}");
    let nobody = Dialer::new(config(&host, answer(None)));
    let error = refused(&nobody, &connection).await;
    assert!(matches!(error.problem, Problem::PassphraseNeeded { .. }), "{error}");
    assert!(!error.is_unreachable() && !error.to_string().contains("horse"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_holds_the_key() {
    let host = RealHost::start();
    let (other, locked) = (host.scratch().join("other"), host.scratch().join("locked"));
    keygen(&other, "ed25519", "");
    keygen(&locked, "rsa", "correct horse");
    host.sh(&format!("echo '{}' >>/home/ops/.ssh/authorized_keys", read(&locked.with_extension("pub")).trim()));
    let open = host.scratch().join("open");
    std::fs::copy(&locked, &open).unwrap();
    let opened =
        Command::new("ssh-keygen").args(["-q", "-p", "-P", "correct horse", "-N", "", "-f"]).arg(&open).output();
    assert!(opened.unwrap().status.success());

    let agent = Agent::start(&utf8(host.scratch().join("agent")), &[&other, &host.identity(), &open]);
    let ask = answer(None);
    let with_agent = DialerConfig { agent_socket: Some(agent.1.clone()), ..config(&host, Arc::clone(&ask)) };
    let dialer = Dialer::new(with_agent);
    // No file is named: the agent's keys in its order.
    let any = Connection { identity_files: Vec::new(), ..connection(&host) };
    assert_eq!(run(&dialer, &any, "echo any").await.0, "any\n");
    // A named file that is locked or only the public half: the agent's copy of that key, and nobody is asked.
    for file in [locked.clone(), locked.with_extension("pub")] {
        let named = Connection { identity_files: vec![utf8(&file)], ..connection(&host) };
        let link = dialer.connect(&named).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(link.describe().contains("in the agent (SHA256:"), "{}", link.describe());
    }
    assert_eq!(ask.1.load(Ordering::SeqCst), 0);

    let socket = agent.1.clone();
    drop(agent);
    let error = refused(&dialer, &any).await;
    assert!(matches!(&error.problem, Problem::Agent { socket: s, .. } if *s == socket), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rsa_key_signs_with_sha2() {
    let host = RealHost::builder().host_key_type("rsa").start();
    let key = host.scratch().join("rsa");
    keygen(&key, "rsa", "");
    host.sh(&format!("echo '{}' >>/home/ops/.ssh/authorized_keys", read(&key.with_extension("pub")).trim()));
    let connection = Connection { identity_files: vec![utf8(&key)], ..connection(&host) };
    assert_eq!(run(&dialer(&host), &connection, "echo rsa").await.0, "rsa\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_recorded_host_key_is_accepted() {
    let host = RealHost::start();
    let (right, port) = (host.host_key(), host.port());
    let other = host.scratch().join("other_host");
    keygen(&other, "ed25519", "");
    let wrong = read(&other.with_extension("pub")).split(' ').take(2).collect::<Vec<_>>().join(" ");
    let file = utf8(host.scratch().join("kh"));
    let connection = Connection { known_hosts: vec![file.clone()], ..connection(&host) };
    let dialer = dialer(&host);
    let name = format!("[127.0.0.1]:{port}");

    let missing = refused(&dialer, &connection).await;
    let hint = missing.hint("inv.toml", "h1");
    assert!(matches!(host_key_problem(&missing), HostKeyProblem::Unknown { .. }), "{missing}");
    assert!(hint.contains("keyswap hosts accept -i inv.toml --limit h1"), "{hint}");
    assert_eq!(missing.offered_host_key().unwrap().to_string(), right);

    write(&file, &format!("# comment\n{name} {wrong}\n"));
    let changed = refused(&dialer, &connection).await;
    assert!(
        matches!(host_key_problem(&changed), HostKeyProblem::Changed { place, .. } if place.line == 2),
        "{changed}"
    );
    assert!(changed.to_string().contains(&format!("{file}:2")), "{changed}");

    write(&file, &format!("{name} {right}\n@revoked * {right}\n"));
    let revoked = refused(&dialer, &connection).await;
    assert!(
        matches!(host_key_problem(&revoked), HostKeyProblem::Revoked { place, .. } if place.line == 2),
        "{revoked}"
    );

    write(&file, &format!("@cert-authority * {right}\n"));
    let authority = refused(&dialer, &connection).await;
    assert!(matches!(host_key_problem(&authority), HostKeyProblem::Unknown { authority: true, .. }), "{authority}");

    write(&file, &format!("{name} {wrong}\n{name} {right}\n"));
    assert_eq!(run(&dialer, &connection, "echo rotated").await.0, "rotated\n");

    write(&file, &format!("{name} {right}\n"));
    let hashed = Command::new("ssh-keygen").args(["-H", "-f", file.as_str()]).output().unwrap();
    assert!(hashed.status.success() && read(file.as_std_path()).starts_with("|1|"));
    assert_eq!(run(&dialer, &connection, "echo hashed").await.0, "hashed\n");

    let pinned = Connection { host_keys: vec![right], known_hosts: vec!["/dev/null".into()], ..connection.clone() };
    assert_eq!(run(&dialer, &pinned, "echo pinned").await.0, "pinned\n");
    let pinned = Connection { host_keys: vec![wrong], ..connection };
    let error = refused(&dialer, &pinned).await;
    assert!(matches!(host_key_problem(&error), HostKeyProblem::NotPinned { .. }), "{error}");
    assert!(error.is_host_key());

    assert!(!host.sshd_log().contains("no such identity"), "nothing of ours is offered to a host that is not trusted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hides_the_recorded_key_type_is_refused() {
    let host = RealHost::start();
    let other = host.scratch().join("ecdsa_host");
    keygen(&other, "ecdsa", "");
    let recorded = read(&other.with_extension("pub"));
    let file = utf8(host.scratch().join("kh"));
    write(&file, &format!("[127.0.0.1]:{} {recorded}", host.port()));
    let error = refused(&dialer(&host), &Connection { known_hosts: vec![file], ..connection(&host) }).await;
    assert!(matches!(host_key_problem(&error), HostKeyProblem::OtherType { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_logins_say_what_was_tried() {
    let host = RealHost::builder().sshd_option("MaxAuthTries 2").start();
    let wrong = host.scratch().join("wrong");
    keygen(&wrong, "ed25519", "");
    let dialer = dialer(&host);

    let connection = connection(&host);
    let wrong_key = Connection { identity_files: vec![utf8(&wrong)], ..connection.clone() };
    let error = refused(&dialer, &wrong_key).await;
    let Problem::LoginRefused { tried, remaining, partial: false, .. } = &error.problem else { panic!("{error}") };
    assert!(tried.len() == 1 && tried[0].starts_with(wrong.to_str().unwrap()), "{tried:?}");
    assert_eq!(remaining, &["publickey"]);
    assert!(error.is_auth());

    let nobody = Connection { user: "nobody".to_owned(), ..connection.clone() };
    assert!(refused(&dialer, &nobody).await.is_auth());

    let keys: Vec<_> = ["a", "b", "c"].map(|name| host.scratch().join(name)).to_vec();
    keys.iter().for_each(|key| keygen(key, "ed25519", ""));
    let many = Connection { identity_files: keys.iter().map(utf8).collect(), ..connection.clone() };
    let error = refused(&dialer, &many).await;
    assert!(matches!(&error.problem, Problem::TooManyAttempts { tried } if tried.len() == 2), "{error}");

    // The right key comes after a file that is not there and one that others can read.
    std::fs::set_permissions(&keys[0], std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let fresh = Dialer::new(config(&host, answer(None)));
    let mixed = vec![utf8(host.scratch().join("none")), utf8(&keys[0]), utf8(host.identity())];
    let mixed = Connection { identity_files: mixed, ..connection.clone() };
    assert_eq!(run(&fresh, &mixed, "echo in").await.0, "in\n");
    let open = Connection { identity_files: vec![utf8(&keys[0])], ..connection.clone() };
    let error = refused(&fresh, &open).await;
    let permissions = |why: &KeyFileProblem| matches!(why, KeyFileProblem::Permissions(0o644));
    assert!(matches!(&error.problem, Problem::KeyFile { why, .. } if permissions(why)), "{error}");
    let none = Connection { identity_files: Vec::new(), ..connection };
    assert!(matches!(refused(&fresh, &none).await.problem, Problem::NoKeys { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_do_not_answer_are_told_apart() {
    let host = RealHost::start();
    let dialer = dialer(&host);
    let connection = Connection { connect_timeout_ms: 700, ..connection(&host) };
    let at = |port| Connection { port, ..connection.clone() };

    let error = refused(&dialer, &at(free_port())).await;
    assert!(matches!(error.problem, Problem::Refused), "{error}");
    let error =
        refused(&dialer, &Connection { address: "no-such-host.invalid".to_owned(), ..connection.clone() }).await;
    assert!(matches!(error.problem, Problem::NameNotResolved { .. } | Problem::TimedOut { .. }), "{error}");

    // Accepts and never speaks: the limit holds, and the socket is closed, not just forgotten.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let error = refused(&dialer, &at(silent.local_addr().unwrap().port())).await;
    assert!(matches!(error.problem, Problem::TimedOut { phase: Phase::Banner, .. }), "{error}");
    assert!(error.is_unreachable() && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    closed_by_peer(&silent);

    // Says that it speaks SSH, then nothing: the library's own task must end too.
    let half = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = half.local_addr().unwrap().port();
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = half.accept().unwrap();
        stream.write_all(b"SSH-2.0-Silent\r\n").unwrap();
        drain_to_end(stream)
    });
    let error = refused(&dialer, &at(port)).await;
    assert!(matches!(error.problem, Problem::TimedOut { phase: Phase::KeyExchange, .. }), "{error}");
    assert!(speaker.join().unwrap(), "the socket is closed");

    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = web.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = web.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 \x1b[31mBad Request\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drain_to_end(stream)
    });
    let error = refused(&dialer, &at(port)).await;
    assert!(
        matches!(&error.problem, Problem::NoBanner { said: Some(s) } if s == "HTTP/1.1 400 [31mBad Request"),
        "{error}"
    );
    answering.join().unwrap();
}

/// Reads what a client sends until it hangs up; `false` if it does not within a bound.
fn drain_to_end(mut stream: std::net::TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match std::io::copy(&mut stream, &mut std::io::sink()) {
        Ok(_) => true,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn closed_by_peer(listener: &TcpListener) {
    let (stream, _) = listener.accept().unwrap();
    assert!(drain_to_end(stream), "the socket is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_one_door_gets_in_bit_by_bit() {
    // sshd's own default: beyond ten that are not logged in, visitors are dropped at random.
    let host = RealHost::builder().sshd_option("MaxStartups 10:30:100").start();
    let (dialer, connection) = (dialer(&host), connection(&host));
    let all = (0..40).map(|_| async { dialer.connect(&connection).await.map(|link| link.describe()) });
    let results = futures_util::future::join_all(all).await;
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err().map(ToString::to_string)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_leads_to_a_host_and_is_checked_itself() {
    let (bastion, host) = (RealHost::start(), RealHost::start());
    let dialer = dialer(&host);
    let hop = |connection: Connection| vec![Jump { name: "bastion".to_owned(), connection }];
    let through = Connection { jump: hop(connection(&bastion)), ..connection(&host) };
    let (said, exit) = run(&dialer, &through, "cat /etc/machine-id").await;
    assert_eq!((said, exit), (host.sh("cat /etc/machine-id"), Some(Exit::Status(0))));
    let link = dialer.connect(&through).await.unwrap();
    assert!(link.describe().ends_with(&format!("by way of ops@127.0.0.1:{}", bastion.port())), "{}", link.describe());

    // The hop's death is the link's, and it is named.
    let mut pipe = link.start(b"sleep 60").await.unwrap();
    bastion.kill_sshd_children();
    let lost = finish(&mut pipe).await.unwrap_err();
    assert!(lost.reason.contains("the hop "), "{lost}");

    let unknown = Connection { known_hosts: vec!["/dev/null".into()], ..connection(&bastion) };
    let error = refused(&dialer, &Connection { jump: hop(unknown), ..connection(&host) }).await;
    assert!(error.is_host_key() && error.hop.as_deref() == Some("bastion"), "{error}");
    let error = refused(&dialer, &Connection { known_hosts: vec!["/dev/null".into()], ..through.clone() }).await;
    assert!(error.is_host_key() && error.hop.is_none(), "{error}");

    let error = refused(&dialer, &Connection { port: free_port(), ..through.clone() }).await;
    assert!(matches!(&error.problem, Problem::HopCannotReach { said: Some(s) } if s.contains("refused")), "{error}");
    bastion.sh("echo 'AllowTcpForwarding no' >>/etc/ssh/sshd_config && kill -HUP $(cat /run/sshd.pid)");
    wait_until("sshd has read it", || bastion.sshd_log().matches("Server listening").count() == 2);
    let error = refused(&dialer, &through).await;
    assert!(matches!(error.problem, Problem::HopForbids), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_is_lost_and_never_an_exit_status() {
    let host = RealHost::start();
    let link = dialer(&host).connect(&connection(&host)).await.unwrap();
    let mut pipe = link.start(b"echo on; exec sleep 4711").await.unwrap();
    assert_eq!(pipe.recv().await, Ok(Some(Bytes::from_static(b"on\n"))));
    assert!(host.kill_sshd_children() > 0);
    let lost = pipe.recv().await.unwrap_err();
    assert_eq!((lost.reason.as_str(), pipe.exit()), ("the host closed the connection", None));
    assert_eq!(pipe.recv().await, Err(lost.clone()), "it stays lost");
    assert_eq!(pipe.send(Bytes::from_static(b"x")).await, Err(lost));
    assert_eq!(
        host.sh("pgrep -c sleep || grep -lx sleep /proc/[0-9]*/comm | wc -l").trim(),
        "1",
        "the program goes on"
    );
    let error = link.start(b"true").await.err().unwrap();
    assert!(matches!(error.problem, Problem::Lost { .. }), "{error}");
    pipe.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_link_is_noticed_by_its_silence() {
    let host = RealHost::start();
    let keepalive = Keepalive { interval: Duration::from_millis(200), max: 2 };
    let dialer = Dialer::new(DialerConfig { keepalive, ..config(&host, answer(None)) });
    let link = dialer.connect(&connection(&host)).await.unwrap();
    let mut pipe = link.start(b"sleep 60").await.unwrap();
    let began = Instant::now();
    assert!(host.signal_sshd_children("STOP") > 0);
    let silence = tokio::time::timeout(Duration::from_secs(20), pipe.recv()).await;
    let lost = silence.expect("the silence is noticed").unwrap_err();
    assert_eq!(lost.reason, "Keepalive timeout");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    host.signal_sshd_children("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_drained_and_bounded() {
    let host = RealHost::start();
    let link = dialer(&host).connect(&connection(&host)).await.unwrap();

    // Both outputs at once, more than any window holds, and nobody reads before the end.
    let flood = "dd if=/dev/zero bs=4096 count=256 2>/dev/null & \
                 dd if=/dev/zero bs=4096 count=1024 2>/dev/null | tr '\\0' e >&2; wait; echo last >&2";
    let mut pipe = link.start(flood.as_bytes()).await.unwrap();
    let mut beside = link.start(b"echo beside").await.unwrap();
    assert_eq!(finish(&mut beside).await.unwrap().0, b"beside\n", "other programs on the link go on");
    wait_until_async(|| pipe.stderr_tail().ends_with("last\n")).await;
    let (said, exit) = finish(&mut pipe).await.unwrap();
    assert_eq!((said.len(), exit), (1 << 20, Some(Exit::Status(0))));
    assert_eq!(pipe.stderr_tail().len(), 4096);

    // A program that does not read its input: whatever we send, its end is seen, and it can be let go.
    let mut deaf = link.start(b"sleep 0.2; exit 3").await.unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(20), async {
        while deaf.send(Bytes::from(vec![0; 1 << 20])).await.is_ok() {}
    });
    sent.await.expect("sending ends when the program does");
    assert_eq!(finish(&mut deaf).await, Ok((Vec::new(), Some(Exit::Status(3)))));

    let mut endless = link.start(b"exec sleep 60").await.unwrap();
    endless.send(Bytes::from(vec![0; 1 << 20])).await.unwrap();
    let began = Instant::now();
    endless.close().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    // More than anybody can hold: the link is given up instead of the memory.
    let mut pipe = link.start(b"cat /dev/zero").await.unwrap();
    wait_until_async(|| false_until_lost(&mut pipe)).await;
    let lost = finish(&mut pipe).await.unwrap_err();
    assert!(lost.reason.contains("16 MiB"), "{lost}");
}

/// Whether the link has been given up; sees it by trying to send.
fn false_until_lost(pipe: &mut Box<dyn Pipe>) -> bool {
    use futures_util::FutureExt as _;
    matches!(pipe.send(Bytes::new()).now_or_never(), Some(Err(_)))
}

async fn wait_until_async(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_programs_give_their_session_back() {
    let host = RealHost::builder().sshd_option("MaxSessions 2").start();
    let link = dialer(&host).connect(&connection(&host)).await.unwrap();
    for n in 0..6 {
        let pipe = link.start(b"cat").await.unwrap_or_else(|e| panic!("the {n}th: {e}"));
        pipe.close().await;
    }
    let _one = link.start(b"cat").await.unwrap();
    let _two = link.start(b"cat").await.unwrap();
    let error = link.start(b"cat").await.err().unwrap();
    assert!(matches!(error.problem, Problem::ChannelRefused { .. }), "{error}");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn write(path: &Utf8Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
