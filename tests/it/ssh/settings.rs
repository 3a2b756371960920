//! `ssh_config`: what keyswap takes of OpenSSH's settings is what OpenSSH says of them, and what it cannot follow it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Agent;
use crate::support::real_host::RealHost;
use crate::support::said::Said;

/// One way to write settings, and what they are asked for: names, and keys of the inventory for each.
struct Case {
    what: &'static str,
    config: &'static str,
    hosts: &'static [(&'static str, &'static str)],
}

const fn case(what: &'static str, config: &'static str, hosts: &'static [(&'static str, &'static str)]) -> Case {
    Case { what, config, hosts }
}

const CASES: &[Case] = &[
    case("nothing", "", &[("a", "")]),
    case("a host", "Host a\n HostName 192.0.2.1\n User deploy\n Port 2022\n", &[("a", ""), ("b", "")]),
    case("the first value wins", "Host a\n Port 1\nHost *\n Port 2\n User u\n", &[("a", ""), ("b", "")]),
    case("before any host", "Port 7\nHost a\n Port 8\n", &[("a", ""), ("b", "")]),
    case(
        "the operator's own name",
        "Host a\n User USER\nHost *\n User u\n",
        &[("a", ""), ("b", ""), ("c", "user = 'x'")],
    ),
    case("patterns", "Host web-* !web-9 ?1\n User w\n", &[("web-1", ""), ("web-9", ""), ("x1", ""), ("xx1", "")]),
    case("equal signs, quotes, case", "host=a\n PORT = 99\n user \"deploy\"\n", &[("a", "")]),
    case("name in the address", "Host *\n HostName %h.example.net\n", &[("a", ""), ("b", "address = '192.0.2.9'")]),
    case("keys", "Host a\n IdentityFile ~/.ssh/one\n IdentityFile /two\nHost *\n IdentityFile /three\n", &[("a", "")]),
    case("keys, no others", "Host a\n IdentitiesOnly yes\n IdentityFile /one\n", &[("a", "")]),
    case("no keys", "IdentityFile none\nIdentityAgent none\n", &[("a", "")]),
    case("agent", "IdentityAgent /run/agent\nCertificateFile /c1\nCertificateFile ~/c2\n", &[("a", "")]),
    case("one hop", "Host a\n ProxyJump x@gate:2222\n", &[("a", "")]),
    case("hops", "Host a\n ProxyJump x@gate:2222,ssh://y@door:33,[2001:db8::1]:44\n", &[("a", "jump = []")]),
    case("no hop", "Host a\n ProxyJump none\nHost *\n ProxyJump gate\n", &[("a", "")]),
    case("books", "UserKnownHostsFile ~/.ssh/kh /etc/kh\nHostKeyAlias web\n", &[("a", "")]),
    case("no books", "UserKnownHostsFile none\n", &[("a", "")]),
    case("books of their own", "Host *\n UserKnownHostsFile ~/.ssh/kh_%n_%p\n", &[("a", "port = 5"), ("b", "")]),
    case("ciphers", "Ciphers aes256-ctr,aes128-ctr\nMACs hmac-sha2-256\n", &[("a", "")]),
    case("ciphers, fewer", "Ciphers -aes*\nMACs -hmac-sha1*\n", &[("a", "")]),
    case("kex, another first", "KexAlgorithms ^diffie-hellman-group14-sha256\n", &[("a", "")]),
    case("host keys", "HostKeyAlgorithms rsa-sha2-512,ssh-ed25519\n", &[("a", "")]),
    case("time", "ConnectTimeout 7\n", &[("a", "")]),
    case("included", "Include inc/*.conf\nHost a\n Port 9\n", &[("a", ""), ("b", "")]),
    case("included in a host", "Host a\n Include inc/one.conf\nHost *\n User last\n", &[("a", ""), ("b", "")]),
    case("Match host", "Match host a,c\n User m\nMatch all\n Port 3\n", &[("a", ""), ("b", "")]),
    case(
        "Match host after HostName",
        "Host a\n HostName real.example.net\nMatch host real.example.net\n User m\n",
        &[("a", ""), ("b", "address = 'real.example.net'")],
    ),
    case("Match originalhost", "Host *\n HostName x\nMatch originalhost a\n User m\n", &[("a", ""), ("b", "")]),
    case("Match user", "Match user deploy\n IdentityFile /d\n", &[("a", ""), ("b", "user = 'deploy'")]),
    case("Match exec", "Match exec \"test %n = a\"\n User m\nMatch exec false\n Port 4\n", &[("a", ""), ("b", "")]),
    case("Match not", "Match !host a\n User m\n", &[("a", ""), ("b", "")]),
    case("Match final", "Match final host a\n Port 6\n", &[("a", ""), ("b", "")]),
    case(
        "canonical",
        "CanonicalizeHostname always\nCanonicalizeFallbackLocal yes\nMatch canonical host a\n Port 6\n",
        &[("a", ""), ("b", "")],
    ),
    case(
        "canonical, a domain that has the name",
        "CanonicalizeHostname yes\nCanonicalDomains localdomain\nHost localhost.localdomain\n User c\n",
        &[("localhost", "")],
    ),
];

