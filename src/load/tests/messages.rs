//! Files that are wrong, and every word that is said about them.

use super::*;
use crate::model::Vars;

/// What is said about a playbook when it is read.
fn about_playbook(text: &str) -> String {
    playbook(text).err().map_or_else(|| "nothing".to_owned(), |error| error.to_string())
}

/// What is said about inventory files.
fn about_inventory(texts: &[(&str, &str)]) -> String {
    inventory(texts).err().map_or_else(|| "nothing".to_owned(), |error| error.to_string())
}

/// What is said when a playbook is filled in for a host with these variables.
fn about_host(vars: &str, text: &str) -> String {
    let hosts = inventory(&[("i.toml", &format!("[hosts.runner-01]\nvars = {{ {vars} }}\n"))]).unwrap();
    let playbook = playbook(text).unwrap();
    let steps = playbook.steps_for(&hosts.hosts[0], &Vars::new());
    steps.err().map_or_else(|| "nothing".to_owned(), |error| error.to_string())
}

const HEAD: &str = "hosts = 'all'\n[secrets.token]\nfrom = 'prompt'\n";

macro_rules! say {
    ($name:ident, $said:expr) => {
        #[test]
        fn $name() {
            // The text in question stands right here, not in the snapshot.
            insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(stringify!($name), $said);
            });
        }
    };
}

