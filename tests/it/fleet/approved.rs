//! Plans as files, and who must sign them before they run. What OpenSSH's own tool says of a signature is asked each time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keyswap::approval::AllowedSigners;
use keyswap::remote::ssh::SignerKey;

use super::bench::{Fleet, Playbook};
use crate::support::real_host::keygen;
use crate::support::runner_host::{AtWork, Said};
use crate::support::wait_until;

/// Hosts whose inventory demands approvals, and people with keys.
struct Desk {
    fleet: Fleet,
}

impl Desk {
    /// `policy` stands in `[approval]`; alice and bob may sign, mallory has a key and may not.
    fn start(hosts: usize, policy: &str) -> Self {
        let fleet = Fleet::start(hosts, &[]);
        let desk = Self { fleet };
        for name in ["alice", "bob", "mallory"] {
            keygen(&desk.path(name), "ed25519", "");
        }
        desk.allow(&format!("{}{}", desk.line("alice", "alice"), desk.line("bob", "bob")));
        let inventory = desk.read("inventory.toml");
        desk.write("inventory.toml", &format!("{inventory}\n[approval]\n{policy}\nallowed_signers = \"allowed\"\n"));
        desk.fleet.write(&Playbook::new(""));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.sandbox().dir().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `OPTIONS KEY` of a person, as a line of `allowed_signers`.
    fn line(&self, principal: &str, key: &str) -> String {
        let public = self.read(&format!("{key}.pub"));
        format!("{principal} {}\n", public.split(' ').take(2).collect::<Vec<_>>().join(" ").trim())
    }

    fn allow(&self, lines: &str) {
        self.write("allowed", lines);
    }

    #[track_caller]
    fn plan(&self, out: &str) -> Said {
        let said = self.fleet.say(&["plan", "fleet.toml", "-i", "inventory.toml", "--out", out]);
        assert_eq!((said.code, &said.last()["exit_code"]), (Some(0), &0.into()), "{}", said.all());
        said
    }

    #[track_caller]
    fn approve(&self, plan: &str, signer: &str, key: &str) {
        let said = self.fleet.say(&["approve", plan, "--signer", signer, "--key", key, "--comment", "looks right"]);
        assert_eq!(said.code, Some(0), "{}", said.all());
    }

    fn follow(&self, plan: &str) -> Said {
        self.fleet.say(&["run", "--plan", plan, "--yes"])
    }

    /// The plan does not run, for this reason, and no host was touched.
    #[track_caller]
    fn refuses(&self, plan: &str, why: &str) {
        let said = self.follow(plan);
        assert_eq!(said.code, Some(7), "{}", said.all());
        assert!(said.all().contains(why), "{why}: {}", said.all());
        self.fleet.assert(&"U".repeat(self.fleet.before.len()), &said);
        assert!(
            !self.path("controller/plans").exists()
                || fs::read_dir(self.path("controller/plans")).unwrap().count() == 0
        );
    }

    /// What OpenSSH's tool says of a signature, by a file of allowed signers.
    fn openssh(&self, plan: &str, signer: &str, allowed: &str) -> bool {
        let statement = format!("{plan}.{signer}.approval");
        let mut tool = Command::new("ssh-keygen");
        tool.args(["-Y", "verify", "-n", "keyswap", "-I", signer, "-f"]).arg(self.path(allowed));
        tool.arg("-s").arg(self.path(&format!("{statement}.sig"))).current_dir(self.fleet.sandbox().dir());
        tool.stdin(fs::File::open(self.path(&statement)).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        tool.status().expect("ssh-keygen can be run").success()
    }
}

/// Who is refused gets each command on its own line, with what was selected.
#[test]
fn a_refusal_prints_commands_that_do_the_same() {
    let desk = Desk::start(2, "required = 1");
    fs::rename(desk.path("fleet.toml"), desk.path("the fleet.toml")).unwrap();
    let selection = ["-l", "runner-1,!runner-2", "-e", "a=b c", "-u", "some body", "--skip-unreachable"];
    let args = [&["run", "the fleet.toml", "-i", "inventory.toml", "--yes"], &selection[..]].concat();
    let refused = desk.fleet.say(&args);
    assert_eq!(refused.code, Some(7), "{}", refused.all());
    let lines: Vec<&str> = refused.stderr.lines().skip(1).collect();
    let state = "--state-dir controller";
    assert_eq!(
        lines,
        [
            &format!(
                "  keyswap plan 'the fleet.toml' -i inventory.toml -l 'runner-1,!runner-2' -e 'a=b c' -u 'some body' \
                 --skip-unreachable --out FILE {state}"
            ),
            "  keyswap approve FILE --signer NAME",
            &format!("  keyswap run --plan FILE {state}"),
        ],
        "{}",
        refused.all()
    );
    let planned = desk.fleet.say(&["plan", "the fleet.toml", "-i", "inventory.toml", "--out", "a plan"]);
    assert_eq!(planned.code, Some(0), "{}", planned.all());
    assert!(planned.stdout.contains(&format!("keyswap run --plan 'a plan' {state}")), "{}", planned.all());
    let unsigned = desk.fleet.say(&["run", "--plan", "a plan", "--yes"]);
    assert_eq!(unsigned.code, Some(7), "{}", unsigned.all());
    let leads_on =
        unsigned.stderr.lines().any(|line| line == "  to approve it: keyswap approve 'a plan' --signer NAME");
    assert!(leads_on, "{}", unsigned.all());
}

#[test]
fn a_plan_that_was_approved_runs_once_and_the_way_back_never_asks() {
    let desk = Desk::start(2, "required = 1");
    let plain = desk.fleet.say(&["run", "fleet.toml", "-i", "inventory.toml", "--yes"]);
    assert_eq!(plain.code, Some(7), "{}", plain.all());
    for leads_on in ["keyswap plan fleet.toml -i inventory.toml --out", "keyswap approve", "keyswap run --plan"] {
        assert!(plain.stderr.contains(leads_on), "{leads_on}: {}", plain.all());
    }
    let check = desk.fleet.say(&["run", "fleet.toml", "-i", "inventory.toml", "--check"]);
    assert_eq!(check.code, Some(10), "{}", check.all());

    let planned = desk.plan("plan.json");
    desk.fleet.assert("UU", &planned);
    let text = desk.read("plan.json");
    assert_eq!(fs::metadata(desk.path("plan.json")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains(desk.read("new-token").trim()), "a plan holds no secret");
    assert!(text.contains(&desk.fleet.sandbox().new_token().short()), "it says which one it means");
    assert!(!text.contains(desk.fleet.sandbox().new_token().hex()), "no more of it than people see");
    desk.refuses("plan.json", "it needs the approval of 1 signer, and has 0");

    desk.approve("plan.json", "alice", "alice");
    assert!(desk.openssh("plan.json", "alice", "allowed"));
    let check = desk.fleet.say(&["run", "--plan", "plan.json", "--check"]);
    assert_eq!(check.code, Some(10), "{}", check.all());
    desk.fleet.assert("UU", &check);
    let ran = desk.follow("plan.json");
    ran.assert(0, "succeeded", "changed");
    desk.fleet.assert("NN", &ran);
    let shown = ran.events.iter().find(|event| event["event"] == "approval").expect("who approved it is said");
    assert_eq!((&shown["signer"], &shown["comment"]), (&"alice".into(), &"looks right".into()));

    // The journal keeps enough to look at the signature again.
    let run = ran.last()["run"].as_str().unwrap();
    let journal = desk.read(&format!("controller/runs/{run}/journal.jsonl"));
    let record = journal.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let record = record.into_iter().find_map(|line| find(&line, "approvals").cloned()).expect("a proof");
    let proof = &record[0];
    desk.write("kept.alice.approval", proof["statement"].as_str().unwrap());
    desk.write("kept.alice.approval.sig", proof["signature"].as_str().unwrap());
    assert!(desk.openssh("kept", "alice", "allowed"));
    assert!(proof["key"].as_str().unwrap().starts_with("SHA256:"), "{proof}");
    assert_eq!(desk.read(&format!("controller/runs/{run}/approved-plan.json")), text);
    let runs = Said::of(&mut desk.fleet.keyswap("plain"), &["runs", run]);
    assert!(runs.stdout.contains("approved by `alice` (SHA256:"), "{}", runs.all());

    let back = desk.fleet.say(&["rollback"]);
    back.assert(0, "rolled-back", "rolled-back");
    desk.fleet.assert("OO", &back);
    // The hosts stand as they stood when it was made.
    let again = desk.follow("plan.json");
    assert_eq!(again.code, Some(7), "{}", again.all());
    assert!(again.stderr.contains("a plan runs once"), "{}", again.all());
    fs::remove_dir_all(desk.path("controller/plans")).unwrap();
    let again = desk.follow("plan.json");
    assert_eq!(again.code, Some(7), "by the journal: {}", again.all());
    desk.fleet.assert("OO", &again);
}

fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        _ => None,
    }
}

#[test]
fn an_approval_that_is_not_one_counts_as_none() {
    let desk = Desk::start(1, "required = 1\nvalid = \"2h\"");
    desk.plan("plan.json");
    let (statement, signature) = ("plan.json.alice.approval", "plan.json.alice.approval.sig");
    let clear = || {
        for entry in fs::read_dir(desk.fleet.sandbox().dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".approval") {
                fs::remove_file(path).unwrap();
            }
        }
    };

