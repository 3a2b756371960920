//! The schemas and the loader know the same keys: each table of a schema is asked for at the loader, with a key that nobody knows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::schema::{Kind, schema};
use super::*;

/// Unlike every real key, so that no suggestion takes the list's place.
const STRANGE: &str = "zzqqzzqqzzqq";

/// What the loader says of a text.
fn said(kind: Kind, text: &str) -> String {
    let error = match kind {
        Kind::Playbook => playbook(text).err(),
        Kind::Inventory => inventory(&[("i.toml", text)]).err(),
        Kind::Identity => super::super::identity::from_text(Sink::default(), "i.toml".into(), text).err(),
    };
    error.map(|error| error.to_string()).unwrap_or_default()
}

/// The keys that the loader knows in the table where the strange one stands.
fn known(kind: Kind, text: &str) -> BTreeSet<String> {
    let said = said(kind, text);
    let about = said.split(&format!("unknown key `{STRANGE}`")).nth(1).unwrap_or_else(|| panic!("{text}\n{said}"));
    let list = about.split("known keys: ").nth(1).unwrap_or_else(|| panic!("{text}\n{said}"));
    let list = list.lines().next().unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn keys(table: &Value) -> BTreeSet<String> {
    table["properties"].as_object().unwrap().keys().cloned().collect()
}

/// Every table of a schema with its own list of keys, by its pointer.
fn tables(schema: &Value) -> Vec<String> {
    fn walk(at: &Value, pointer: &str, found: &mut Vec<String>) {
        if at["properties"].is_object() {
            assert_eq!(at["additionalProperties"], Value::Bool(false), "{pointer} takes unknown keys");
            found.push(pointer.to_owned());
        }
        match at {
            Value::Object(object) => {
                object.iter().for_each(|(key, value)| walk(value, &format!("{pointer}/{key}"), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, value)| walk(value, &format!("{pointer}/{at}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(schema, "", &mut found);
    found
}

const SOURCES: [&str; 5] = [
    "from = 'prompt'",
    "from = 'file', path = 'x'",
    "from = 'env', name = 'X'",
    "from = 'command', argv = ['x']",
    "from = 'infisical', identity = 'x.toml'",
];

/// Each table of a schema, and a file with the strange key in that very table.
fn probes(kind: Kind) -> Vec<(String, String)> {
    let strange = format!("{STRANGE} = 1");
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |pointer: &str, text: String| all.push((pointer.to_owned(), text));
    match kind {
        Kind::Playbook => {
            add("", strange.clone());
            for (at, source) in SOURCES.iter().enumerate() {
                let pointer = format!("/properties/secrets/additionalProperties/oneOf/{at}");
                add(&pointer, format!("[secrets]\ntoken = {{ {source}, {strange} }}\n"));
            }
            add("/properties/rollout", format!("[rollout]\n{strange}\n"));
            add("/properties/approval", format!("[approval]\n{strange}\n"));
            let step = "/properties/steps/items";
            // Without an action the loader lists actions alone; with one it knows the action that is there.
            let actions = [
                ("backup", "path = '/x'"),
                ("restore", "path = '/x'"),
                ("place", "secret = 'token'"),
                ("point", "key = 'A'"),
                ("restart/oneOf/0", "systemd = 'x'"),
                ("restart/oneOf/1", "docker = 'x'"),
                ("restart/oneOf/2", "compose = '/x', service = 'x'"),
                ("restart/oneOf/3", "command = 'x'"),
                ("verify-publish", "repo = 'a/b'"),
                ("command/oneOf/0", "run = 'x', undo = 'x'"),
                ("command/oneOf/1", "argv = ['x'], undo = 'x'"),
                ("wait/oneOf/0", "for = '1s'"),
                ("wait/oneOf/1", "path = '/x'"),
                ("wait/oneOf/2", "port = 1"),
                ("wait/oneOf/3", "until = 'x'"),
                ("http", "url = 'https://x'"),
                ("prove", "secret = 'token'"),
                ("assert-not-stored", "repo = 'a/b', names = ['A']"),
                ("approve", "message = 'x'"),
            ];
            for (place, keys) in actions {
                let action = place.split('/').next().unwrap();
                let head = format!("hosts = 'all'\nsecrets.token = {{ {} }}\n[[steps]]\nname = 'x'\n", SOURCES[4]);
                add(&format!("{step}/properties/{place}"), format!("{head}{action} = {{ {keys}, {strange} }}\n"));
            }
        }
        Kind::Inventory => {
            add("", strange.clone());
            let hosts = [
                ("defaults", "[defaults]"),
                ("groups/additionalProperties", "[groups.g]"),
                ("hosts/additionalProperties", "[hosts.h]"),
            ];
            for (place, head) in hosts {
                add(&format!("/properties/{place}"), format!("{head}\n{strange}\n"));
                for key in ["password", "become_password"] {
                    for (at, source) in SOURCES.iter().take(4).enumerate() {
                        let pointer = format!("/properties/{place}/properties/{key}/oneOf/{at}");
                        add(&pointer, format!("{head}\n{key} = {{ {source}, {strange} }}\n"));
                    }
                }
            }
            add("/properties/known/additionalProperties", format!("[known.k]\n{strange}\n"));
            add("/properties/services", String::new());
            add("/properties/services/properties/infisical", format!("[services.infisical]\n{strange}\n"));
            add("/properties/services/properties/forge", format!("[services.forge]\n{strange}\n"));
            let auth = "/properties/services/properties/infisical/properties/auth";
            add(auth, format!("[services.infisical.auth]\n{strange}\n"));
            for (at, source) in SOURCES.iter().take(4).enumerate() {
                for key in ["client_secret", "token"] {
                    let pointer = format!("{auth}/properties/{key}/oneOf/{at}");
                    add(&pointer, format!("[services.infisical.auth]\n{key} = {{ {source}, {strange} }}\n"));
                }
                let pointer = format!("/properties/services/properties/forge/properties/token/oneOf/{at}");
                add(&pointer, format!("[services.forge]\ntoken = {{ {source}, {strange} }}\n"));
            }
            add("/properties/approval", format!("[approval]\n{strange}\n"));
        }
        Kind::Identity => {
            add("", strange.clone());
            add("/properties/token_auth", format!("[token_auth]\n{strange}\n"));
            add("/properties/access/items", format!("[[access]]\n{strange}\n"));
        }
    }
    all
}

#[test]
fn schemas_and_the_loader_know_the_same_keys() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        let probes = probes(kind);
        let step = "/properties/steps/items";
        let asked: BTreeSet<String> = probes.iter().map(|(pointer, _)| pointer.clone()).collect();
        let there: BTreeSet<String> = tables(&schema).into_iter().filter(|pointer| pointer != step).collect();
        assert_eq!(asked, there, "{kind:?}: every table of the schema is asked for");
        for (pointer, text) in probes.iter().filter(|(_, text)| !text.is_empty()) {
            let table = schema.pointer(pointer).unwrap();
            let mut known = known(kind, text);
            // Of several shapes the loader knows the keys that tell them apart, too, and has other words for two of them.
            if let Some((all, _)) = pointer.rsplit_once("/oneOf/") {
                let shapes = schema.pointer(all).unwrap()["oneOf"].as_array().unwrap();
                let others: BTreeSet<String> = shapes.iter().filter(|shape| *shape != table).flat_map(keys).collect();
                known.retain(|key| keys(table).contains(key) || !others.contains(key));
            }
            assert_eq!(keys(table), known, "{kind:?} {pointer}\n{}", said(kind, text));
        }
    }
}

#[test]
fn schemas_and_the_loader_know_the_same_steps_and_services() {
    let schema = schema(Kind::Playbook);
    let step = keys(&schema["properties"]["steps"]["items"]);
    let strange = format!("hosts = 'all'\n[[steps]]\nname = 'x'\nbackup = {{ path = '/x' }}\n{STRANGE} = 1\n");
    let options = known(Kind::Playbook, &strange);
    let actions = crate::model::Action::KEYS.iter().map(ToString::to_string);
    assert_eq!(step, actions.chain(options).collect());

    let services = &super::super::schema::schema(Kind::Inventory)["properties"]["services"];
    let said = said(Kind::Inventory, &format!("[services.{STRANGE}]\n"));
    for service in keys(services) {
        assert!(said.contains(&format!("`{service}`")), "{said}");
    }
    assert_eq!(said.matches('`').count(), 2 + 2 * keys(services).len(), "{said}");
}

#[test]
fn required_keys_are_those_that_the_loader_misses() {
    for (kind, text) in [(Kind::Playbook, ""), (Kind::Inventory, ""), (Kind::Identity, "")] {
        let said = said(kind, text);
        let required = schema(kind)["required"].as_array().cloned().unwrap_or_default();
        for key in &required {
            let key = key.as_str().unwrap();
            let missed = said.contains(&format!("`{key}` is missing"))
                || said.contains("needs steps") && key == "steps"
                || said.contains("needs to say what it may read") && key == "access";
            assert!(missed, "{kind:?} {key}: {said}");
        }
        assert_eq!(said.matches("error").count(), required.len(), "{kind:?}: {said}");
    }
}
