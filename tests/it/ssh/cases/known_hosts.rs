//! Whose key is trusted: each case is put to keyswap and to OpenSSH's own client, and both verdicts must be as written.
//!
//! In a file `$P` stands for the server's port, `$ED`, `$EC`, `$RSA` for its keys, `$X`, `$XEC` for a stranger's, `$CA`, `$ECCA`,
//! `$NOCA` for authorities (the last signed nothing), `@hash` first for a file that `ssh-keygen -H` went over, `--` alone on
//! a line for the beginning of the next file, `--global` for that of the machine's own file, `ü` for one byte that is no UTF-8,
//! `$LONG` for a text that is longer than any line should be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use camino::Utf8PathBuf;
use keyswap::model::Connection;
use keyswap::remote::ssh::{Dialer, DialerConfig};

use super::{Bench, Outcome, verdict};
use crate::ssh::{answer, config, connection, read, utf8};
use crate::support::real_host::keygen;

/// What a case compares with.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Openssh {
    /// OpenSSH lets in exactly where keyswap does.
    Agrees,
    /// OpenSSH lets in where keyswap refuses, on purpose.
    LetsIn,
}
use Openssh::{Agrees, LetsIn};

pub(super) struct Row {
    pub(super) what: &'static str,
    server: &'static str,
    address: &'static str,
    files: &'static str,
    expected: &'static str,
    openssh: Openssh,
}

const fn row(
    what: &'static str,
    server: &'static str,
    address: &'static str,
    files: &'static str,
    expected: &'static str,
) -> Row {
    Row { what, server, address, files, expected, openssh: Agrees }
}

const IP: &str = "127.0.0.1";