    // Without its signature, and with one that is none.
    desk.approve("plan.json", "alice", "alice");
    let good = (desk.read(statement), desk.read(signature));
    fs::remove_file(desk.path(signature)).unwrap();
    desk.refuses("plan.json", "its signature is missing");
    desk.write(signature, "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n");
    desk.refuses("plan.json", "no OpenSSH signature");
    assert!(!desk.openssh("plan.json", "alice", "allowed"));
    desk.write(signature, &good.1);

    // One character of what was signed.
    desk.write(statement, &good.0.replace("looks right", "looks Right"));
    desk.refuses("plan.json", "not a signature over this text");
    assert!(!desk.openssh("plan.json", "alice", "allowed"));

    // Somebody else's key under alice's name; somebody who may not sign at all; a name that is not the file's.
    desk.approve("plan.json", "alice", "mallory");
    desk.refuses("plan.json", "does not allow SHA256:");
    assert!(!desk.openssh("plan.json", "alice", "allowed"));
    clear();
    desk.approve("plan.json", "mallory", "mallory");
    desk.refuses("plan.json", "to sign as `mallory`");
    assert!(!desk.openssh("plan.json", "mallory", "allowed"));
    clear();
    desk.write("plan.json.bob.approval", &good.0);
    desk.write("plan.json.bob.approval.sig", &good.1);
    desk.refuses("plan.json", "it is signed by `alice`");
    clear();

