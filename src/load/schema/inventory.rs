//! The schema of an inventory.

use serde_json::Value;

use super::build::{
    Keys, approval, flag, flag_or_text, named, number, shaped, some_of, source, table, text, texts, time, vars, word,
};
use crate::model::algorithms;

pub(super) fn body() -> Value {
    let group = {
        let mut keys =
            vec![("hosts", texts("Its hosts; runner-[01:40] is forty of them")), ("children", texts("Groups in it"))];
        keys.extend(host_keys());
        table("A group: its hosts, and host keys that go for all of them", keys, &[])
    };
    let known = table(
        "A credential that you know",
        vec![
            ("fingerprint", shaped("As keyswap audit prints it", "^sha256:[0-9a-f]{12,64}$")),
            ("shared", flag("Others use it too: a host that holds it has drifted", false)),
        ],
        &["fingerprint"],
    );
    let keys = vec![
        ("defaults", table("Host keys that go for every host", host_keys(), &[])),
        ("groups", named("Groups of hosts, by name", &group)),
        ("hosts", named("Hosts by name, or by a range of names", &table("A host", host_keys(), &[]))),
        ("known", named("Names for fingerprints; keyswap audit and keyswap retire use them", &known)),
        ("services", services()),
        ("approval", approval()),
    ];
    table("An inventory: which hosts there are, how to reach them, and which servers belong to them", keys, &[])
}

fn host_keys() -> Keys {
    let local = "relative to this file; ~/ is your home";
    vec![
        ("address", text("Name or IP address; by default the host's name here")),
        ("port", number("Its SSH port (22)", 1, 65535)),
        ("user", text("Log in as this user; by default your own name")),
        ("jump", texts("Hops on the way: hosts of this inventory or user@host:port; [] or none for no hop")),
        ("identity_file", texts(&format!("Key files to log in with, {local}; a .pub names a key that an agent holds"))),
        ("identities_only", flag("Of the agent's keys use only those that identity_file names", false)),
        ("identity_agent", text(&format!("The agent's socket, {local}; none for no agent"))),
        ("certificate_file", texts(&format!("Certificates that do not stand beside their keys, {local}"))),
        (
            "ssh_config",
            flag_or_text(&format!(
                "Take what is not said here from OpenSSH's settings, by ssh -G: true for the usual files, or a file, {local}"
            )),
        ),
        ("known_hosts", texts(&format!("Files with known host keys, {local}"))),
        ("host_key", texts("Pins the host's key: only these are accepted, such as ssh-ed25519 AAAA…")),
        ("host_key_alias", text("Look the host's key or certificate up under this name")),
        ("kex", some_of("Key exchanges to offer, in order", algorithms::KEX)),
        ("ciphers", some_of("Ciphers to offer, in order", algorithms::CIPHERS)),
        ("macs", some_of("Message authentication codes to offer, in order", algorithms::MACS)),
        ("host_key_algorithms", some_of("Host key signatures to accept, in order", algorithms::HOST_KEY_ALGORITHMS)),
        ("become", word("How one becomes root there", &["none", "sudo", "doas"])),
        ("password", source("The login's password", false)),
        ("become_password", source("The password that sudo wants", false)),
        ("connect_timeout", time("How long to wait for a connection", "10s")),
        (
            "state_dir",
            shaped("Where keyswap keeps its state on the host (/var/lib/keyswap)", r"^(/[A-Za-z0-9/._-]*|.*\{\{.*)$"),
        ),
        ("vars", vars("Variables for playbooks: {{ name }}")),
    ]
}

fn services() -> Value {
    let url = || shaped("Its address; plain http only to loopback", "^https?://");
    let ca = || text("The certificate of a private CA, relative to this file");
    let login = vec![
        ("client_id", text("The client id of a Universal Auth login")),
        ("client_secret", source("The client secret of a Universal Auth login", false)),
        ("token", source("An access token, instead of id and secret", false)),
    ];
    let infisical = vec![("url", url()), ("ca_file", ca()), ("auth", table("How keyswap logs in there", login, &[]))];
    let forge = vec![("url", url()), ("ca_file", ca()), ("token", source("An access token", false))];
    let keys = vec![
        ("infisical", table("The Infisical server", infisical, &["url"])),
        ("forge", table("The Forgejo or Gitea server; which of them it is is asked", forge, &["url"])),
    ];
    table("The servers of this environment", keys, &[])
}
