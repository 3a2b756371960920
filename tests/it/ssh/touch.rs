//! Security keys (FIDO), by an agent of the test's own that signs as such a key does, against a real server.
//!
//! There is no hardware here: what the key and its owner would do is done in software, at the place where the agent is.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use keyswap::model::Connection;
use keyswap::remote::ssh::{Dialer, DialerConfig, KeyFileProblem, Problem};
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::base64::{Base64, Encoding as _};
use russh::keys::{Algorithm, PrivateKey};
use sha2::{Digest as _, Sha256};

use super::{answer, config, connection, refused, run, utf8, write};
use crate::support::real_host::RealHost;

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text);
}

/// A security key in software.
struct Token(PrivateKey);

impl Token {
    fn new() -> Self {
        Self(PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap())
    }

    fn point(&self) -> Vec<u8> {
        let blob = self.0.public_key().to_bytes().unwrap();
        blob[blob.len() - 32..].to_vec()
    }

    /// The public key as it stands in files, without its type.
    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put(&mut blob, KIND.as_bytes());
        put(&mut blob, &self.point());
        put(&mut blob, APPLICATION.as_bytes());
        blob
    }

    fn line(&self) -> String {
        format!("{KIND} {} test", Base64::encode_string(&self.blob()))
    }

    /// What `ssh-keygen -t ed25519-sk` leaves in `id_ed25519_sk`: no key, but a handle for one.
    fn stub(&self) -> String {
        let mut secret = vec![0; 8];
        put(&mut secret, KIND.as_bytes());
        put(&mut secret, &self.point());
        put(&mut secret, APPLICATION.as_bytes());
        secret.push(1);
        put(&mut secret, b"a key handle");
        put(&mut secret, b"");
        put(&mut secret, b"test");
        secret.extend((1..).take((8 - secret.len() % 8) % 8));
        let mut file = b"openssh-key-v1\0".to_vec();
        put(&mut file, b"none");
        put(&mut file, b"none");
        put(&mut file, b"");
        file.extend(1_u32.to_be_bytes());
        put(&mut file, &self.blob());
        put(&mut file, &secret);
        let base64 = Base64::encode_string(&file);
        let lines: Vec<&str> = base64.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
    }

    /// The signature that it makes when it is touched.
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let rest = [1, 0, 0, 0, 7];
        let message = [&Sha256::digest(APPLICATION)[..], &rest, &Sha256::digest(data)[..]].concat();
        let mut signature = Vec::new();
        put(&mut signature, KIND.as_bytes());
        put(&mut signature, self.0.try_sign(&message).unwrap().as_bytes());
        signature.extend(rest);
        signature
    }
}

/// Answers as an agent that holds the token, and counts the touches; each takes so long.
fn agent(socket: &Utf8Path, token: Arc<Token>, touch: Duration) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let touches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&touches);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (token, count) = (Arc::clone(&token), Arc::clone(&count));
            std::thread::spawn(move || serve(stream, &token, &count, touch));
        }
    });
    touches
}

fn serve(mut stream: UnixStream, token: &Token, touches: &AtomicUsize, touch: Duration) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut request).ok()?;
        let mut reply = Vec::new();
        match request[0] {
            11 => {
                reply.push(12);
                reply.extend(1_u32.to_be_bytes());
                put(&mut reply, &token.blob());
                put(&mut reply, b"touch me");
            }
            13 => {
                let take = |from: &[u8]| {
                    let end = 4 + usize::try_from(u32::from_be_bytes(from[..4].try_into().unwrap())).unwrap();
                    (from[4..end].to_vec(), from[end..].to_vec())
                };
                let (_, rest) = take(&request[1..]);
                let (data, _) = take(&rest);
                touches.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(touch);
                reply.push(14);
                put(&mut reply, &token.sign(&data));
            }
            // Sessions are not bound here.
            _ => reply.push(5),
        }
        let mut framed = Vec::new();
        put(&mut framed, &reply);
        stream.write_all(&framed).ok()?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_key_is_used_through_the_agent_and_its_owner_is_waited_for() {
    let host = RealHost::start();
    let token = Arc::new(Token::new());
    host.sh(&format!("echo '{}' >/home/ops/.ssh/authorized_keys", token.line()));
    let home = utf8(host.scratch().join("home"));
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    let stub = home.join(".ssh/id_ed25519_sk");
    write(&stub, &token.stub());
    write(&Utf8PathBuf::from(format!("{stub}.pub")), &token.line());
    std::fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    // Longer than the host may take.
    let socket = utf8(host.scratch().join("fido"));
    let touches = agent(&socket, Arc::clone(&token), Duration::from_secs(9));
    let dialer = || Dialer::new(DialerConfig { agent_socket: Some(socket.clone()), ..config(&host, answer(None)) });
    let base = Connection { connect_timeout_ms: 8000, ..connection(&host) };
    let named = Connection { identity_files: vec![stub.clone()], ..base.clone() };
    assert_eq!(run(&dialer(), &named, "echo named").await.0, "named\n");
    assert_eq!(run(&dialer(), &Connection { identity_files: Vec::new(), ..base }, "echo any").await.0, "any\n");
    assert_eq!(touches.load(Ordering::SeqCst), 2, "a touch for each login");

    // No agent: the file alone is no key.
    let error = refused(&Dialer::new(config(&host, answer(None))), &named).await;
    let Problem::KeyFile { why: KeyFileProblem::PublicOnly, file } = &error.problem else { panic!("{error}") };
    assert_eq!(*file, stub);
}
