//! Servers that do what OpenSSH would not: an embedded one that misbehaves on command, and plain sockets.

use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Response, Session as ServerSession, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect, MethodKind, MethodSet};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::model::Connection;
use crate::model::SecretSource;
use crate::remote::{Exit, Lost, NoPasswords, Passwords, Pipe, Trials};

struct Nobody;

impl AskPassphrase for Nobody {
    fn ask(&self, _prompt: &str) -> Option<SecretString> {
        None
    }
}

/// A server whose programs are names of misdeeds.
#[derive(Clone, Default)]
struct Rogue {
    /// How many of the channels that it opened were accepted, and how many were not.
    opened: Arc<Mutex<(usize, usize)>>,
    /// What it was told on its channels.
    heard: Arc<Mutex<Vec<String>>>,
}

impl server::Handler for Rogue {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut ServerSession,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut ServerSession) -> Result<(), Self::Error> {
        self.heard.lock().unwrap().push(String::from_utf8_lossy(data).into_owned());
        Ok(())
    }

    async fn channel_eof(&mut self, _: ChannelId, _: &mut ServerSession) -> Result<(), Self::Error> {
        self.heard.lock().unwrap().push("eof".to_owned());
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut ServerSession) -> Result<(), Self::Error> {
        self.heard.lock().unwrap().push("close".to_owned());
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut ServerSession,
    ) -> Result<(), Self::Error> {
        if command == b"refuse" {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        match command {
            b"status first" => {
                session.exit_status_request(id, 3)?;
                session.eof(id)?;
                session.data(id, b"late".as_slice())?;
                session.extended_data(id, 1, b"later".as_slice())?;
                session.close(id)?;
            }
            b"no status" => {
                session.data(id, b"all is well".as_slice())?;
                session.eof(id)?;
                session.close(id)?;
            }
            b"status and gone" => {
                session.exit_status_request(id, 0)?;
                session.eof(id)?;
                session.disconnect(Disconnect::ByApplication, "\x1b[31mgo\r\naway", "")?;
            }
            b"open everything" => {
                let (handle, opened) = (session.handle(), Arc::clone(&self.opened));
                tokio::spawn(async move {
                    let answers = [
                        handle.channel_open_agent().await.is_ok(),
                        handle.channel_open_session().await.is_ok(),
                        handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
                        handle.channel_open_direct_streamlocal("/run/x").await.is_ok(),
                        handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
                        handle.channel_open_forwarded_streamlocal("/run/x").await.is_ok(),
                        handle.channel_open_x11("127.0.0.1", 1).await.is_ok(),
                    ];
                    let accepted = answers.iter().filter(|yes| **yes).count();
                    *opened.lock().unwrap() = (accepted, answers.len() - accepted);
                    let _ = handle.exit_status_request(id, 0).await;
                    let _ = handle.close(id).await;
                });
            }
            _ => {}
        }
        Ok(())
    }
}

struct Stage {
    dir: tempfile::TempDir,
    host_key: PrivateKey,
}

impl Stage {
    fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(dir.path().join("id")).unwrap();
        std::io::Write::write_all(&mut file, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        Self { dir, host_key: PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap() }
    }

    fn dir(&self) -> &Utf8Path {
        Utf8Path::from_path(self.dir.path()).unwrap()
    }

    fn dialer(&self) -> Dialer {
        Dialer::new(self.config())
    }

    fn config(&self) -> DialerConfig {
        DialerConfig {
            home: self.dir().to_owned(),
            global_known_hosts: Vec::new(),
            agent_socket: None,
            passphrase: Arc::new(Nobody),
            passwords: Arc::new(NoPasswords),
            trials: Arc::default(),
            keepalive: Keepalive::default(),
        }
    }

