//! Logging in: keys, certificates, agents, passwords, limits, and the way over other hosts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use camino::Utf8PathBuf;
use futures_util::future::{BoxFuture, join_all};
use keyswap::model::{Algorithms, Connection, Jump, SecretSource};
use keyswap::remote::Passwords;
use keyswap::remote::ssh::{Dialer, DialerConfig};
use secrecy::SecretString;

use super::{Bench, Outcome, verdict};
use crate::ssh::{Agent, answer, config, connection, read, utf8};
use crate::support::real_host::{free_port, keygen};

const PASSWORD: &str = "test-token login";

/// Gives as password what the source's variable is called.
struct Given;

impl Passwords for Given {
    fn read<'a>(&'a self, _: &'a str, source: &'a SecretSource) -> BoxFuture<'a, Result<SecretString, String>> {
        Box::pin(async move {
            match source {
                SecretSource::Env { name } => Ok(SecretString::from(name.as_str())),
                _ => Err("there is none".to_owned()),
            }
        })
    }
}

fn source(password: &str) -> Option<SecretSource> {
    Some(SecretSource::Env { name: password.to_owned() })
}

/// One login: to where, with which agent, and the words that the verdict must hold (`in` alone: it succeeds).
struct Case {
    what: &'static str,
    connection: Connection,
    agent: Option<Utf8PathBuf>,
    expected: &'static str,
}

/// All login cases, and what they need to stay alive.
pub(super) struct Logins {
    cases: Vec<Case>,
    _agents: Vec<Agent>,
}

