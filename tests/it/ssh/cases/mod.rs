//! SSH and privileges the way operators have them: one table, each case against a real server, each with its verdict.
//!
//! All cases share one throw-away host with several servers on it. Not among them: security keys (`super::touch`; there is no hardware
//! here), and RSA user certificates with the key in a file, which the library sends wrongly (it works from an agent).

mod escalation;
mod known_hosts;
mod logins;

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use keyswap::remote::ssh::known_hosts::CertificateFault;
use keyswap::remote::ssh::{ConnectError, HostKeyProblem, Problem};

use crate::support::real_host::{RealHost, free_port};

/// How many cases are tried at a time.
const AT_ONCE: usize = 4;

/// What one case may take: none is near it.
const MOST: Duration = Duration::from_secs(40);

/// What came of a case.
struct Outcome {
    what: String,
    expected: String,
    got: String,
}

/// The host that all cases share.
struct Bench {
    host: RealHost,
}

impl Bench {
    /// Puts a file of the test's on the host, for root alone.
    fn put(&self, from: &Path, to: &str) {
        std::fs::copy(from, self.host.root().join(to.trim_start_matches('/'))).unwrap();
        self.host.sh(&format!("chmod 600 {to}"));
    }

    /// Starts another sshd on the host, on a free port or at a certain place; these lines win over the usual ones.
    fn sshd(&self, place: Option<(&str, u16)>, lines: &str) -> u16 {
        let (address, port) = place.unwrap_or(("127.0.0.1", 0));
        let port = if port == 0 { free_port() } else { port };
        let file = format!("/etc/ssh/sshd_{port}");
        std::fs::write(self.host.root().join(file.trim_start_matches('/')), format!("{lines}\n")).unwrap();
        self.host.sh(&format!(
            "sed -e '/^Port /d; /^HostKey /d; /^PidFile /d; /^ListenAddress /d' /etc/ssh/sshd_config >>{file}
             grep -q '^HostKey ' {file} || echo 'HostKey /etc/ssh/host_key' >>{file}
             printf 'Port {port}\\nListenAddress {address}\\nPidFile /run/sshd_{port}.pid\\n' >>{file}
             $(command -v sshd) -E /var/log/sshd_{port}.log -f {file}
             until grep -qs 'Server listening' /var/log/sshd_{port}.log; do sleep 0.01; done"
        ));
        port
    }
}

/// A refusal in a few words.
fn verdict(error: &ConnectError) -> String {
    use CertificateFault as C;
    use HostKeyProblem as H;
    let word = match &error.problem {
        Problem::HostKey(problem) => match &**problem {
            H::Unknown { authority: false, .. } => "unknown".to_owned(),
            H::Unknown { authority: true, .. } => "unknown, has authority".to_owned(),
            H::Changed { place, .. } => format!("changed at {}", place.line),
            H::OtherType { place, .. } => format!("other type at {}", place.line),
            H::Revoked { place, .. } => format!("revoked at {}", place.line),
            H::RevokedAuthority { place, .. } => format!("authority revoked at {}", place.line),
            H::NotPinned { .. } => "not pinned".to_owned(),
            H::Certificate { fault, .. } => match fault {
                C::UnknownAuthority(_) => "certificate of a stranger",
                C::NotForHosts => "certificate for users",
                C::OtherNames { .. } => "certificate for others",
                C::NoNames => "certificate for nobody",
                C::NotYet(_) => "certificate not yet valid",
                C::Expired(_) => "certificate expired",
                C::Condition(_) => "certificate with a condition",
                C::Signature => "certificate with a wrong signature",
                C::Sha1 => "certificate with SHA-1",
            }
            .to_owned(),
        },
        Problem::KnownHosts { .. } => "unreadable".to_owned(),
        other => other.to_string(),
    };
    match &error.hop {
        Some(hop) => format!("{hop}: {word}"),
        None => word,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_case_ends_as_written() {
    let bench = Bench { host: RealHost::builder().sshd_option("MaxStartups 200").start() };
    let servers = known_hosts::Servers::start(&bench);
    let logins = logins::Logins::prepare(&bench);
    escalation::prepare(&bench);
    let mut cases: Vec<BoxFuture<'_, Outcome>> = logins.ask(&bench).collect();
    for (n, row) in known_hosts::ROWS.iter().enumerate() {
        cases.push(Box::pin(servers.ask(&bench, n, row)));
    }
    for (n, row) in escalation::ROWS.iter().enumerate() {
        cases.push(Box::pin(escalation::ask(&bench, n, row)));
    }
    // A case that does not end is wrong; the others are still told.
    let cases = cases.into_iter().map(|case| async { tokio::time::timeout(MOST, case).await });
    let outcomes: Vec<_> = stream::iter(cases).buffer_unordered(AT_ONCE).collect().await;
    let endless = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let outcomes: Vec<Outcome> = outcomes.into_iter().filter_map(Result::ok).collect();
    let wrong: Vec<_> = outcomes.iter().filter(|o| o.got != o.expected).collect();
    println!("ssh cases: {}, {} as expected", outcomes.len() + endless, outcomes.len() - wrong.len());
    for outcome in &wrong {
        println!("{}: expected `{}`, got `{}`", outcome.what, outcome.expected, outcome.got);
    }
    assert!(wrong.is_empty() && endless == 0, "{endless} did not end");
}
