//! `ping`: how each host stands, for people and for programs, and the exit code that follows.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::real_host::{RealHost, free_port, keygen};
use crate::support::said::Said;

struct Fleet {
    dir: tempfile::TempDir,
    host: RealHost,
}

impl Fleet {
    fn new() -> Self {
        let (dir, host) = (tempfile::tempdir().unwrap(), RealHost::start());
        let stranger = dir.path().join("stranger");
        keygen(&stranger, "ed25519", "");
        let wrong = fs::read_to_string(stranger.with_extension("pub")).unwrap();
        fs::write(dir.path().join("changed"), format!("[127.0.0.1]:{} {wrong}", host.port())).unwrap();
        // A user who may log in and not become root.
        host.sh("echo 'plain:x:4300:4300::/home/plain:/bin/sh' >>/etc/passwd; echo 'plain:x:4300:' >>/etc/group
             echo 'plain:*:19000:0:99999:7:::' >>/etc/shadow
             mkdir -m 700 /home/plain && cp -R /home/ops/.ssh /home/plain && chown -R plain:plain /home/plain");
        let table = |name: &str, what: &str, instead: &str| {
            let table = host.inventory_host(name);
            let lines = table.lines().map(|line| if line.starts_with(what) { instead } else { line });
            lines.collect::<Vec<_>>().join("\n") + "\n"
        };
        let inventory = [
            table("good", "-", ""),
            table("away", "port", &format!("port = {}", free_port())),
            table("changed", "known_hosts", "known_hosts = \"changed\""),
            table("locked-out", "user", "user = \"nobody\""),
            table("plain", "user", "user = \"plain\""),
            table("nobody-becomes", "become", "become = \"none\""),
        ];
        fs::write(dir.path().join("inv.toml"), inventory.concat()).unwrap();
        Self { dir, host }
    }

    fn ping(&self, limit: &str, output: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        command.env_clear().env("HOME", self.dir.path()).env("USER", "operator").env("PATH", "/usr/bin:/bin");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        Said::of(&mut command, &["--output", output, "ping", "-i", "inv.toml", "-l", limit])
    }

    fn event(&self, host: &str) -> (Option<i32>, Value) {
        let said = self.ping(host, "jsonl");
        assert_eq!(said.events.len(), 1, "{}", said.all());
        (said.code, said.events[0].clone())
    }
}

#[test]
fn each_host_is_told_and_the_worst_gives_the_code() {
    let fleet = Fleet::new();
    for (host, code, status, reason) in [
        ("good", 0, "ok", Value::Null),
        ("nobody-becomes", 0, "ok", Value::Null),
        ("away", 4, "unreachable", "network".into()),
        ("changed", 4, "unreachable", "host-key".into()),
        ("locked-out", 4, "unreachable", "login".into()),
        ("plain", 4, "unreachable", "escalation".into()),
    ] {
        let (got, event) = fleet.event(host);
        assert_eq!((got, &event["status"], &event["reason"]), (Some(code), &status.into(), &reason), "{host}: {event}");
        assert_eq!((event["event"].as_str(), event["host"].as_str()), (Some("ping"), Some(host)));
        assert_eq!(event["message"].is_string(), code == 4, "{event}");
    }
    let (_, good) = fleet.event("good");
    assert_eq!(
        (good["uid"].as_u64(), good["login"].as_str(), &good["missing"]),
        (Some(0), Some("ops"), &Value::Array(Vec::new()))
    );
    let (_, refused) = fleet.event("plain");
    assert!(refused["hint"].as_str().unwrap().contains("NOPASSWD: /bin/sh"), "{refused}");

    // Of programs some are gone: their files are covered in the host's own view of /usr.
    fleet.host.sh("for tool in sha256sum df find docker podman; do path=$(command -v $tool) && mount --bind /dev/null $(readlink -f $path) || :; done
         rm -f /etc/os-release; printf 'PRETTY_NAME=\"Alpine Linux v3.20\"\\n' >/etc/os-release");
    let (code, lacking) = fleet.event("good");
    assert_eq!((code, lacking["status"].as_str()), (Some(2), Some("failed")), "{lacking}");
    let tools = |key: &str| -> Vec<String> {
        let all = lacking[key].as_array().unwrap().iter();
        all.map(|lack| format!("{} by {}", lack["tool"].as_str().unwrap(), lack["install"].as_str().unwrap())).collect()
    };
    assert_eq!(tools("missing"), ["sha256sum by apk add coreutils", "df by apk add coreutils"]);
    assert!(tools("missing_for_docker").contains(&"docker by apk add docker-cli".to_owned()), "{lacking}");
    assert!(tools("nice_to_have").contains(&"find by apk add findutils".to_owned()), "{lacking}");

    let said = fleet.ping("good", "human");
    assert_eq!(said.code, Some(2), "{}", said.all());
    for line in [
        "good: lacks sha256sum, df: apk add coreutils",
        "good: for runners in containers: no docker, so no restart of a container, and no waiting for its jobs: apk add docker-cli",
        "good: no find, so no `audit --search`: apk add findutils",
    ] {
        assert!(said.stdout.lines().any(|told| told == line), "{line}\n{}", said.all());
    }
    // A host that will not do outweighs one that is away.
    assert_eq!(fleet.ping("good,away", "human").code, Some(2));
}
