use std::cell::{Cell, RefCell};

use super::*;
use crate::load::tests::context;
use crate::load::{Diagnostics, file::Sink};
use crate::model::{Host, Inventory, Jump, Origin};

/// What OpenSSH says where no file says anything, as far as it matters here.
const USUAL: &str = "user me\nport 22\nidentitiesonly no\nidentityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ed25519\n\
    ciphers chacha20-poly1305@openssh.com,aes128-ctr\nstricthostkeychecking ask\nconnecttimeout none\n\
    globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\n\
    userknownhostsfile /home/me/.ssh/known_hosts /home/me/.ssh/known_hosts2\n";

/// Says what a test wrote, by the asked-for name: lines that take the place of the usual ones.
#[derive(Default)]
struct Canned {
    says: Vec<(&'static str, &'static str)>,
    asked: RefCell<Vec<SshQuestion>>,
    withheld: RefCell<Vec<String>>,
    rounds: Cell<usize>,
}

impl AskSsh for Canned {
    fn ask(&self, questions: &[SshQuestion]) -> Vec<Result<String, String>> {
        self.rounds.set(self.rounds.get() + 1);
        let one = |question: &SshQuestion| {
            if question.file == SshQuestion::of_nobody().file {
                return Ok(USUAL.to_owned());
            }
            self.asked.borrow_mut().push(question.clone());
            let own = self.says.iter().find(|(name, _)| *name == question.host).map_or("", |(_, own)| own);
            if let Some(why) = own.strip_prefix("fails ") {
                return Err(why.to_owned());
            }
            let key = |line: &str| line.split(' ').next().unwrap().to_owned();
            let replaced: Vec<String> = own.lines().map(key).collect();
            let kept = USUAL.lines().filter(|line| !replaced.contains(&key(line)));
            let mut text = kept.chain(own.lines()).collect::<Vec<_>>().join("\n");
            if !replaced.contains(&"hostname".to_owned()) {
                text += &format!("\nhostname {}", question.address.as_deref().unwrap_or(&question.host));
            }
            // The words on the command line win.
            if let Some(user) = &question.user {
                text = format!("user {user}\n{text}");
            }
            Ok(text)
        };
        questions.iter().map(one).collect()
    }

    fn withhold(&self, variable: &str) {
        self.withheld.borrow_mut().push(variable.to_owned());
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "SOCK").then(|| "/run/agent".to_owned())
    }

    fn host_name(&self) -> String {
        "desk.example.net".to_owned()
    }

    fn uid(&self) -> u32 {
        1000
    }
}

fn canned(says: &[(&'static str, &'static str)]) -> Canned {
    Canned { says: says.to_vec(), ..Canned::default() }
}

fn load(text: &str, ssh: &Canned, limit: Option<&str>) -> Result<Inventory, Diagnostics> {
    let asking = Asking { ssh, pattern: "all", limit, user: None };
    let texts = [("i.toml".into(), text.to_owned())];
    crate::load::inventory::from_texts(Sink::default(), &texts, &context(), Some(&asking))
}

fn host(inventory: &Inventory, name: &str) -> Host {
    inventory.hosts.get(&name.parse::<HostName>().unwrap()).unwrap().clone()
}

fn one(says: &'static str) -> Result<Connection, String> {
    let inventory = load("[hosts.a]\nssh_config = true\n", &canned(&[("a", says)]), None);
    inventory.map(|inventory| host(&inventory, "a").connection).map_err(|error| error.to_string())
}

#[test]
fn what_no_file_sets_is_left_to_keyswap() {
    let plain = crate::load::tests::inventory(&[("i.toml", "[hosts.a]\n")]).unwrap();
    assert_eq!(one("").unwrap(), host(&plain, "a").connection);
    let strict = "stricthostkeychecking true\nidentityagent SSH_AUTH_SOCK\ngssapiauthentication yes\nloglevel DEBUG";
    assert_eq!(one(strict).unwrap(), host(&plain, "a").connection);
}