/// An operator's directory with settings.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("inc")).unwrap();
        fs::create_dir(dir.path().join(".ssh")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.0.path()).env("USER", login()).env("PATH", "/usr/bin:/bin");
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn keyswap(&self, args: &[&str]) -> Said {
        Said::of(&mut self.program(env!("CARGO_BIN_EXE_keyswap")), args)
    }

    /// What `ssh -G` says: each key with all its values.
    fn ssh(&self, words: &[String]) -> BTreeMap<String, Vec<String>> {
        let output = self.program("ssh").arg("-G").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            said.entry(key.to_owned()).or_default().push(value.trim().to_owned());
        }
        said
    }
}

/// The user that OpenSSH takes for the operator, and his home.
fn passwd() -> (String, String) {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[2] == uid).unwrap();
    (line[0].to_owned(), line[5].to_owned())
}

fn login() -> String {
    passwd().0
}

/// What OpenSSH says, in the inventory's terms: each setting that a file makes.
fn wanted(desk: &Desk, as_user: &str, name: &str, keys: &str) -> BTreeMap<&'static str, Vec<String>> {
    let of = |key: &str| keys.split_once(&format!("{key} = ")).map(|(_, value)| value.trim_matches('\'').to_owned());
    let mut words = vec!["-F".to_owned(), "conf".to_owned()];
    words.extend(of("user").into_iter().flat_map(|user| ["-l".to_owned(), user]));
    words.extend(of("port").into_iter().flat_map(|port| ["-p".to_owned(), port]));
    words.extend(of("address").into_iter().flat_map(|address| ["-o".to_owned(), format!("HostName={address}")]));
    words.extend(["--".to_owned(), name.to_owned()]);
    let said = desk.ssh(&words);
    let usual = desk.ssh(&["-F".to_owned(), "none".to_owned(), "--".to_owned(), name.to_owned()]);
    let home = passwd().1;
    let mut wanted = BTreeMap::new();
    // ssh's user goes for every host for which the inventory names none, whether a file says it or not.
    let user = said["user"].clone();
    if user != [as_user] && !keys.contains("user =") {
        wanted.insert("user", user);
    }
    let mut take = |key: &'static str, by: &str, change: &dyn Fn(&str) -> Vec<String>| {
        let values = said.get(by).cloned().unwrap_or_default();
        if !values.is_empty() && Some(&values) != usual.get(by) && !keys.contains(&format!("{key} =")) {
            wanted.insert(key, values.iter().flat_map(|value| change(value)).collect());
        }
    };
    let same = |value: &str| vec![value.to_owned()];
    let path = |value: &str| vec![value.replacen('~', &home, 1)];
    let list = |value: &str| value.split(',').map(str::to_owned).collect();
    let paths = |value: &str| value.split(' ').map(|path| path.replace("none", "/dev/null")).collect();
    // Of long lists only what keyswap has; its own list is in the schema.
    let schema: Value = serde_json::from_str(&fs::read_to_string("schemas/inventory.json").unwrap()).unwrap();
    let known = |key: &'static str| {
        let one = &schema["properties"]["defaults"]["properties"][key]["anyOf"][0]["enum"];
        let known: Vec<String> = one.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        move |value: &str| value.split(',').filter(|name| known.iter().any(|k| k == name)).map(str::to_owned).collect()
    };
    take("address", "hostname", &same);
    take("port", "port", &same);
    take("jump", "proxyjump", &list);
    take("identity_file", "identityfile", &path);
    take("identities_only", "identitiesonly", &|_| vec!["true".to_owned()]);
    take("identity_agent", "identityagent", &same);
    take("certificate_file", "certificatefile", &path);
    take("known_hosts", "userknownhostsfile", &paths);
    take("host_key_alias", "hostkeyalias", &same);
    take("kex", "kexalgorithms", &known("kex"));
    take("ciphers", "ciphers", &known("ciphers"));
    take("macs", "macs", &known("macs"));
    take("host_key_algorithms", "hostkeyalgorithms", &known("host_key_algorithms"));
    take("connect_timeout", "connecttimeout", &|seconds| vec![format!("{seconds}000ms")]);
    wanted
}