pub(super) const ROWS: &[Row] = &[
    row("no file", "ed", IP, "", "unknown"),
    row("its key", "ed", IP, "[127.0.0.1]:$P $ED", "in"),
    row("comment, blank line, then its key", "ed", IP, "# mine\n\n[127.0.0.1]:$P $ED root@h1", "in"),
    row("another host's line", "ed", IP, "[127.0.0.2]:$P $ED", "unknown"),
    row("another port's line", "ed", IP, "[127.0.0.1]:1 $ED", "unknown"),
    row("line without port", "ed", IP, "127.0.0.1 $ED", "in"),
    row("line without port, another key", "ed", IP, "127.0.0.1 $X", "unknown"),
    row("line with port beats line without", "ed", IP, "127.0.0.1 $ED\n[127.0.0.1]:$P $X", "changed at 2"),
    row("port 22", "port 22", "127.77.22.22", "127.77.22.22 $ED", "in"),
    row("port 22 written out", "port 22", "127.77.22.22", "[127.77.22.22]:22 $ED", "unknown"),
    row("another key", "ed", IP, "#\n[127.0.0.1]:$P $X", "changed at 2"),
    row("another key type only", "ed", IP, "[127.0.0.1]:$P $XEC", "other type at 1"),
    row("old key, then its key", "ed", IP, "[127.0.0.1]:$P $X\n[127.0.0.1]:$P $ED", "in"),
    row("the second type is the recorded one", "all", IP, "[127.0.0.1]:$P $EC", "in"),
    row("the third type is the recorded one", "all", IP, "[127.0.0.1]:$P $RSA", "in"),
    row("one of two types has changed", "all", IP, "[127.0.0.1]:$P $X\n[127.0.0.1]:$P $EC", "changed at 1"),
    row("name", "ed", "localhost", "[localhost]:$P $ED", "in"),
    row("letter case of the file", "ed", "localhost", "[LocalHost]:$P $ED", "in"),
    row("letter case of the inventory", "ed", "LOCALHOST", "[localhost]:$P $ED", "in"),
    row("list of names", "ed", "localhost", "h1,[127.0.0.1]:$P,[localhost]:$P $ED", "in"),
    row("star", "ed", "localhost", "[local*]:$P $ED", "in"),
    row("star for the port too", "ed", "localhost", "*host* $ED", "in"),
    row("question marks", "ed", "localhost", "[l?cal????]:$P $ED", "in"),
    row("one question mark too many", "ed", "localhost", "[l?cal?????]:$P $ED", "unknown"),
    row("negation first", "ed", "localhost", "![localhost]:$P,* $ED", "in"),
    row("both names negated", "ed", "localhost", "![localhost]:$P,!localhost,* $ED", "unknown"),
    row("negation of another", "ed", "localhost", "!h1,* $ED", "in"),
    row("negation alone", "ed", "localhost", "!h1 $ED", "unknown"),
    row("hashed", "ed", "localhost", "@hash\n[localhost]:$P $ED", "in"),
    row("hashed, another key", "ed", "localhost", "@hash\n[localhost]:$P $X", "changed at 1"),
    row("hashed, another host", "ed", "localhost", "@hash\n[elsewhere]:$P $ED", "unknown"),
    row("tabs and leading blanks", "ed", IP, " \t[127.0.0.1]:$P\t\t$ED", "in"),
    row("unknown marker", "ed", IP, "@trusted * $ED", "unknown"),
    row("unreadable lines before", "ed", IP, "garbage\n* ssh-ed25519 AAAA*\n* ssh-new AAAA\n[127.0.0.1]:$P $ED", "in"),
    row("type and key differ", "ed", IP, "[127.0.0.1]:$P ssh-rsa $ED", "unknown"),
    row("second file", "ed", IP, "[127.0.0.2]:$P $X\n--\n[127.0.0.1]:$P $ED", "in"),
    row("revoked in the second file", "ed", IP, "[127.0.0.1]:$P $ED\n--\n@revoked * $ED", "revoked at 1"),
    row("revoked before", "ed", IP, "@revoked [127.0.0.1]:$P $ED\n[127.0.0.1]:$P $ED", "revoked at 1"),
    row("revoked, comment in Latin-1", "ed", IP, "@revoked * $ED Müller\n[127.0.0.1]:$P $ED", "revoked at 1"),
    row("revoked, long comment", "ed", IP, "@revoked * $ED $LONG\n[127.0.0.1]:$P $ED", "revoked at 1"),
    row("revoked, Latin-1 among the names", "ed", IP, "@revoked ü,* $ED\n[127.0.0.1]:$P $ED", "revoked at 1"),
    row("its key, comment in Latin-1", "ed", IP, "[127.0.0.1]:$P $ED Müller", "in"),
    row("its key, long comment", "ed", IP, "[127.0.0.1]:$P $ED $LONG", "in"),
    Row {
        openssh: LetsIn,
        ..row("revoked, damaged key", "ed", IP, "@revoked * ssh-ed25519 AAAA*\n[127.0.0.1]:$P $ED", "unreadable")
    },
    Row { openssh: LetsIn, ..row("revoked, no key", "ed", IP, "[127.0.0.1]:$P $ED\n@revoked *", "unreadable") },
    row("global file", "ed", IP, "\n--global\n[127.0.0.1]:$P $ED", "in"),
    row("global file, another key", "ed", IP, "[127.0.0.2]:$P $ED\n--global\n[127.0.0.1]:$P $X", "changed at 1"),
    row("global file, besides the own one", "ed", IP, "[127.0.0.1]:$P $X\n--global\n[127.0.0.1]:$P $ED", "in"),
    row("revoked in the global file", "ed", IP, "[127.0.0.1]:$P $ED\n--global\n@revoked * $ED", "revoked at 1"),
    row("authority in the global file", "cert", "localhost", "\n--global\n@cert-authority * $CA", "in"),
    row("revoked for another host", "ed", IP, "@revoked h1 $ED\n[127.0.0.1]:$P $ED", "in"),
    row("the old key is revoked", "ed", IP, "@revoked * $X\n[127.0.0.1]:$P $ED", "in"),
    row("an authority is no plain key", "ed", IP, "@cert-authority * $ED", "unknown, has authority"),
    row("certificate", "cert", "localhost", "@cert-authority * $CA", "in"),
    row("certificate, authority for the name and port", "cert", IP, "@cert-authority [127.0.0.1]:$P $CA", "in"),
    row("certificate, authority for the bare name", "cert", "localhost", "@cert-authority local* $CA", "in"),
    row("certificate, hashed authority line", "cert", "localhost", "@hash\n@cert-authority [localhost]:$P $CA", "in"),
    row(
        "certificate, second of two authorities",
        "cert",
        "localhost",
        "@cert-authority * $NOCA\n@cert-authority * $CA",
        "in",
    ),
    row("certificate, authority of others", "cert", "localhost", "@cert-authority *.example.net $CA", "unknown"),
    row("certificate, negated authority", "cert", "localhost", "@cert-authority !*localhost*,* $CA", "unknown"),
    row("certificate, another authority", "cert", "localhost", "@cert-authority * $NOCA", "certificate of a stranger"),
    row(
        "certificate of a stranger, key recorded",
        "cert",
        "localhost",
        "@cert-authority * $NOCA\n[localhost]:$P $ED",
        "in",
    ),
    row("certificate, the authority as a plain key", "cert", "localhost", "[localhost]:$P $CA", "changed at 1"),
    row(
        "certificate, revoked authority",
        "cert",
        "localhost",
        "@cert-authority * $CA\n@revoked * $CA",
        "authority revoked at 2",
    ),
    row("certificate, revoked key", "cert", "localhost", "@cert-authority * $CA\n@revoked * $ED", "revoked at 2"),
    row(
        "certificate, authority revoked, key recorded",
        "cert",
        "localhost",
        "@revoked * $CA\n@cert-authority * $CA\n[localhost]:$P $ED",
        "authority revoked at 1",
    ),
    row("certificate for another name", "cert name", "localhost", "@cert-authority * $CA", "certificate for others"),
    row(
        "certificate for another name, key recorded",
        "cert name",
        "localhost",
        "@cert-authority * $CA\n[localhost]:$P $ED",
        "in",
    ),
    row(
        "certificate for another name, other key recorded",
        "cert name",
        "localhost",
        "@cert-authority * $CA\n[localhost]:$P $X",
        "changed at 2",
    ),
    row("certificate, expired", "cert old", "localhost", "@cert-authority * $CA", "certificate expired"),
    row("certificate, not yet valid", "cert young", "localhost", "@cert-authority * $CA", "certificate not yet valid"),
    row("certificate for users", "cert user", "localhost", "@cert-authority * $CA", "certificate for users"),
    row(
        "certificate with a condition",
        "cert condition",
        "localhost",
        "@cert-authority * $CA",
        "certificate with a condition",
    ),
    Row {
        openssh: LetsIn,
        ..row(
            "certificate without names",
            "cert nobody",
            "localhost",
            "@cert-authority * $CA",
            "certificate for nobody",
        )
    },
    row("certificate signed by an ECDSA key", "cert ecdsa", "localhost", "@cert-authority * $ECCA", "in"),
    row("certificate for an RSA key", "cert rsa", "localhost", "@cert-authority * $CA", "in"),
    row("alias", "cert name", IP, "@alias elsewhere\n@cert-authority elsewhere $CA", "in"),
    row("alias without port", "ed", IP, "@alias Elsewhere\nelsewhere $ED", "in"),
    row("alias, line for the address", "ed", IP, "@alias elsewhere\n[127.0.0.1]:$P $ED", "unknown"),
];

