//! The schema of a playbook.

use serde_json::{Value, json};

use super::build::{
    Keys, approval, flag, named, number, one_of, remote_path, shaped, source, table, templated, text, texts, time,
    vars, word, words,
};
use crate::model::Action;

pub(super) fn body() -> Value {
    let steps = json!({ "description": "What is done on each host, in order", "type": "array", "items": step(), "minItems": 1 });
    let keys = vec![
        ("name", text("What it does, in a line")),
        ("hosts", texts("Which hosts: names, groups, * globs, !not, &and")),
        ("vars", vars("Variables for the steps; the inventory's are under them, -e is over them")),
        ("secrets", named("The secrets that steps name", &source("A secret", true))),
        ("rollout", rollout()),
        ("approval", approval()),
        ("steps", steps),
    ];
    table(
        "A playbook: a credential is swapped step by step, and every step can be taken back",
        keys,
        &["hosts", "steps"],
    )
}

fn rollout() -> Value {
    let size = json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^(100|[1-9][0-9]?|0[0-9]*[1-9][0-9]?)%$" }] });
    let batches = json!({
        "description": "How many hosts at a time: numbers, or percent of all selected hosts; the last one repeats",
        "anyOf": [size, { "type": "array", "items": size, "minItems": 1 }],
    });
    let scopes = ["rollback-batch", "rollback-host", "rollback-all", "hold"];
    let guard = json!({
        "description": "A host puts itself back when keyswap is silent this long (120s); \"off\" turns it off",
        "anyOf": [{ "const": "off" }, time("How long", "120s")],
    });
    let keys = vec![
        ("batches", batches),
        ("max_failures", number("More failed hosts than this stop the rollout (0)", 0, 1_000_000)),
        (
            "on_failure",
            word("What goes back when a host fails; hold: nothing, for a dead or leaked old credential", &scopes),
        ),
        ("pause", time("How long to wait between batches", "0s")),
        ("guard", guard),
    ];
    table("How the hosts are worked through", keys, &[])
}

fn step() -> Value {
    let mut keys: Keys = vec![
        ("name", text("What it does, in a line")),
        (
            "when",
            json!({ "description": "Only where this expression holds, such as data_dir is defined", "type": ["string", "boolean"] }),
        ),
        ("once", word("For each host, once for each batch, or once for the run", &["host", "batch", "run"])),
        ("retries", templated(number("How often it is tried again (0)", 0, 10))),
        ("timeout", templated(time("The longest that it may take", ""))),
    ];
    keys.extend(Action::KEYS.iter().map(|key| (*key, action(key))));
    let mut step = table("A step: a name, exactly one action, and options", keys, &["name"]);
    if let Value::Object(step) = &mut step {
        let one: Vec<Value> = Action::KEYS.iter().map(|key| json!({ "required": [key] })).collect();
        step.insert("oneOf".to_owned(), one.into());
    }
    step
}

fn action(key: &str) -> Value {
    match key {
        "backup" => {
            table("Keep a copy of a file that outlives the run", vec![("path", remote_path("The file"))], &["path"])
        }
        "restore" => table(
            "Put the newest backup back that differs from what is live",
            vec![("path", remote_path("The file"))],
            &["path"],
        ),
        "place" => place(),
        "point" => point(),
        "restart" => restart(),
        "verify-publish" => verify_publish(),
        "command" => command(),
        "wait" => wait(),
        "http" => http(),
        "prove" => table(
            "Prove that a secret reads its identity's keys and nothing else",
            vec![("secret", text("One of [secrets], which names its identity"))],
            &["secret"],
        ),
        "assert-not-stored" => table(
            "Names that the forge must not keep among its secrets",
            vec![("repo", text("owner/name")), ("names", texts("The names"))],
            &["repo", "names"],
        ),
        _ => table("Wait for a person's yes, or a signature", vec![("message", text("The question"))], &["message"]),
    }
}