    // A good signature for another plan: of the very same files and hosts.
    desk.plan("other.json");
    desk.approve("other.json", "alice", "alice");
    fs::copy(desk.path("other.json.alice.approval"), desk.path(statement)).unwrap();
    fs::copy(desk.path("other.json.alice.approval.sig"), desk.path(signature)).unwrap();
    assert!(desk.openssh("plan.json", "alice", "allowed"), "OpenSSH knows no plans");
    desk.refuses("plan.json", "it is for another plan");
    clear();

    // For another namespace, made by OpenSSH's own tool.
    desk.write(statement, &good.0);
    let sign = |namespace: &str| {
        let mut tool = Command::new("ssh-keygen");
        tool.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(desk.path("alice"));
        let signed = tool.stdin(fs::File::open(desk.path(statement)).unwrap()).output().unwrap();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        fs::write(desk.path(signature), signed.stdout).unwrap();
    };
    sign("file");
    desk.refuses("plan.json", "it was made for `file`, not for `keyswap`");
    assert!(!desk.openssh("plan.json", "alice", "allowed"));

    // What the book says of the key: for what, when, and that it is an authority's.
    sign("keyswap");
    let key = desk.line("", "alice");
    for (options, why) in [
        ("namespaces=\"git,file\"", "for other namespaces"),
        ("valid-after=\"20990101\"", "only later"),
        ("valid-before=\"20200101Z\"", "not allow this key any more"),
        ("cert-authority", "certificate authority"),
        ("no-such-option", "does not allow"),
    ] {
        desk.allow(&format!("alice {options}{key}"));
        desk.refuses("plan.json", why);
        assert!(!desk.openssh("plan.json", "alice", "allowed"), "{options}");
    }
    fs::remove_file(desk.path("allowed")).unwrap();
    desk.refuses("plan.json", "cannot be read");