/// The servers, and what a file may name.
pub(super) struct Servers {
    ports: HashMap<&'static str, u16>,
    keys: HashMap<&'static str, String>,
}

/// What `ssh-keygen -s` is told for a server's certificate, by the server's name.
const CERTIFICATES: &[(&str, &str, &str, &[&str])] = &[
    ("cert", "ed", "ca", &["-h", "-n", "localhost,127.0.0.1"]),
    ("cert name", "ed", "ca", &["-h", "-n", "elsewhere,local"]),
    ("cert old", "ed", "ca", &["-h", "-n", "localhost", "-V", "20200101:20200201"]),
    ("cert young", "ed", "ca", &["-h", "-n", "localhost", "-V", "20900101:20900201"]),
    ("cert user", "ed", "ca", &["-n", "localhost"]),
    ("cert condition", "ed", "ca", &["-h", "-n", "localhost", "-O", "critical:only-on-sundays@example.net"]),
    ("cert nobody", "ed", "ca", &["-h"]),
    ("cert ecdsa", "ed", "ecca", &["-h", "-n", "localhost"]),
    ("cert rsa", "rsa", "ca", &["-h", "-n", "localhost"]),
];

impl Servers {
    /// Starts them all on the bench's host.
    pub(super) fn start(bench: &Bench) -> Self {
        let dir = bench.host.scratch().join("hostkeys");
        std::fs::create_dir(&dir).unwrap();
        for (name, kind) in [
            ("ed", "ed25519"),
            ("ec", "ecdsa"),
            ("rsa", "rsa"),
            ("x", "ed25519"),
            ("xec", "ecdsa"),
            ("ca", "ed25519"),
            ("ecca", "ecdsa"),
            ("noca", "ed25519"),
        ] {
            keygen(&dir.join(name), kind, "");
        }
        let keys = [
            ("$XEC", "xec"),
            ("$ED", "ed"),
            ("$ECCA", "ecca"),
            ("$EC", "ec"),
            ("$RSA", "rsa"),
            ("$X", "x"),
            ("$CA", "ca"),
            ("$NOCA", "noca"),
        ]
        .map(|(token, name)| {
            let line = read(&dir.join(name).with_extension("pub"));
            (token, line.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned())
        });
        for name in ["ed", "ec", "rsa"] {
            bench.put(&dir.join(name), &format!("/etc/ssh/key_{name}"));
        }
        let mut ports = HashMap::from([
            ("ed", bench.sshd(None, "HostKey /etc/ssh/key_ed")),
            ("all", bench.sshd(None, "HostKey /etc/ssh/key_ed\nHostKey /etc/ssh/key_ec\nHostKey /etc/ssh/key_rsa")),
            ("port 22", bench.sshd(Some(("127.77.22.22", 22)), "HostKey /etc/ssh/key_ed")),
        ]);
        for (n, (server, key, authority, options)) in CERTIFICATES.iter().enumerate() {
            let public = dir.join(format!("key{n}.pub"));
            std::fs::copy(dir.join(key).with_extension("pub"), &public).unwrap();
            let signed = Command::new("ssh-keygen")
                .args(["-q", "-I", "test", "-s"])
                .arg(dir.join(authority))
                .args(*options)
                .arg(&public)
                .output()
                .unwrap();
            assert!(signed.status.success(), "{server}: {}", String::from_utf8_lossy(&signed.stderr));
            bench.put(&dir.join(format!("key{n}-cert.pub")), &format!("/etc/ssh/cert{n}.pub"));
            ports.insert(
                server,
                bench.sshd(None, &format!("HostKey /etc/ssh/key_{key}\nHostCertificate /etc/ssh/cert{n}.pub")),
            );
        }
        Self { ports, keys: HashMap::from(keys) }
    }