fn place() -> Value {
    let owner = |says: &str| json!({ "description": says, "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] });
    let mode = templated(shaped("Octal, for the owner alone (0600)", "^(0o)?0?[4-7]00$"));
    let keys = vec![
        ("secret", text("One of [secrets]")),
        ("path", remote_path("The file")),
        ("mode", mode),
        ("owner", owner("Name or number; by default as it is")),
        ("group", owner("Name or number; by default as it is")),
        ("newline", templated(flag("End it with a line end", false))),
    ];
    table("Write a secret into a file", keys, &["secret", "path"])
}

fn point() -> Value {
    let keys = vec![
        ("file", remote_path("The env file")),
        ("key", text("The variable")),
        ("value", text("The path of the file that holds the secret, as the runner sees it")),
        (
            "format",
            templated(
                json!({ "description": "How the file is written; by default told by its path", "type": "string", "enum": ["dotenv", "systemd-dropin"] }),
            ),
        ),
        (
            "reaches",
            templated(word("Where it must be seen: in the running process, or by jobs only", &["daemon", "jobs"])),
        ),
        ("remove", texts("Variables to take out, which would outrank it")),
    ];
    table("Set one variable of an env file to the secret's path", keys, &["file", "key", "value"])
}

fn restart() -> Value {
    let shape = |says: &str, own: Keys, required: &[&str]| {
        let mut keys = own;
        keys.extend([
            ("healthy", templated(time("How long the new process must live", "5s"))),
            ("timeout", templated(time("The longest that the restart may take", "90s"))),
            ("drain", templated(word("Wait until the runner works on no job, or do not", &["wait", "off"]))),
            ("drain_timeout", templated(time("The longest that it waits for that", "10m"))),
        ]);
        table(says, keys, required)
    };
    let shapes = vec![
        shape("A systemd unit", vec![("systemd", text("The unit"))], &["systemd"]),
        shape(
            "A docker container; its env file is not read anew",
            vec![("docker", text("The container"))],
            &["docker"],
        ),
        shape(
            "A service of a compose file, created anew",
            vec![("compose", remote_path("The compose file")), ("service", text("The service in it"))],
            &["compose", "service"],
        ),
        shape(
            "A command line",
            vec![
                ("command", text("Restarts it")),
                ("check", text("Exits 0 when it is up")),
                ("pid_file", remote_path("Names its process")),
            ],
            &["command"],
        ),
    ];
    one_of("Restart the runner, and see that it stays up with what it shall have", &shapes)
}

fn verify_publish() -> Value {
    let input = json!({ "type": ["string", "boolean", "integer"] });
    let keys = vec![
        ("repo", text("owner/name")),
        ("workflow", templated(shaped("The workflow's file name", r"\.ya?ml$"))),
        ("ref", text("The branch")),
        ("image", text("owner/name:tag: must be pushed anew during the run")),
        ("timeout", templated(time("The longest that it may take", "20m"))),
        ("inputs", named("The workflow's inputs", &input)),
        (
            "on",
            templated(word("Where it must have run: anywhere, or on a host of this batch", &["any", "this-runner"])),
        ),
        ("runner", text("The name by which the forge knows this host's runner")),
        ("job", text("With `this-runner`: the job that must have run there; all of them without it")),
        ("runner_log", remote_path("The runner's own log on the host")),
        ("pushed_by", text("The account that must have pushed the image")),
    ];
    table("Run a workflow for real, and see that it publishes", keys, &["repo", "workflow", "ref"])
}

fn command() -> Value {
    let undo = json!({ "description": "Takes it back", "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] });
    let both = |own: (&'static str, Value)| {
        let required = [own.0];
        let keys = vec![
            own,
            ("undo", undo.clone()),
            ("changes", templated(flag("false: it changes nothing, and needs no undo", true))),
        ];
        let mut table = table("A command", keys, &required);
        if let Value::Object(table) = &mut table {
            table.insert("anyOf".to_owned(), json!([{ "required": ["undo"] }, { "required": ["changes"] }]));
        }
        table
    };
    let run = text("A command line for sh; each {{ }} in it becomes one quoted word");
    let argv = words("A program and its arguments; no shell reads them");
    one_of("Run a command, which is never run twice", &[both(("run", run)), both(("argv", argv))])
}

fn wait() -> Value {
    let shape = |key: &'static str, value: Value| {
        let keys = vec![(key, value), ("timeout", templated(time("The longest that it waits", "60s")))];
        table("A condition", keys, &[key])
    };
    let shapes = vec![
        shape("for", templated(time("So long", ""))),
        shape("path", remote_path("Until this file is there")),
        shape("port", templated(number("Until somebody listens on this port of the loopback address", 1, 65535))),
        shape("until", text("Until this command line exits 0")),
    ];
    one_of("Wait", &shapes)
}

fn http() -> Value {
    let keys = vec![
        ("url", templated(shaped("What to ask, from this machine", "^https?://"))),
        ("status", templated(number("The status that must come (200)", 100, 599))),
        ("contains", text("A text that the answer must hold")),
        ("timeout", templated(time("The longest that it may take", "10s"))),
    ];
    table("Ask a web address", keys, &["url"])
}