    // It holds for longer than the policy allows.
    desk.allow(&format!("alice{key}"));
    let late = good.0.replace("\"expires\": \"20", "\"expires\": \"21");
    assert_ne!(late, good.0);
    desk.write(statement, &late);
    sign("keyswap");
    desk.refuses("plan.json", "holds for longer than the policy allows");

    // The plan itself: one character of it, and one that says it was not altered.
    desk.write(statement, &good.0);
    sign("keyswap");
    let plan = desk.read("plan.json");
    let altered = plan.replacen("\"max_failures\": 0", "\"max_failures\": 9", 1);
    assert_ne!(plan, altered);
    desk.write("plan.json", &altered);
    desk.refuses("plan.json", "was altered");
    let said = desk.fleet.say(&["approve", "plan.json", "--signer", "alice", "--key", "alice"]);
    assert_eq!(said.code, Some(7), "nobody signs it: {}", said.all());
    desk.write("plan.json", &plan.replacen("sha256:", "sha256:0", 1));
    desk.refuses("plan.json", "was altered");
    desk.write("plan.json", "{}");
    desk.refuses("plan.json", "is no plan");

    // With everything as it should be, signed by OpenSSH's tool, it runs: each of these was the reason.
    desk.write("plan.json", &plan);
    desk.allow(&format!("\"al*,!alfred\" namespaces=\"keyswap,git\",valid-after=\"20200101\"{key}"));
    assert!(desk.openssh("plan.json", "alice", "allowed"));
    desk.follow("plan.json").assert(0, "succeeded", "changed");
}

#[test]
fn an_approval_runs_out() {
    let desk = Desk::start(1, "required = 1\nvalid = \"2s\"");
    desk.plan("plan.json");
    desk.approve("plan.json", "alice", "alice");
    wait_until("it has run out", || {
        let check = desk.fleet.say(&["run", "--plan", "plan.json", "--check"]);
        assert!(matches!(check.code, Some(7 | 10)), "{}", check.all());
        check.code == Some(7)
    });
    assert!(desk.openssh("plan.json", "alice", "allowed"), "OpenSSH knows no end");
    desk.refuses("plan.json", "expired at");
    // The same signer may say so again.
    desk.approve("plan.json", "alice", "alice");
    desk.follow("plan.json").assert(0, "succeeded", "changed");
}

#[test]
fn two_signers_are_two_people() {
    let desk = Desk::start(1, "required = 2");
    desk.allow(&format!("{}{}", desk.line("alice,carol", "alice"), desk.line("bob", "bob")));
    desk.plan("plan.json");
    desk.approve("plan.json", "alice", "alice");
    desk.refuses("plan.json", "it needs the approval of 2 different signers, and has 1");
    desk.approve("plan.json", "carol", "alice");
    assert!(desk.openssh("plan.json", "carol", "allowed"));
    desk.refuses("plan.json", "with another signer's key");
    desk.approve("plan.json", "bob", "bob");
    desk.follow("plan.json").assert(0, "succeeded", "changed");
}