    /// Both verdicts on one case.
    pub(super) async fn ask(&self, bench: &Bench, number: usize, row: &Row) -> Outcome {
        let port = self.ports[row.server];
        let (files, global, alias) = self.write(bench, number, row, port);
        let connection = Connection {
            address: row.address.to_owned(),
            port,
            known_hosts: files.iter().map(utf8).collect::<Vec<Utf8PathBuf>>(),
            host_key_alias: alias.clone(),
            ..connection(&bench.host)
        };
        let dialer = Dialer::new(DialerConfig {
            global_known_hosts: global.iter().map(utf8).collect(),
            ..config(&bench.host, answer(None))
        });
        let got = match dialer.connect(&connection).await {
            Ok(link) => {
                link.close().await;
                "in".to_owned()
            }
            Err(error) => verdict(&error),
        };
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "UpdateHostKeys=no", "-o"])
            .arg(format!("GlobalKnownHostsFile={}", global.as_deref().unwrap_or(Path::new("/dev/null")).display()))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", names.join(" ")))
            .args(alias.iter().flat_map(|alias| ["-o".to_owned(), format!("HostKeyAlias={alias}")]))
            .arg("-i")
            .arg(bench.host.identity())
            .args(["-p", &port.to_string(), "-l", "ops", row.address, "true"])
            .stdin(Stdio::null());
        let said = ssh.output().await.expect("ssh can be run");
        let openssh = said.status.success();
        let wanted = row.expected == "in" || row.openssh == LetsIn;
        let got = if openssh == wanted {
            got
        } else {
            let said = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            format!("{got}, but OpenSSH {} ({said})", if openssh { "lets in" } else { "refuses" })
        };
        Outcome { what: format!("known_hosts: {}", row.what), expected: row.expected.to_owned(), got }
    }

    /// The operator's files, the machine's, and the alias.
    fn write(
        &self,
        bench: &Bench,
        number: usize,
        row: &Row,
        port: u16,
    ) -> (Vec<PathBuf>, Option<PathBuf>, Option<String>) {
        let mut text = row.files.replace("$P", &port.to_string());
        // Longer names first, since one may begin another.
        let mut tokens: Vec<_> = self.keys.iter().collect();
        tokens.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        for (token, key) in tokens {
            text = text.replace(token, key);
        }
        let mut alias = None;
        if let Some(rest) = text.strip_prefix("@alias ") {
            let (name, rest) = rest.split_once('\n').unwrap();
            (alias, text) = (Some(name.to_owned()), rest.to_owned());
        }
        let hash = text.strip_prefix("@hash\n").map(str::to_owned);
        let text = hash.as_ref().unwrap_or(&text);
        // `ssh-keygen -H` leaves lines with a marker alone, so that one is put back afterwards.
        let (marker, text) = match text.split_once(' ') {
            Some((marker, rest)) if hash.is_some() && marker.starts_with('@') => (format!("{marker} "), rest),
            _ => (String::new(), text.as_str()),
        };
        let write = |name: String, content: &str| {
            let file = bench.host.scratch().join(name);
            let content = format!("{}\n", content.replace("$LONG", &"x".repeat(70_000)));
            let bytes = content.chars().flat_map(|c| match c {
                'ü' => vec![0xfc],
                c => c.to_string().into_bytes(),
            });
            std::fs::write(&file, bytes.collect::<Vec<u8>>()).unwrap();
            file
        };
        let (text, global) = match text.split_once("\n--global\n") {
            Some((own, global)) => (own, Some(write(format!("kh-{number}-global"), global))),
            None => (text, None),
        };
        let files = text.split("\n--\n").enumerate();
        let files: Vec<_> = files.map(|(n, content)| write(format!("kh-{number}-{n}"), content)).collect();
        if hash.is_some() {
            let hashed = Command::new("ssh-keygen").args(["-H", "-f"]).arg(&files[0]).output().unwrap();
            let text = read(&files[0]);
            assert!(hashed.status.success() && text.starts_with("|1|"), "{text}");
            std::fs::write(&files[0], format!("{marker}{text}")).unwrap();
        }
        (files, global, alias)
    }
}