#[test]
fn what_a_file_sets_is_taken() {
    let got = one("hostname 10.0.0.7\nport 2022\nuser deploy\nidentityfile ~/k_%h_%p_%r_%n_%u_%i_%L_%l_%d_%%\nidentityfile /k2\n\
                   identitiesonly yes\nidentityagent $SOCK\ncertificatefile ${SOCK}/c\nhostkeyalias web\nconnecttimeout 7\n\
                   userknownhostsfile /kh1 /kh2\nciphers aes128-ctr,3des-cbc")
    .unwrap();
    let want = Connection {
        identity_files: vec![
            "/home/me/k_10.0.0.7_2022_deploy_a_me_1000_desk_desk.example.net_/home/me_%".into(),
            "/k2".into(),
        ],
        identities_only: true,
        identity_agent: Some("/run/agent".into()),
        certificate_files: vec!["/run/agent/c".into()],
        host_key_alias: Some("web".to_owned()),
        connect_timeout_ms: 7000,
        known_hosts: vec!["/kh1".into(), "/kh2".into()],
        algorithms: crate::model::Algorithms { ciphers: vec!["aes128-ctr".to_owned()], ..Default::default() },
        ..Connection::new("10.0.0.7", 2022, "deploy")
    };
    assert_eq!(got, want);
    let none = one("identityfile none\nidentityagent none\ncertificatefile none\nuserknownhostsfile none").unwrap();
    assert_eq!(none.identity_files, ["none"]);
    assert_eq!(none.identity_agent, Some("none".into()));
    assert_eq!((none.certificate_files.len(), none.known_hosts), (0, vec!["/dev/null".into()]));
    let global = one("globalknownhostsfile /g").unwrap();
    assert_eq!(global.known_hosts, ["/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2", "/g"]);
}

/// `user me` is what ssh says without any file, too: as a file's own word it cannot be told apart.
#[test]
fn the_user_is_ssh_s_where_the_inventory_names_none() {
    let mut context = context();
    context.user = "alice".to_owned();
    let ssh = canned(&[("a", ""), ("b", "user me"), ("c", "user deploy"), ("d", "user deploy")]);
    let asking = Asking { ssh: &ssh, pattern: "all", limit: None, user: None };
    let text = "[defaults]\nssh_config = true\n[hosts.a]\n[hosts.b]\n[hosts.c]\n\
                [hosts.d]\nuser = 'ops'\njump = ['gate.example.net', 'door@b.example.net']\n";
    let texts = [("i.toml".into(), text.to_owned())];
    let inventory = crate::load::inventory::from_texts(Sink::default(), &texts, &context, Some(&asking)).unwrap();
    let users = ["a", "b", "c", "d"].map(|name| host(&inventory, name).connection.user);
    assert_eq!(users, ["me", "me", "deploy", "ops"]);
    let hops: Vec<String> = host(&inventory, "d").connection.jump.into_iter().map(|hop| hop.connection.user).collect();
    assert_eq!(hops, ["me", "door"]);
    let origin = |name: &str| inventory.origins[&name.parse::<HostName>().unwrap()].of.get("user").copied();
    assert_eq!([origin("b"), origin("d")], [Some(Origin::SshConfig), Some(Origin::Inventory)]);
}

#[test]
fn what_cannot_be_honoured_is_an_error_unless_the_inventory_says_it_better() {
    for (says, word) in [
        ("proxycommand nc secret-word %h", "ProxyCommand is not for keyswap"),
        ("revokedhostkeys /krl", "RevokedHostKeys is not"),
        ("bindaddress 10.0.0.1", "BindAddress is not"),
        ("bindinterface wg0", "BindInterface is not"),
        ("pubkeyauthentication no", "PubkeyAuthentication no is not"),
        ("identityfile ~/id_%C", "holds `%C`"),
        ("identityfile ~bob/id", "another user's home"),
        ("identityfile ${ABSENT}/id", "the variable ABSENT, which is not set"),
        ("identityagent $ABSENT", "the variable ABSENT, which is not set"),
        ("userknownhostsfile /home/me/known hosts", "cannot be told apart"),
        ("hostname -oProxyCommand=x", "HostName: "),
        ("user %u", "User: "),
        ("port 99999", "Port: "),
        ("ciphers 3des-cbc", "Ciphers names none that keyswap has"),
        ("fails x line 3: Bad configuration option", "ssh cannot be asked: x line 3"),
    ] {
        let error = one(says).expect_err(says);
        assert!(
            error.contains(word) && error.contains("i.toml:2:14") && !error.contains("secret-word"),
            "{says}: {error}"
        );
    }
    let lifted = [
        ("proxycommand nc %h %p", "jump = []"),
        ("proxycommand nc %h %p", "jump = 'b.example.net'"),
        ("userknownhostsfile /home/me/known hosts", "known_hosts = '/kh'"),
        ("pubkeyauthentication no\nidentityfile /k", "password = { from = 'prompt' }"),
    ];
    for (says, better) in lifted {
        let inventory = load(&format!("[hosts.a]\nssh_config = true\n{better}\n"), &canned(&[("a", says)]), None);
        let connection = host(&inventory.unwrap_or_else(|error| panic!("{says}: {error}")), "a").connection;
        assert_eq!(connection.identity_files.len(), 0, "{says}: no key goes before the password");
    }
}