impl Logins {
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub(super) fn prepare(bench: &Bench) -> Self {
        let host = &bench.host;
        let dir = host.scratch().join("keys");
        std::fs::create_dir(&dir).unwrap();
        let key = |name: &str, kind: &str| {
            let path = dir.join(name);
            keygen(&path, kind, "");
            path
        };
        let wrong: Vec<PathBuf> = (0..6).map(|n| key(&format!("wrong{n}"), "ed25519")).collect();
        let ca = key("ca", "ed25519");
        let certified = |name: &str, kind: &str, options: &[&str]| {
            let path = key(name, kind);
            let signed = Command::new("ssh-keygen")
                .args(["-q", "-I", "test", "-s"])
                .arg(&ca)
                .args(options)
                .arg(path.with_extension("pub"))
                .output()
                .unwrap();
            assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
            path
        };
        let good = certified("good", "ed25519", &["-n", "ops"]);
        let old = certified("old", "ed25519", &["-n", "ops", "-V", "20200101:20200201"]);
        let other = certified("other", "ed25519", &["-n", "somebody"]);
        let rsa = certified("rsa", "rsa", &["-n", "ops"]);
        bench.put(&ca.with_extension("pub"), "/etc/ssh/user_ca.pub");
        host.sh(&format!("echo 'ops:{PASSWORD}' | chpasswd -c SHA512"));

        let agent = |name: &str, keys: &[&Path]| Agent::start(&utf8(dir.join(name)), keys);
        let wrong_keys: Vec<&Path> = wrong.iter().map(PathBuf::as_path).collect();
        let identity = host.identity();
        let full = agent("full", &[wrong_keys.as_slice(), &[identity.as_path()]].concat());
        let certificates = agent("certificates", &[&good]);
        // The key is in the agent alone; what lies there is its public half and its certificate.
        let held = certified("held", "ed25519", &["-n", "ops"]);
        let bare = dir.join("bare");
        std::fs::copy(&held, &bare).unwrap();
        let keys_only = agent("keys-only", &[&bare]);
        let stub = held.clone();
        std::fs::remove_file(&held).unwrap();
        let (apart, elsewhere) = (certified("apart", "ed25519", &["-n", "ops"]), dir.join("elsewhere.pub"));
        std::fs::rename(dir.join("apart-cert.pub"), &elsewhere).unwrap();
        let broken = key("broken", "ed25519");
        std::fs::write(dir.join("broken-cert.pub"), "nonsense\n").unwrap();
        let rsa_agent = agent("rsa-agent", &[&rsa]);

        let known = format!("{}\n", host.host_key());
        let files = utf8(dir.join("known_hosts"));
        std::fs::write(&files, format!("* {known}")).unwrap();
        let base = Connection { known_hosts: vec![files.clone()], ..connection(host) };
        let at = |port| Connection { port, ..base.clone() };
        let with = |keys: &[&PathBuf], port| Connection { identity_files: keys.iter().map(utf8).collect(), ..at(port) };
        let main = host.port();
        let cert = bench.sshd(None, "TrustedUserCAKeys /etc/ssh/user_ca.pub\nAuthorizedKeysFile none");
        let strict = bench.sshd(None, "MaxAuthTries 2");
        let password = bench.sshd(None, "PasswordAuthentication yes\nPubkeyAuthentication no");
        let asking = bench.sshd(None, "UsePAM yes\nKbdInteractiveAuthentication yes\nPubkeyAuthentication no");
        let both = bench.sshd(None, "PasswordAuthentication yes\nAuthenticationMethods publickey,password");
        let denied = bench.sshd(None, "DenyUsers ops");
        let crowded = bench.sshd(None, "MaxStartups 3:50:6");
        let bastion = bench.sshd(None, "MaxStartups 3:50:6");
        let old_kex = bench.sshd(None, "KexAlgorithms diffie-hellman-group14-sha1");
        let old_mac = bench.sshd(None, "MACs hmac-sha1\nCiphers aes256-ctr");
        let unforwarding = bench.sshd(None, "AllowTcpForwarding no");
        let dropbear = dropbear(bench);
        let unknown = Connection { known_hosts: vec!["/dev/null".into()], ..base.clone() };
        let to = |port, hops: &[(&str, &Connection)]| Connection {
            jump: hops
                .iter()
                .map(|(name, hop)| Jump { name: (*name).to_owned(), connection: (*hop).clone() })
                .collect(),
            ..at(port)
        };
        let changed = utf8(dir.join("changed"));
        std::fs::write(&changed, format!("[127.0.0.1]:{cert} {}", read(&wrong[0].with_extension("pub")))).unwrap();
        let changed = Connection { known_hosts: vec![changed], ..at(cert) };

        let case = |what, connection, expected| Case { what, connection, agent: None, expected };
        let by_agent = |what, connection, agent: &Agent, expected| Case {
            what,
            connection,
            agent: Some(agent.1.clone()),
            expected,
        };
        let weak = |connection| Connection {
            algorithms: Algorithms {
                kex: vec!["diffie-hellman-group14-sha1".to_owned(), "curve25519-sha256".to_owned()],
                macs: vec!["hmac-sha1".to_owned(), "hmac-sha2-256".to_owned()],
                ..Algorithms::default()
            },
            ..connection
        };
        let no_file = |port| Connection { identity_files: Vec::new(), ..at(port) };
        let certificate = |connection, file: &PathBuf| Connection { certificate_files: vec![utf8(file)], ..connection };
        let cases = vec![
            case("key file", at(main), "in"),
            case("the fourth of four files", with(&[&wrong[0], &wrong[1], &wrong[2], &identity], main), "in"),
            case("wrong key", with(&[&wrong[0]], main), "the login was refused; tried"),
            case("wrong user", Connection { user: "nobody".to_owned(), ..at(main) }, "the login was refused; tried"),
            case("denied user", at(denied), "the login was refused; tried"),
            case("no key at all", no_file(main), "no key to log in with"),
            case(
                "more wrong keys than the host listens to",
                with(&[&wrong[0], &wrong[1], &wrong[2]], strict),
                "stopped listening after 2 keys",
            ),
            by_agent("full agent, the key named as a file", at(main), &full, "in"),
            by_agent(
                "full agent, the key named by its public half",
                with(&[&identity.with_extension("pub")], main),
                &full,
                "in",
            ),
            by_agent("full agent, named, host with two tries", at(strict), &full, "in"),
            by_agent("full agent, nothing named", no_file(main), &full, "2 more keys, since hosts end the connection"),
            case("user certificate", with(&[&good], cert), "in"),
            by_agent("user certificate in the agent", no_file(cert), &certificates, "in"),
            by_agent("user certificate in a file, its key in the agent", with(&[&stub], cert), &keys_only, "in"),
            by_agent(
                "user certificate in a file, its key in the agent, by the public half",
                with(&[&stub.with_extension("pub")], cert),
                &keys_only,
                "in",
            ),
            case("certificate that is none", with(&[&broken], cert), "is not a certificate that can be read"),
            case("key without the certificate that it needs", with(&[&apart], cert), "the login was refused; tried"),
            case("user certificate apart from its key", certificate(with(&[&apart], cert), &elsewhere), "in"),
            case(
                "user certificate apart, for another key",
                certificate(with(&[&wrong[0]], cert), &elsewhere),
                "its key is neither in a file nor in the agent",
            ),
            by_agent(
                "user certificate apart, its key in the agent",
                certificate(no_file(cert), &dir.join("held-cert.pub")),
                &keys_only,
                "in",
            ),
            by_agent("named key is wrong, the agent's would do", with(&[&wrong[0]], cert), &certificates, "in"),
            by_agent(
                "named key is wrong, and only that may be tried",
                Connection { identities_only: true, ..with(&[&wrong[0]], cert) },
                &certificates,
                "the login was refused; tried",
            ),
            by_agent(
                "no file, and nothing else of the agent",
                Connection { identities_only: true, ..no_file(cert) },
                &certificates,
                "no key to log in with",
            ),
            by_agent("full agent, only the named key", Connection { identities_only: true, ..at(strict) }, &full, "in"),
            case(
                "an agent of the host's own",
                Connection { identity_agent: Some(certificates.1.clone()), ..no_file(cert) },
                "in",
            ),
            by_agent(
                "no agent for this host",
                Connection { identity_agent: Some(Connection::NONE.into()), ..no_file(cert) },
                &certificates,
                "no key to log in with",
            ),
            by_agent(
                "no file for this host",
                Connection { identity_files: vec![Connection::NONE.into()], ..at(cert) },
                &certificates,
                "in",
            ),
            case("user certificate, expired", with(&[&old], cert), "it has expired"),
            case("user certificate for somebody else", with(&[&other], cert), "the login was refused; tried"),
            by_agent("RSA user certificate in the agent", no_file(cert), &rsa_agent, "in"),
            case("RSA user certificate in a file", with(&[&rsa], cert), "only from an agent"),
            case("password", Connection { password: source(PASSWORD), ..no_file(password) }, "in"),
            case("wrong password", Connection { password: source("wrong"), ..no_file(password) }, "tried the password"),
            case(
                "password asked for as a question",
                Connection { password: source(PASSWORD), ..no_file(asking) },
                "in",
            ),
            case(
                "wrong answer to the question",
                Connection { password: source("wrong"), ..no_file(asking) },
                "the host refused it",
            ),
            case(
                "password that cannot be had",
                Connection { password: Some(SecretSource::Prompt), ..no_file(password) },
                "the password cannot be had",
            ),
            case("key and password", Connection { password: source(PASSWORD), ..at(both) }, "in"),
            case("key and password, none given", at(both), "a key was accepted, the host also wants password"),
            case(
                "key and password, wrong one",
                Connection { password: source("wrong"), ..at(both) },
                "the password; the host allows password",
            ),
            case(
                "password where keys are wanted",
                Connection { password: source(PASSWORD), ..no_file(main) },
                "the host allows publickey",
            ),
            case("nobody listens", at(free_port()), "the connection was refused"),
            case(
                "no such name",
                Connection { address: "no-such-host.invalid".to_owned(), connect_timeout_ms: 3000, ..base.clone() },
                "no",
            ),
            case("only a key exchange with SHA-1", at(old_kex), "no common key exchange"),
            case("only a MAC with SHA-1", at(old_mac), "no common message authentication"),
            case("a key exchange with SHA-1, named for the host", weak(at(old_kex)), "in"),
            case("a MAC with SHA-1, named for the host", weak(at(old_mac)), "in"),
            case(
                "a host key signature that the host does not make",
                Connection {
                    algorithms: Algorithms {
                        host_key_algorithms: vec!["rsa-sha2-512".to_owned()],
                        ..Algorithms::default()
                    },
                    ..at(main)
                },
                "no common host key type",
            ),
            case("dropbear", at(dropbear), "in"),
            case("dropbear, unknown", Connection { port: dropbear, ..unknown.clone() }, "unknown"),
            case("dropbear, wrong key", with(&[&wrong[0]], dropbear), "the login was refused; tried"),
            case("one hop", to(main, &[("bastion", &at(strict))]), "in"),
            case("two hops", to(main, &[("gate", &at(strict)), ("bastion", &with(&[&good], cert))]), "in"),
            case("dropbear as a hop", to(main, &[("bastion", &at(dropbear))]), "in"),
            case("unknown hop", to(main, &[("bastion", &unknown)]), "bastion: unknown"),
            case(
                "second hop has changed",
                to(main, &[("gate", &at(main)), ("bastion", &changed)]),
                "bastion: changed at 1",
            ),
            case(
                "unknown host behind a hop",
                Connection { known_hosts: vec!["/dev/null".into()], ..to(main, &[("bastion", &at(strict))]) },
                "unknown",
            ),
            case(
                "hop that lets nobody through",
                to(main, &[("bastion", &at(unforwarding))]),
                "does not allow connections through it",
            ),
            case(
                "nobody listens behind the hop",
                to(free_port(), &[("bastion", &at(strict))]),
                "could not connect there",
            ),
            case(
                "wrong key for the hop",
                to(main, &[("bastion", &with(&[&wrong[0]], strict))]),
                "bastion: the login was refused",
            ),
            case("a crowd", at(crowded), "all in"),
            case("a crowd behind one hop", to(main, &[("bastion", &at(bastion))]), "all in, one login at the hop"),
        ];
        Self { cases, _agents: vec![full, certificates, rsa_agent, keys_only] }
    }