    fn connection(&self, port: u16) -> Connection {
        Connection {
            identity_files: vec![Utf8PathBuf::from("~/id")],
            known_hosts: vec!["/dev/null".into()],
            host_keys: vec![self.host_key.public_key().to_openssh().unwrap()],
            ..Connection::new("127.0.0.1", port, "ops")
        }
    }

    /// Serves the rogue for as long as the test runs; hangs up on the first `rude` visitors.
    async fn serve<H>(&self, rogue: &H, rude: usize) -> (u16, Arc<AtomicUsize>)
    where
        H: server::Handler<Error = russh::Error> + Clone + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(server::Config {
            keys: vec![self.host_key.clone()],
            auth_rejection_time: Duration::ZERO,
            nodelay: true,
            ..server::Config::default()
        });
        let visits = Arc::new(AtomicUsize::new(0));
        let (rogue, counter) = (rogue.clone(), Arc::clone(&visits));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if counter.fetch_add(1, Ordering::SeqCst) >= rude {
                    let session = server::run_stream(Arc::clone(&config), stream, rogue.clone());
                    tokio::spawn(async move { session.await?.await });
                }
            }
        });
        (port, visits)
    }
}

async fn finish(pipe: &mut Box<dyn Pipe>) -> Result<String, Lost> {
    let mut said = Vec::new();
    while let Some(piece) = pipe.recv().await? {
        said.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn only_a_closed_channel_with_a_status_is_an_end() {
    let stage = Stage::set();
    let (port, _) = stage.serve(&Rogue::default(), 0).await;
    let link = stage.dialer().connect(&stage.connection(port)).await.unwrap_or_else(|e| panic!("{e}"));

    let mut pipe = link.start(b"status first").await.unwrap();
    assert_eq!(finish(&mut pipe).await, Ok("late".to_owned()), "what comes after the status counts too");
    assert_eq!((pipe.exit(), pipe.stderr_tail()), (Some(Exit::Status(3)), "later".to_owned()));

    let mut pipe = link.start(b"no status").await.unwrap();
    let lost = finish(&mut pipe).await.unwrap_err();
    assert!(lost.reason.contains("without saying how the program ended"), "{lost}");
    assert_eq!(pipe.exit(), None);

    let error = link.start(b"refuse").await.err().unwrap();
    assert!(matches!(error.problem, Problem::CommandRefused), "{error}");
    assert_eq!(error.class(), Class::Refused);

    let mut pipe = link.start(b"status and gone").await.unwrap();
    let lost = finish(&mut pipe).await.unwrap_err();
    assert_eq!(lost.reason, "the host said: [31mgo away", "its words come through, but not its control codes");
    assert_eq!(pipe.exit(), None, "a status without a close may be a forgery or half the truth");
}

#[tokio::test]
async fn a_server_can_open_nothing_on_our_side() {
    let stage = Stage::set();
    let rogue = Rogue::default();
    let (port, _) = stage.serve(&rogue, 0).await;
    let link = stage.dialer().connect(&stage.connection(port)).await.unwrap();
    let mut pipe = link.start(b"open everything").await.unwrap();
    assert_eq!(finish(&mut pipe).await, Ok(String::new()));
    assert_eq!(*rogue.opened.lock().unwrap(), (0, 7));
}

#[tokio::test]
async fn a_visitor_who_is_turned_away_at_the_door_comes_back_but_not_for_ever() {
    let stage = Stage::set();
    let (port, visits) = stage.serve(&Rogue::default(), 3).await;
    assert!(stage.dialer().connect(&stage.connection(port)).await.is_ok());
    assert_eq!(visits.load(Ordering::SeqCst), 4);

    let (port, visits) = stage.serve(&Rogue::default(), usize::MAX).await;
    let error = stage.dialer().connect(&stage.connection(port)).await.err().unwrap();
    assert!(matches!(error.problem, Problem::NoBanner { said: None }), "{error}");
    assert_eq!(visits.load(Ordering::SeqCst), 4);

    // What is not a matter of luck is not tried twice.
    let (port, visits) = stage.serve(&Rogue::default(), 0).await;
    let stranger = Connection { host_keys: Vec::new(), ..stage.connection(port) };
    assert!(stage.dialer().connect(&stranger).await.err().unwrap().is_host_key());
    assert_eq!(visits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_more_than_eight_stand_at_one_door() {
    let stage = Stage::set();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&visits);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            silent.push(stream);
        }
    });
    let (dialer, connection) = (stage.dialer(), stage.connection(port));
    let tries = futures_util::future::join_all((0..20).map(|_| dialer.connect(&connection)));
    let watch = async {
        while visits.load(Ordering::SeqCst) < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Long enough for the others to come, if anything let them.
        tokio::time::sleep(Duration::from_millis(200)).await;
        visits.load(Ordering::SeqCst)
    };
    tokio::select! {
        _ = tries => panic!("nobody answers, and the limit is far away"),
        seen = watch => assert_eq!(seen, 8),
    }
}