say!(unknown_action, about_playbook(&format!("{HEAD}[[steps]]\nname = 'x'\nbakcup = {{ path = '/x' }}\n")));
say!(
    unknown_keys,
    about_playbook(
        "name = 'x'\nhost = 'all'\nhosts = 'all'\n[rollout]\nbatch = 1\non_failure = 'rolback-batch'\n\
         [[steps]]\nname = 'x'\nwhenn = 'true'\nbackup = { path = '/x', mode = '0600' }\n[tasks]\n"
    )
);
say!(nothing_in_it, about_playbook(""));
say!(
    steps_without_name_or_action,
    about_playbook(&format!(
        "{HEAD}[[steps]]\nbackup = {{ path = '/x' }}\n[[steps]]\nname = 'x'\n[[steps]]\nname = 'y'\nbackup = {{ path = '/x' }}\nwait = {{ for = '5s' }}\n"
    ))
);
say!(
    shorthand,
    about_playbook(&format!(
        "{HEAD}[[steps]]\nname = 'x'\ncommand = 'ls'\n[[steps]]\nname = '{{{{ y }}}}'\nbackup = '/x'\n"
    ))
);
say!(
    wrong_fields,
    about_playbook(&format!(
        r#"{HEAD}
[[steps]]
name = "Place it"
place = {{ secret = "tokn", path = "relative/x", mode = "0644", owner = "a b" }}
[[steps]]
name = "And again"
place = {{ secret = "token", path = "/x/../..", mode = 600, newline = "no" }}
[[steps]]
name = "Point"
point = {{ file = "/r.service.d/x.conf", key = "A-B", value = "/x%y", remove = ["C D"] }}
[[steps]]
name = "Point again"
point = {{ file = "/r.env", key = "A", value = "a b", remove = ["A"], reaches = "deamon" }}
[[steps]]
name = "Restart"
restart = {{ systemd = "r", docker = "r", healthy = 5, timeout = "90" }}
[[steps]]
name = "Restart again"
restart = {{ compose = "/c.yml", drain = "of" }}
[[steps]]
name = "Command"
command = {{ run = "a", argv = ["a"] }}
[[steps]]
name = "Command again"
retries = 11
once = "bach"
command = {{ run = "a" }}
[[steps]]
name = "Verify"
verify-publish = {{ repo = "x", workflow = ".forgejo/workflows/x.yml", timeout = "0s" }}
[[steps]]
name = "Http"
http = {{ url = "http://git.example.net/x", status = 99 }}
[[steps]]
name = "Prove"
prove = {{ secret = "token" }}
"#
    ))
);
say!(
    once_for_the_run_in_the_middle,
    about_playbook(&format!(
        "{HEAD}[rollout]\nbatches = [1, '100%']\n[[steps]]\nname = 'first'\nonce = 'run'\nwait = {{ for = '1s' }}\n\
         [[steps]]\nname = 'host'\nbackup = {{ path = '/x' }}\n\
         [[steps]]\nname = 'middle'\nonce = 'run'\nwait = {{ for = '1s' }}\n\
         [[steps]]\nname = 'batch'\nonce = 'batch'\nwait = {{ for = '1s' }}\n\
         [[steps]]\nname = 'last'\nonce = 'run'\nwait = {{ for = '1s' }}\n"
    ))
);
say!(
    templates_that_cannot_work,
    about_playbook(&format!(
        "{HEAD}[[steps]]\nname = 'a'\nwhen = '{{{{ x }}}}'\ncommand = {{ run = 'echo \"{{{{ x }}}}\"', undo = 'b {{{{ ' }}\n\
         [[steps]]\nname = 'b'\nwhen = 'x =='\nbackup = {{ path = '{{% if x %}}/a{{% endif %}}' }}\n"
    ))
);
say!(
    undefined_variables_on_a_host,
    about_host(
        "data_dir = '/srv', flag = 'yes', loop_a = '{{ loop_b }}', loop_b = '{{ loop_a }}', list = [1]",
        "hosts = 'all'\n[vars]\nfile = '{{ data_dirr }}/x'\n[[steps]]\nname = 'a'\nbackup = { path = '{{ file }}' }\n\
         [[steps]]\nname = 'b'\nwhen = 'flag'\nbackup = { path = '{{ data_dir }}/{{ missing }}' }\n\
         [[steps]]\nname = 'c'\nbackup = { path = 'x{{ data_dir }}' }\n\
         [[steps]]\nname = 'd'\nbackup = { path = '{{ loop_a }}' }\n\
         [[steps]]\nname = 'e'\nbackup = { path = \"/{{ list }}\" }\n\
         [[steps]]\nname = 'f'\nbackup = { path = '{{ data_dir.x }}' }\n"
    )
);
say!(
    syntax_errors,
    about_playbook("hosts = all\nname = 'x\n[rollout\nbatches = [1, \n[[steps]]\nname = 'a' backup = 1\n")
);
say!(
    literal_secrets,
    about_playbook(&format!(
        "{HEAD}# was eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2ln\n[vars]\npassword = 'hunter2'\n\
         joined = \"eyJhbGciOiJub25lIn0\\u002eeyJzdWIiOiJ0ZXN0In0.c2ln\"\n[secrets]\nother = 'hunter2'\n\
         third = {{ from = 'env', value = 'hunter2' }}\n\
         [[steps]]\nname = 'x'\nplace = {{ secret = 'hunter2', path = '/x' }}\n\
         [[steps]]\nname = 'y'\nplace = {{ secret = 'token', path = '/x', value = 'hunter2' }}\n"
    ))
);
say!(
    syntax_error_on_a_secret_line,
    about_playbook("hosts = 'all'\ntoken = hunter2\nclient_secret = [\n  'hunter2'\n]\npassword = 'hunter2\n")
);
say!(
    an_ordinary_error_on_a_secret_line,
    about_playbook(&format!("{HEAD}[[steps]]\nname = 'x'\nbackup = {{ path = 'x', password = 'hunter2' }}\n"))
);
say!(hosts_that_are_not_there, {
    let inventory = inventory(&[("i.toml", "[groups.docker-publish]\nhosts = ['a']\n")]).unwrap();
    let text = "name = 'x'\nhosts = 'docker-publihs'\n[[steps]]\nname = 'x'\nbackup = { path = '/x' }\n";
    playbook(text).unwrap().check_hosts(&inventory).unwrap_err().to_string()
});
say!(broken_around_a_secret, about_playbook("\"\"\"\npassword = [\n\"hunter2\"]\n"));
say!(
    a_private_key,
    about_playbook(
        "hosts = 'all'\n[vars]\nkey = '''\n-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2hunter2\n-----END OPENSSH PRIVATE KEY-----\n'''\n"
    )
);
say!(
    sources,
    about_playbook(
        "hosts = 'all'\n[secrets]\na = { from = 'promt' }\nb = { from = 'file' }\nc = { from = 'env', name = 'A B' }\n\
         d = { from = 'command', argv = [] }\ne = { path = '/x' }\n[[steps]]\nname = 'x'\nbackup = { path = '/x' }\n"
    )
);
say!(
    rollout,
    about_playbook(
        "hosts = []\n[rollout]\nbatches = [0, '120%', 'x', 1.5]\nmax_failures = -1\npause = 5\nguard = '0s'\n\
         [[steps]]\nname = 'x'\nbackup = { path = '/x' }\n"
    )
);
say!(
    inventory_keys,
    about_inventory(&[(
        "i.toml",
        r#"
[default]
user = "x"
[groups.all]
[groups.g]
hosts = ["a", "b c", "r-[5:1]"]
childern = ["h"]
[hosts.a]
adress = "x"
port = 70000
become = "su"
connect_timeout = 10
host_key = "AAAA"
state_dir = "x"
vars = { a-b = 1, in = 2, inventory_hostname = "x", t = "{{ " }
[hosts."x/y"]
[hosts.c]
user = ["x"]
address = "-oProxyCommand=x"
"#
    )])
);
say!(
    inventory_references,
    about_inventory(&[(
        "i.toml",
        "[groups.web]\nhosts = ['a']\nchildren = ['dbb']\n[groups.db]\nchildren = ['a']\n[groups.a]\n"
    )])
);
say!(
    group_circle,
    about_inventory(&[
        ("i.toml", "[groups.top]\nchildren = ['a']\n[groups.a]\nchildren = ['b']\n"),
        ("j.toml", "[groups.b]\nchildren = ['a']\n")
    ])
);
say!(
    hops,
    about_inventory(&[(
        "i.toml",
        "[hosts.a]\njump = 'b'\n[hosts.b]\njump = 'a'\n[hosts.c]\njump = 'bastoin'\n[hosts.bastion]\n[hosts.d]\njump = 'x y@z:0'\n\
         [hosts.e]\naddress = '{{ inventory_hostnam }}'\n"
    )])
);
say!(
    conflicts_between_files,
    about_inventory(&[
        (
            "one.toml",
            "[known.k]\nfingerprint = 'sha256:3f1c09b2a4de'\n[approval]\nallowed_signers = 'a'\nrequired = 2\n[groups.x]\n"
        ),
        ("two.toml", "[known.k]\nfingerprint = 'sha256:000000000000'\n[approval]\nallowed_signers = 'a'\n[hosts.y]\n"),
    ])
);
say!(one_name_for_two, about_inventory(&[("one.toml", "[groups.x]\n"), ("two.toml", "[groups.y]\nhosts = ['x']\n")]));
say!(
    services,
    about_inventory(&[(
        "i.toml",
        r#"
[services.infisical]
url = "http://infisical.example.net"
auth = { client_id = "abc", client_secret = "hunter2" }
[services.forge]
url = "https://bob:hunter2@git.example.net"
token = "hunter2"
[services.gitea]
url = "x"
[known.k]
fingerprint = "hunter2"
"#
    )])
);
say!(
    service_logins,
    about_inventory(&[(
        "i.toml",
        "[services.infisical]\nurl = 'https://x'\nauth = { token = { from = 'prompt' }, client_id = 'a' }\n[approval]\nrequired = 0\nvalid = '4'\n"
    )])
);

say!(
    identity_that_no_step_proves,
    about_playbook(&format!("{HEAD}identity = 'who.toml'\n[[steps]]\nname = 'x'\nbackup = {{ path = '/x' }}\n"))
);

#[test]
fn a_file_that_is_not_there_is_told_once() {
    let path = camino::Utf8Path::new("/nowhere/x.toml");
    let said = crate::load::playbook(path, &context()).unwrap_err().to_string();
    assert_eq!(said, "error: cannot read /nowhere/x.toml: no such file or directory");
    let said = crate::load::inventory(&[path.to_owned()], &context()).unwrap_err().to_string();
    assert_eq!(said, "error: cannot read /nowhere/x.toml: no such file or directory");
}

#[test]
fn no_snapshot_shows_a_secret() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/load/tests/snapshots");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let said = text.splitn(3, "---").nth(2).unwrap_or_default();
        assert!(!said.contains("hunter2") && !said.contains("eyJ"), "{said}");
        seen += 1;
    }
    assert!(seen >= 12);
}