#[test]
fn what_is_taken_is_what_ssh_says() {
    let desk = Desk::new();
    desk.write("inc/one.conf", "User one\nHost b\n User two\n");
    desk.write("inc/two.conf", "Host *\n IdentityFile /included\n");
    let (mut asked, mut wrong) = (0, Vec::new());
    // keyswap's own default is $USER, ssh's the name in the password file.
    for (case, user) in CASES.iter().flat_map(|case| [(case, login()), (case, "alice".to_owned())]) {
        // A relative `Include` is looked for under ~/.ssh, which is not this desk's.
        desk.write(
            "conf",
            &case.config.replace("USER", &login()).replace("inc/", &format!("{}/inc/", desk.0.path().display())),
        );
        let hosts: String = case.hosts.iter().map(|(name, keys)| format!("[hosts.{name}]\n{keys}\n")).collect();
        desk.write("inv.toml", &format!("[defaults]\nssh_config = \"conf\"\n{hosts}"));
        let mut program = desk.program(env!("CARGO_BIN_EXE_keyswap"));
        let said = Said::of(program.env("USER", &user), &["hosts", "-i", "inv.toml", "--output", "jsonl"]);
        assert_eq!(said.code, Some(0), "{}: {}", case.what, said.all());
        for ((name, keys), host) in case.hosts.iter().zip(&said.events) {
            let settings = host["settings"].as_object().unwrap().iter();
            let taken = settings.filter(|(_, setting)| setting["from"] == "ssh_config").map(|(key, setting)| {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (key.as_str(), setting["value"].as_array().unwrap().iter().map(text).collect::<Vec<_>>())
            });
            let (taken, wanted) = (taken.collect::<BTreeMap<_, _>>(), wanted(&desk, &user, name, keys));
            asked += 1;
            if taken != wanted {
                wrong.push(format!("{} as {user}, {name}: ssh says {wanted:?}, keyswap took {taken:?}", case.what));
            }
        }
    }
    println!("ssh_config: {} files, {asked} hosts, {} taken as ssh says", CASES.len(), asked - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Timers and cron jobs may have neither.
#[test]
fn without_variables_the_password_file_says_who_and_where_one_is() {
    let desk = Desk::new();
    desk.write("inv.toml", "[hosts.a]\nidentity_file = \"~/key\"\n");
    let (user, home) = passwd();
    let bare = || {
        let mut program = desk.program(env!("CARGO_BIN_EXE_keyswap"));
        program.env_remove("HOME").env_remove("USER");
        program
    };
    let said = Said::of(&mut bare(), &["hosts", "-i", "inv.toml", "--output", "jsonl"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.events[0]["user"], user.as_str(), "{}", said.all());
    assert_eq!(said.events[0]["settings"]["identity_file"]["value"][0], format!("{home}/key"), "{}", said.all());

    // Nobody knows: then nothing is guessed, and no state directory is made anywhere.
    let root = rustix::process::geteuid().is_root();
    for (set, missing) in [("USER=x", "set HOME"), ("HOME=/nowhere", "set USER")] {
        let mut command = desk.program(if root { "unshare" } else { "sudo" });
        if !root {
            command.args(["-n", "unshare"]);
        }
        // A user id that nobody has; the program lies where that one can reach it.
        let program = PathBuf::from(env!("CARGO_BIN_EXE_keyswap"));
        let script = format!(
            "mount --bind {} /mnt && mount --bind . /media && chmod 755 /media && cd /media && \
             exec setpriv --reuid 54321 --regid 54321 --clear-groups \
             env -i PATH=/usr/bin:/bin {set} /mnt/keyswap hosts -i inv.toml",
            program.parent().unwrap().display(),
        );
        let said = Said::of(&mut command, &["--mount", "sh", "-c", &script]);
        assert_eq!(said.code, Some(5), "{}", said.all());
        assert!(said.stderr.contains(missing), "{}", said.all());
    }
}

/// A target behind a bastion, of which the settings alone know the way, the login, the key and the books.
fn scene(desk: &Desk) -> (RealHost, RealHost) {
    let (bastion, host) = (RealHost::start(), RealHost::start());
    let dir = desk.0.path().display();
    let block = |name: &str, host: &RealHost| {
        format!(
            "Host {name}\n HostName 127.0.0.1\n Port {}\n User ops\n IdentityFile {}\n IdentitiesOnly yes\n \
             UserKnownHostsFile {dir}/known_{name}\n HostKeyAlias key-of-{name}\n",
            host.port(),
            host.identity().display()
        )
    };
    for (name, host) in [("gate", &bastion), ("web", &host)] {
        desk.write(&format!("known_{name}"), &format!("key-of-{name} {}\n", host.host_key()));
    }
    let config = format!("{}{} ProxyJump gate\n", block("gate", &bastion), block("web", &host));
    desk.write("conf", &config);
    (bastion, host)
}

#[test]
fn a_host_is_reached_by_its_settings_alone() {
    let desk = Desk::new();
    let (bastion, host) = scene(&desk);
    let ping = |inventory: &str| {
        desk.write("inv.toml", inventory);
        desk.keyswap(&["ping", "-i", "inv.toml"])
    };
    let without = ping("[hosts.web]\nbecome = \"sudo\"\n");
    assert_eq!(without.code, Some(4), "{}", without.all());
    let with = "[hosts.web]\nbecome = \"sudo\"\nssh_config = \"conf\"\n";
    let said = ping(with);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains("web: ok: ops as uid 0"), "{}", said.all());
    assert!(bastion.sshd_log().contains("Accepted publickey") && host.sshd_log().contains("Accepted publickey"));

    // OpenSSH itself agrees.
    let real = desk.program("ssh").args(["-F", "conf", "-o", "BatchMode=yes", "web", "id", "-un"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&real.stdout), "ops\n", "{}", String::from_utf8_lossy(&real.stderr));

    // What would make the check weaker does not.
    let config = fs::read_to_string(desk.path("conf")).unwrap();
    desk.write("conf", &format!("StrictHostKeyChecking no\n{}", config.replace("known_web", "known_gate")));
    let unchecked = ping(with);
    assert_eq!(unchecked.code, Some(4), "{}", unchecked.all());
    assert!(unchecked.stdout.contains("key"), "{}", unchecked.all());
    let shown = desk.keyswap(&["hosts", "-i", "inv.toml"]);
    assert!(shown.stdout.contains("not followed: StrictHostKeyChecking"), "{}", shown.all());
    assert!(shown.stdout.contains("  host_key_alias: key-of-web (ssh_config)"), "{}", shown.all());
    assert!(shown.stdout.contains("  become: sudo (inventory)"), "{}", shown.all());

    // No file of known hosts is one to write to: the device stays what it is.
    desk.write("conf", &format!("UserKnownHostsFile /dev/null\n{config}"));
    let accepted = desk.keyswap(&["hosts", "accept", "-i", "inv.toml", "--yes"]);
    assert_ne!(accepted.code, Some(0), "{}", accepted.all());
    assert!(accepted.all().contains("not a regular file"), "{}", accepted.all());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());

    desk.write("conf", &format!("{config}Host *\n ProxyCommand nc %h %p\n").replace(" ProxyJump gate\n", ""));
    let refused = ping(with);
    assert_eq!(refused.code, Some(6), "{}", refused.all());
    assert!(refused.stderr.contains("ProxyCommand is not for keyswap"), "{}", refused.all());
    assert!(refused.stderr.contains("inv.toml:3:14"), "{}", refused.all());
    let lint = desk.keyswap(&["lint", "-i", "inv.toml"]);
    assert_eq!(lint.code, Some(0), "lint asks nobody: {}", lint.all());
}

/// The usual files are the operator's own, wherever HOME leads: they are laid over his for one process.
#[test]
fn the_usual_files_are_the_operators_own() {
    let desk = Desk::new();
    let (_bastion, host) = scene(&desk);
    // The key comes from an agent of the settings' own, which no variable names.
    let agent = Agent::start(&super::utf8(desk.path("agent")), &[&host.identity()]);
    let config = fs::read_to_string(desk.path("conf")).unwrap();
    let key = format!(" IdentityFile {}\n IdentitiesOnly yes\n", host.identity().display());
    desk.write("conf", &config.replace(&key, &format!(" IdentityAgent {}\n", agent.1)));
    desk.write("inv.toml", "[hosts.web]\nbecome = \"sudo\"\nssh_config = true\n");
    fs::copy(desk.path("conf"), desk.path(".ssh/config")).unwrap();
    let home = passwd().1;
    let root = rustix::process::geteuid().is_root();
    let mut command = desk.program(if root { "unshare" } else { "sudo" });
    if !root {
        command.args(["-n", "unshare"]);
    }
    let script = format!(
        "mkdir -p {home}/.ssh && mount --bind {} {home}/.ssh && HOME={} PATH=/usr/bin:/bin exec {} ping -i inv.toml",
        desk.path(".ssh").display(),
        desk.0.path().display(),
        env!("CARGO_BIN_EXE_keyswap")
    );
    let said = Said::of(&mut command, &["--mount", "sh", "-c", &script]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains("web: ok: ops as uid 0"), "{}", said.all());
}

#[test]
fn a_secret_in_the_environment_is_not_for_what_settings_start() {
    let desk = Desk::new();
    let seen = desk.path("seen");
    desk.write("conf", &format!("Match exec \"env >{}\"\n User u\n", seen.display()));
    desk.write(
        "inv.toml",
        "[hosts.a]\nssh_config = \"conf\"\n[services.forge]\nurl = \"https://git.example.net\"\n\
         token = { from = \"env\", name = \"FORGE_TOKEN\" }\n",
    );
    let mut program = desk.program(env!("CARGO_BIN_EXE_keyswap"));
    program.env("FORGE_TOKEN", "test-token-of-the-forge").env("OTHER", "is-seen");
    let said = Said::of(&mut program, &["hosts", "-i", "inv.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let seen = fs::read_to_string(&seen).unwrap();
    assert!(seen.contains("OTHER=is-seen") && !seen.contains("test-token-of-the-forge"), "{seen}");

    let mut nowhere = desk.program(env!("CARGO_BIN_EXE_keyswap"));
    let said = Said::of(nowhere.env("PATH", desk.0.path()), &["hosts", "-i", "inv.toml"]);
    assert_eq!(said.code, Some(6), "{}", said.all());
    assert!(said.stderr.contains("no `ssh` in PATH"), "{}", said.all());
}