    pub(super) fn ask<'a>(&'a self, bench: &'a Bench) -> impl Iterator<Item = BoxFuture<'a, Outcome>> {
        self.cases.iter().map(|case| -> BoxFuture<'a, Outcome> { Box::pin(ask(bench, case)) })
    }
}

/// A dropbear with the host's own key.
fn dropbear(bench: &Bench) -> u16 {
    let port = free_port();
    // Before 2025 dropbear reads only PEM and its own format of keys.
    bench.host.sh(&format!(
        "cp /etc/ssh/host_key /run/db && chmod 600 /run/db && dropbearconvert openssh dropbear /run/db /run/db.key 2>/dev/null
         dropbear -E -p 127.0.0.1:{port} -r /run/db.key -P /run/db.pid </dev/null >/dev/null 2>/var/log/dropbear.log"
    ));
    port
}

async fn ask(bench: &Bench, case: &Case) -> Outcome {
    let config = DialerConfig {
        agent_socket: case.agent.clone(),
        passwords: Arc::new(Given),
        ..config(&bench.host, answer(None))
    };
    let dialer = Dialer::new(config);
    let got = if case.expected.starts_with("all in") {
        crowd(bench, &dialer, case).await
    } else {
        match dialer.connect(&case.connection).await {
            Ok(link) => {
                link.close().await;
                "in".to_owned()
            }
            Err(error) => verdict(&error),
        }
    };
    let exact = case.expected == "in" || case.expected.starts_with("all in");
    let fits = if exact { got == case.expected } else { got != "in" && got.contains(case.expected) };
    let got = if fits { case.expected.to_owned() } else { got };
    Outcome { what: format!("login: {}", case.what), expected: case.expected.to_owned(), got }
}

/// Thirty at once, at one server or behind one.
async fn crowd(bench: &Bench, dialer: &Dialer, case: &Case) -> String {
    let hop = case.connection.jump.first().map(|jump| jump.connection.port);
    let logins = |port| {
        bench
            .host
            .sh(&format!("grep -c '^Accepted publickey' /var/log/sshd_{port}.log || :"))
            .trim()
            .parse()
            .unwrap_or(0)
    };
    let before: usize = hop.map_or(0, logins);
    let links = join_all((0..30).map(|_| dialer.connect(&case.connection))).await;
    let errors: Vec<String> = links.iter().filter_map(|link| link.as_ref().err().map(verdict)).collect();
    if !errors.is_empty() {
        return format!("{} of 30 refused: {}", errors.len(), errors[0]);
    }
    match hop {
        None => "all in".to_owned(),
        Some(port) => match logins(port) - before {
            1 => "all in, one login at the hop".to_owned(),
            more => format!("all in, {more} logins at the hop"),
        },
    }
}