#[test]
fn what_is_left_out_is_told() {
    let says = "stricthostkeychecking false\nremotecommand secret-word\naddressfamily inet\nfromthefuture secret-word\n\
                ciphers aes128-ctr,3des-cbc\nglobalknownhostsfile /g";
    let inventory = load("[hosts.a]\nssh_config = true\n", &canned(&[("a", says)]), None).unwrap();
    let notes = &inventory.origins.values().next().unwrap().notes;
    let heads: Vec<&str> = notes.iter().map(|note| note.split(':').next().unwrap()).collect();
    let want =
        ["GlobalKnownHostsFile", "Ciphers", "StrictHostKeyChecking", "RemoteCommand", "AddressFamily", "fromthefuture"];
    assert_eq!(heads, want, "{notes:?}");
    assert!(!notes.join("").contains("secret-word"), "{notes:?}");
}

#[test]
fn the_inventory_wins_and_is_told_to_ssh() {
    let says = "hostname 10.0.0.7\nport 2022\nuser deploy\nidentityfile /k\nidentitiesonly yes\nproxyjump b";
    let ssh = canned(&[("a", says)]);
    let text = "[defaults]\nssh_config = 'conf'\nuser = 'ops'\nidentity_file = '/mine'\njump = []\n[hosts.a]\naddress = '10.1.1.1'\n";
    let inventory = load(text, &ssh, None).unwrap();
    let want = Connection {
        identity_files: vec!["/mine".into()],
        identities_only: true,
        ..Connection::new("10.1.1.1", 2022, "ops")
    };
    assert_eq!(host(&inventory, "a").connection, want);
    let question = SshQuestion {
        host: "a".to_owned(),
        file: Some("/home/ops/keyswap/conf".into()),
        user: Some("ops".to_owned()),
        port: None,
        address: Some("10.1.1.1".to_owned()),
    };
    assert_eq!(*ssh.asked.borrow(), [question]);
    let origins = inventory.origins.values().next().unwrap();
    let of = |key| origins.of.get(key).copied();
    assert_eq!([of("user"), of("port"), of("macs")], [Some(Origin::Inventory), Some(Origin::SshConfig), None]);
    assert_eq!(of("jump"), Some(Origin::Inventory));
}

#[test]
fn the_user_of_the_command_line_is_for_the_host_alone() {
    let ssh = canned(&[("a", "proxyjump b"), ("b", "user gate")]);
    let asking = Asking { ssh: &ssh, pattern: "all", limit: None, user: Some("root") };
    let texts = [("i.toml".into(), "[defaults]\nssh_config = true\n[hosts.a]\n".to_owned())];
    let inventory = crate::load::inventory::from_texts(Sink::default(), &texts, &context(), Some(&asking)).unwrap();
    assert_eq!(host(&inventory, "a").connection.jump[0].connection.user, "gate");
    let asked: Vec<_> = ssh.asked.borrow().iter().map(|q| (q.host.clone(), q.user.clone())).collect();
    assert_eq!(asked, [("a".to_owned(), Some("root".to_owned())), ("b".to_owned(), None)]);
}