#[test]
fn a_plan_is_for_what_it_was_made_from() {
    let desk = Desk::start(2, "required = 1");
    desk.plan("plan.json");
    desk.approve("plan.json", "alice", "alice");
    let changed = |name: &str, change: &dyn Fn(String) -> String, why: &str| {
        let before = desk.read(name);
        desk.write(name, &change(before.clone()));
        let said = desk.follow("plan.json");
        assert_eq!(said.code, Some(7), "{name}: {}", said.all());
        assert!(said.all().contains(why), "{why}: {}", said.all());
        desk.write(name, &before);
        desk.fleet.assert("UU", &said);
    };
    let comment = |text: String| format!("# one more line\n{text}");
    changed("inventory.toml", &comment, "the inventory");
    changed("fleet.toml", &comment, "the playbook");
    changed("new-token", &|_| "test-token-another".to_owned(), "the secret `token` was sha256:");
    let host = |name: &str| {
        let path = desk.fleet.path(2, name);
        path.strip_prefix(desk.fleet.sandbox().dir()).unwrap().to_string_lossy().into_owned()
    };
    let token = host("data/infisical-token-auth-token");
    changed(&token, &|_| "test-token-somebody-elses".to_owned(), "runner-2: ");
    changed(&host("runner.env"), &comment, "runner-2: ");
    // One that asks for no approval, of the same hosts; one that is somewhere else and says the same.
    let open = desk.read("inventory.toml").split("[approval]").next().unwrap().to_owned();
    desk.write("open.toml", &open);
    let said = desk.fleet.say(&["run", "--plan", "plan.json", "-i", "open.toml", "--yes"]);
    assert_eq!(said.code, Some(7), "{}", said.all());
    // A host less than the plan has.
    desk.fleet.reachable(2, false);
    let said = desk.follow("plan.json");
    assert_eq!(said.code, Some(4), "{}", said.all());
    desk.fleet.reachable(2, true);
    desk.fleet.assert("UU", &said);
    let said = desk.fleet.say(&["run", "--plan", "plan.json", "--limit", "runner-1", "--yes"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    // The runner's own life is no part of it.
    let restarted = Command::new("sh").arg(desk.fleet.path(1, "runnerctl")).arg("restart").output().unwrap();
    assert!(restarted.status.success(), "{restarted:?}");
    let said = desk.follow("plan.json");
    said.assert(0, "succeeded", "changed");
    desk.fleet.assert("NN", &said);
}

#[test]
fn keys_of_every_kind_sign_from_files_and_from_an_agent() {
    let desk = Desk::start(1, "required = 3");
    keygen(&desk.path("rsa"), "rsa", "");
    keygen(&desk.path("ecdsa"), "ecdsa", "");
    keygen(&desk.path("locked"), "ed25519", "test-passphrase");
    let lines: String = ["rsa", "ecdsa", "alice", "locked"].map(|name| desk.line(name, name)).concat();
    desk.allow(&lines);
    desk.plan("plan.json");
    desk.approve("plan.json", "rsa", "rsa");
    desk.approve("plan.json", "ecdsa", "ecdsa");
    // Nobody is there to ask for the passphrase.
    let said = desk.fleet.say(&["approve", "plan.json", "--signer", "locked", "--key", "locked"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert!(!desk.path("plan.json.locked.approval").exists());

    let agent = Agent::start(&desk.path("agent.sock"));
    agent.add(&desk.path("rsa"));
    agent.add(&desk.path("alice"));
    let by_agent = |args: &[&str]| {
        let mut command = desk.fleet.keyswap("jsonl");
        command.env("SSH_AUTH_SOCK", desk.path("agent.sock"));
        Said::of(&mut command, args)
    };
    // Two keys: the one that may sign under this name; with none that may, it must be named.
    let said = by_agent(&["approve", "plan.json", "--signer", "alice"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let said = by_agent(&["approve", "plan.json", "--signer", "nobody"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    fs::remove_file(desk.path("rsa")).unwrap();
    let said = by_agent(&["approve", "plan.json", "--signer", "rsa", "--key", "rsa.pub"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    for signer in ["rsa", "ecdsa", "alice"] {
        assert!(desk.openssh("plan.json", signer, "allowed"), "{signer}");
    }
    desk.follow("plan.json").assert(0, "succeeded", "changed");
}

#[test]
fn a_step_waits_for_a_signature_between_batches() {
    let desk = Desk::start(2, "required = 1");
    let mut playbook = Playbook::new("");
    playbook.first =
        "[[steps]]\nname = \"go on\"\nonce = \"batch\"\ntimeout = \"4s\"\napprove = { message = \"Is it well?\" }"
            .into();
    let question = |run: &str, batch: u32| format!("controller/runs/{run}/step-1-batch-{batch}.plan");
    let begin = |out: &str| {
        desk.fleet.write(&playbook);
        desk.plan(out);
        desk.approve(out, "alice", "alice");
        let at_work = AtWork::start(&mut desk.fleet.keyswap("jsonl"), &["run", "--plan", out, "--yes"]);
        wait_until("it asks", || at_work.so_far().contains("keyswap approve "));
        let run = serde_json::from_str::<serde_json::Value>(at_work.so_far().lines().next().unwrap()).unwrap();
        (at_work, run["run"].as_str().unwrap().to_owned())
    };
    // Answered for the first batch, by a key that may and one that may not; for the second batch by nobody in time.
    let (at_work, run) = begin("short.plan");
    // The host that asks is held, with its way back on it; none of its files has changed.
    desk.fleet.assert("OU", &Said::new(None, at_work.so_far().into_bytes(), Vec::new()));
    desk.approve(&question(&run, 1), "mallory", "mallory");
    desk.approve(&question(&run, 1), "bob", "bob");
    let said = at_work.end();
    assert_eq!((said.code, &said.last()["status"]), (Some(7), &"failed".into()), "{}", said.all());
    assert!(said.stdout.contains("approved by `bob`") && said.stdout.contains("not approved in 4 s"), "{}", said.all());
    desk.fleet.assert("NO", &said);
    let journal = desk.read(&format!("controller/runs/{run}/journal.jsonl"));
    assert!(journal.contains("step 1. go on") && journal.contains("\"signer\":\"bob\""), "{journal}");
    assert_eq!(desk.fleet.say(&["rollback"]).code, Some(0));

    // Nobody to ask and nobody whose signature would count: said before any host is touched, and --yes is no answer.
    let open = desk.read("inventory.toml").split("[approval]").next().unwrap().to_owned();
    desk.write("open.toml", &open);
    let said = desk.fleet.say(&["run", "fleet.toml", "-i", "open.toml", "--yes"]);
    assert_eq!(said.code, Some(7), "{}", said.all());
    assert!(said.stderr.contains("run it on a terminal"), "{}", said.all());
    desk.fleet.assert("OO", &said);
}

/// An `ssh-agent` of the test's own.
struct Agent(std::process::Child, PathBuf);

impl Agent {
    fn start(socket: &std::path::Path) -> Self {
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(socket).stdout(Stdio::null()).spawn().unwrap();
        wait_until("the agent is there", || socket.exists());
        Self(child, socket.to_owned())
    }

    fn add(&self, key: &std::path::Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.1).output().unwrap();
        assert!(added.status.success(), "{added:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of `allowed_signers`: what we take from them is what OpenSSH takes, or less where that is said.
#[test]
fn allowed_signers_are_read_as_openssh_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    keygen(&path("key"), "ed25519", "");
    keygen(&path("other"), "ed25519", "");
    let public = |name: &str| fs::read_to_string(path(&format!("{name}.pub"))).unwrap();
    let key = public("key").split(' ').take(2).collect::<Vec<_>>().join(" ");
    let other = public("other").split(' ').take(2).collect::<Vec<_>>().join(" ");
    fs::write(path("text"), "text\n").unwrap();
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", "keyswap", "-f"]).arg(path("key")).arg(path("text"));
    assert!(sign.stdin(Stdio::null()).status().unwrap().success());
    let signer = SignerKey::parse(&key).unwrap();
    let cases = [
        format!("a@x {key}"),
        format!("a@x {key} a comment with \"quotes\""),
        format!("  a@x   {key}"),
        format!("# a comment\n\na@x {key}"),
        format!("b@x {key}"),
        format!("a@x {other}"),
        format!("a@x {other}\na@x {key}"),
        format!("*@x {key}"),
        format!("?@x {key}"),
        format!("*@y,a@x {key}"),
        format!("*,!a@x {key}"),
        format!("!a@x,* {key}"),
        format!("!b@x {key}"),
        format!("\"a@x,b@x\" {key}"),
        format!("A@X {key}"),
        format!("a@x namespaces=\"keyswap\" {key}"),
        format!("a@x NAMESPACES=\"keyswap\" {key}"),
        format!("a@x namespaces=\"key*\" {key}"),
        format!("a@x namespaces=\"git\" {key}"),
        format!("a@x namespaces=\"git,keyswap\" {key}"),
        format!("a@x namespaces=\"*,!keyswap\" {key}"),
        format!("a@x namespaces=keyswap {key}"),
        format!("a@x namespaces=\"keyswap\",namespaces=\"git\" {key}"),
        format!("a@x valid-after=\"20200101\" {key}"),
        format!("a@x valid-after=\"20990101\" {key}"),
        format!("a@x valid-before=\"20200101\" {key}"),
        format!("a@x valid-before=\"209901011200\" {key}"),
        format!("a@x valid-before=\"20990101120030Z\" {key}"),
        format!("a@x valid-after=\"20200101\",valid-before=\"20990101\",namespaces=\"keyswap\" {key}"),
        format!("a@x valid-after=\"20990101\",valid-before=\"20200101\" {key}"),
        format!("a@x valid-before=\"2099\" {key}"),
        format!("a@x valid-before=\"20991301\" {key}"),
        format!("a@x cert-authority {key}"),
        format!("a@x cert-authority,namespaces=\"keyswap\" {key}"),
        format!("a@x unknown-option {key}"),
        format!("a@x namespaces=\"keyswap {key}"),
        format!("a@x,{key}"),
        "a@x ssh-ed25519".to_owned(),
        "a@x ssh-ed25519 AAAA".to_owned(),
        "a@x".to_owned(),
        String::new(),
    ];
    let mut taken = 0;
    for case in &cases {
        fs::write(path("allowed"), format!("{case}\n")).unwrap();
        let mut verify = Command::new("ssh-keygen");
        verify.args(["-Y", "verify", "-n", "keyswap", "-I", "a@x", "-f"]).arg(path("allowed"));
        verify.arg("-s").arg(path("text.sig")).stdin(fs::File::open(path("text")).unwrap());
        let openssh = verify.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success();
        let allowed = path("allowed");
        let book = AllowedSigners::read(allowed.to_str().unwrap().into(), &jiff::tz::TimeZone::system()).unwrap();
        let ours = book.allows("a@x", &signer, jiff::Timestamp::now());
        assert_eq!(ours.is_ok(), openssh, "{case}: {ours:?}");
        taken += usize::from(openssh);
    }
    assert!(taken > 12 && taken < cases.len() - 12, "{taken} of {}", cases.len());
}