#[tokio::test]
async fn letting_go_of_a_program_ends_its_input_and_then_its_channel() {
    let stage = Stage::set();
    let rogue = Rogue::default();
    let (port, _) = stage.serve(&rogue, 0).await;
    let link = stage.dialer().connect(&stage.connection(port)).await.unwrap();
    let seen = || rogue.heard.lock().unwrap().clone();

    let mut pipe = link.start(b"stay").await.unwrap();
    pipe.send("last words".into()).await.unwrap();
    pipe.close().await;
    assert_eq!(seen(), ["last words", "eof", "close"]);

    drop(link.start(b"stay").await.unwrap());
    let all = async {
        while seen().len() < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("a program that is dropped is let go too");
    assert_eq!(seen()[3..], ["eof", "close"]);
    assert!(link.start(b"stay").await.is_ok(), "the link goes on");
}

#[tokio::test]
async fn a_server_with_only_old_algorithms_is_named_as_such() {
    let stage = Stage::set();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"welcome\r\nSSH-2.0-Old\r\n").await.unwrap();
        // A key exchange offer with one kind of host key: RSA with SHA-1.
        let lists = ["curve25519-sha256", "ssh-rsa", "aes256-ctr", "aes256-ctr", "hmac-sha2-256", "hmac-sha2-256"];
        let mut payload = vec![20_u8];
        payload.extend([0; 16]);
        for list in lists.into_iter().chain(["none", "none", "", ""]) {
            payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            payload.extend(list.as_bytes());
        }
        payload.extend([0; 5]);
        let padding = 8 - (payload.len() + 5) % 8 + 8;
        let mut packet = u32::try_from(payload.len() + padding + 1).unwrap().to_be_bytes().to_vec();
        packet.push(u8::try_from(padding).unwrap());
        packet.extend(payload);
        packet.resize(packet.len() + padding, 0);
        stream.write_all(&packet).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = stage.dialer().connect(&stage.connection(port)).await.err().unwrap();
    let Problem::NoCommonAlgorithm { what, theirs } = &error.problem else { panic!("{error}") };
    assert_eq!((what.as_str(), theirs.as_str()), ("host key type", "ssh-rsa"));
}

const PASSWORD: &str = "test-token password";

/// Gives the password.
struct Given;

impl Passwords for Given {
    fn read<'a>(
        &'a self,
        _: &'a str,
        _: &'a SecretSource,
    ) -> futures_util::future::BoxFuture<'a, Result<SecretString, String>> {
        Box::pin(async { Ok(SecretString::from(PASSWORD)) })
    }
}

/// What the first proof of a login is.
#[derive(Clone, Copy)]
enum First {
    Nothing,
    Key,
    Password,
}