#[test]
fn hops_have_settings_of_their_own() {
    let says = [
        ("a", "proxyjump x@g1:2201,g2\nuser deploy\nidentityfile /ka"),
        ("g1", "hostname 10.0.1.1\nuser nobody\nidentityfile /kg1\nproxyjump g0"),
        ("g0", "hostname 10.0.1.0"),
        ("g2", "hostname 10.0.1.2\nuser two\nproxyjump unused"),
    ];
    // What the inventory says of a host goes for strange hops as well, and g2 is its own host there, with a pin.
    let pin = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRvjYUutv9temXgSg4rF0NRV/pdiWYXiSCFObjqCQcS";
    let text =
        format!("[defaults]\nssh_config = true\nknown_hosts = '/kh'\n[hosts.a]\n[hosts.g2]\nhost_key = '{pin}'\n");
    let inventory = load(&text, &canned(&says), Some("a")).unwrap();
    let jump = host(&inventory, "a").connection.jump;
    let seen: Vec<String> = jump
        .iter()
        .map(|Jump { name, connection: to }| {
            format!("{name}={}@{}:{} {:?} {}", to.user, to.address, to.port, to.identity_files, to.host_keys.len())
        })
        .collect();
    let want = ["g0=me@10.0.1.0:22 [] 0", "x@g1:2201=x@10.0.1.1:2201 [\"/kg1\"] 0", "g2=two@10.0.1.2:22 [] 1"];
    assert_eq!(seen, want);
    assert!(jump.iter().all(|hop| hop.connection.known_hosts == ["/kh"]));
    assert_eq!(host(&inventory, "g2").connection.address, "g2", "who is not wanted is not asked for");

    let circle = canned(&[("a", "proxyjump b"), ("b", "proxyjump a")]);
    let error = load("[hosts.a]\nssh_config = true\n", &circle, None).unwrap_err().to_string();
    assert!(error.contains("circle"), "{error}");
    let itself = canned(&[("a", "proxyjump b"), ("b", "proxyjump b")]);
    let inventory = load("[hosts.a]\nssh_config = true\n", &itself, None).unwrap();
    assert_eq!(host(&inventory, "a").connection.jump.len(), 1, "`Host *` with a bastion goes for all but the bastion");
}

#[test]
fn a_fleet_is_asked_for_at_once_and_one_cause_is_told_once() {
    let text = "[defaults]\nssh_config = true\n[groups.g]\nhosts = ['h[01:30]']\n";
    let ssh = canned(&[]);
    load(text, &ssh, None).unwrap();
    assert_eq!((ssh.rounds.get(), ssh.asked.borrow().len()), (1, 30));
    let limited = canned(&[]);
    load(text, &limited, Some("h07")).unwrap();
    assert_eq!(limited.asked.borrow().len(), 1);

    struct Absent;
    impl AskSsh for Absent {
        fn ask(&self, questions: &[SshQuestion]) -> Vec<Result<String, String>> {
            questions.iter().map(|_| Err("there is no ssh".to_owned())).collect()
        }
        fn withhold(&self, _: &str) {}
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn host_name(&self) -> String {
            String::new()
        }
        fn uid(&self) -> u32 {
            0
        }
    }
    let asking = Asking { ssh: &Absent, pattern: "all", limit: None, user: None };
    let texts = [("i.toml".into(), text.to_owned())];
    let error = crate::load::inventory::from_texts(Sink::default(), &texts, &context(), Some(&asking)).unwrap_err();
    let error = error.to_string();
    assert_eq!(error.matches("there is no ssh").count(), 1, "{error}");
    assert!(error.contains("28 more"), "{error}");
}

#[test]
fn nobody_is_asked_without_the_key_and_secrets_are_withheld_before() {
    let ssh = canned(&[]);
    load("[defaults]\nssh_config = true\n[hosts.a]\nssh_config = false\n", &ssh, None).unwrap();
    assert_eq!(ssh.rounds.get(), 0);
    let text = "[hosts.a]\nssh_config = true\npassword = { from = 'env', name = 'LOGIN' }\n\
                [services.forge]\nurl = 'https://x.example.net'\ntoken = { from = 'env', name = 'FORGE' }\n";
    load(text, &ssh, None).unwrap();
    assert_eq!(*ssh.withheld.borrow(), ["FORGE", "LOGIN"]);
    let none = load("[hosts.a]\nssh_config = 'none'\n", &ssh, None).unwrap_err().to_string();
    assert!(none.contains("ssh_config = false"), "{none}");
}