/// A server that asks, after a first proof, these questions one by one; it takes the password for each that names one, and then
/// a last answer that nobody here knows.
#[derive(Clone)]
struct Inquirer {
    first: First,
    questions: &'static [&'static str],
    asked: usize,
    /// What it was given, by the question.
    given: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Inquirer {
    fn new(first: First, questions: &'static [&'static str]) -> Self {
        Self { first, questions, asked: 0, given: Arc::default() }
    }

    fn in_part(&self) -> Auth {
        let wanted = MethodSet::from([MethodKind::KeyboardInteractive].as_slice());
        Auth::Reject { proceed_with_methods: Some(wanted), partial_success: true }
    }

    fn refuse(&self) -> Auth {
        let method = match self.first {
            First::Nothing => MethodKind::KeyboardInteractive,
            First::Key => MethodKind::PublicKey,
            First::Password => MethodKind::Password,
        };
        Auth::Reject { proceed_with_methods: Some(MethodSet::from([method].as_slice())), partial_success: false }
    }
}

impl server::Handler for Inquirer {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(if matches!(self.first, First::Key) { self.in_part() } else { self.refuse() })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        if !matches!(self.first, First::Password) {
            return Ok(self.refuse());
        }
        self.given.lock().unwrap().push(("as a password", password.to_owned()));
        Ok(self.in_part())
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        if let Some(answers) = response {
            let question = self.questions[self.asked];
            let answers: Vec<String> = answers.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
            self.given.lock().unwrap().push((question, answers.concat()));
            self.asked += 1;
        }
        Ok(match self.questions.get(self.asked) {
            Some(question) => Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![((*question).into(), false)].into(),
            },
            None => Auth::Accept,
        })
    }
}

/// A first proof, the questions after it, those that get the password, what is said, and whether other hosts still get it.
type Asked = (First, &'static [&'static str], &'static [&'static str], &'static str, bool);

#[tokio::test]
async fn a_question_for_a_code_does_not_get_the_password() {
    const CODE: &[&str] = &["Verification code: "];
    let cases: [Asked; 6] = [
        (First::Nothing, &["Password: "], &["Password: "], "in", true),
        (First::Key, &["Password: "], &["Password: "], "in", true),
        (First::Key, CODE, &[], "the host asks another question: Verification code:; a key was accepted", true),
        (
            First::Password,
            CODE,
            &["as a password"],
            "the password was accepted, the host also wants keyboard-interactive",
            true,
        ),
        // Once more would be a second try.
        (First::Nothing, &["Password: ", "Password: "], &["Password: "], "the host asks for it again", false),
        (
            First::Nothing,
            &["Password: ", "Verification code: "],
            &["Password: "],
            "the host asks another question: Verification code:",
            true,
        ),
    ];
    for (first, questions, given, expected, goes_on) in cases {
        let stage = Stage::set();
        let inquirer = Inquirer::new(first, questions);
        let (port, _) = stage.serve(&inquirer, 0).await;
        let trials = Arc::new(Trials::default());
        let dialer =
            Dialer::new(DialerConfig { passwords: Arc::new(Given), trials: Arc::clone(&trials), ..stage.config() });
        let source = SecretSource::Prompt;
        let keys = if matches!(first, First::Key) { vec!["~/id".into()] } else { vec![Connection::NONE.into()] };
        let connection = Connection { identity_files: keys, password: Some(source.clone()), ..stage.connection(port) };
        let said = match dialer.connect(&connection).await {
            Ok(_) => "in".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said == expected || said.contains(expected) && expected != "in", "{questions:?}: {said}");
        let took: Vec<(&str, String)> = inquirer.given.lock().unwrap().clone();
        assert!(took.iter().all(|(_, answer)| answer == PASSWORD), "{questions:?}");
        assert_eq!(took.iter().map(|(question, _)| *question).collect::<Vec<_>>(), given, "{said}");
        // Whether other hosts still get it.
        let trial = trials.of(crate::remote::Opens::Login, "ops", Some(&source));
        assert_eq!(trial.leave("another").await.is_ok(), goes_on, "{questions:?}: {said}");
    }
}
