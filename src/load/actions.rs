//! The actions of a playbook: each one's table, its defaults, and what may not be said in it.
//!
//! The same code runs twice: when the playbook is read, where texts with `{{ … }}` are not known yet, and again for
//! each host, where they are. `None` without a noted error means "not known yet".

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8PathBuf;
use indexmap::IndexMap;
use toml::de::DeValue;

use super::check::{self, Problem};
use super::diag::{Diag, nearest, quoted};
use super::literal;
use super::reader::{Entry, Got, Reader};
use super::shared::SOURCES;
use super::template::Mode;
use crate::model::{
    Action, Approve, AssertNotStored, Backup, Command, CommandLine, Drain, EnvFormat, Http, Place, Point, Prove,
    PublishOn, Reaches, RemotePath, Restart, RestartHow, Restore, SecretName, SecretSource, VerifyPublish, Wait,
    WaitFor,
};

/// The secrets that a playbook declares.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets {
    /// Where each comes from.
    pub(super) sources: IndexMap<SecretName, SecretSource>,
    /// Whose token one is to be, where it is not minted: the identity's file.
    pub(super) identities: IndexMap<SecretName, Utf8PathBuf>,
}

/// What each action looks like, for the one who wrote something else.
pub(super) fn example(key: &str) -> &'static str {
    match key {
        "backup" => "backup = { path = \"/…\" }",
        "place" => "place = { secret = \"NAME\", path = \"/…\" }",
        "point" => "point = { file = \"/…\", key = \"NAME\", value = \"/…\" }",
        "restart" => "restart = { systemd = \"UNIT\" }",
        "restore" => "restore = { path = \"/…\" }",
        "verify-publish" => "verify-publish = { repo = \"owner/name\", workflow = \"….yml\", ref = \"main\" }",
        "command" => "command = { run = \"…\", undo = \"…\" }",
        "wait" => "wait = { path = \"/…\", timeout = \"60s\" }",
        "http" => "http = { url = \"https://…\" }",
        "prove" => "prove = { secret = \"NAME\" }",
        "assert-not-stored" => "assert-not-stored = { repo = \"owner/name\", names = [\"…\"] }",
        _ => "approve = { message = \"…\" }",
    }
}

/// Reads the table of an action.
pub(super) fn read(key: &str, table: Reader<'_>, secrets: &Secrets) -> Option<Action> {
    let action = match key {
        "backup" => path(&table, "path").map(|path| Action::Backup(Backup { path })),
        "restore" => path(&table, "path").map(|path| Action::Restore(Restore { path })),
        "place" => place(&table, secrets).map(Action::Place),
        "point" => point(&table).map(Action::Point),
        "restart" => restart(&table).map(Action::Restart),
        "verify-publish" => verify_publish(&table).map(Action::VerifyPublish),
        "command" => command(&table).map(Action::Command),
        "wait" => wait(&table).map(Action::Wait),
        "http" => http(&table).map(Action::Http),
        "prove" => prove(&table, secrets).map(Action::Prove),
        "assert-not-stored" => assert_not_stored(&table).map(Action::AssertNotStored),
        _ => approve(&table).map(Action::Approve),
    };
    table.finish();
    action
}

fn remote(text: &str) -> Result<RemotePath, Problem> {
    if literal::looks_secret(text) {
        return Err(Problem::new("the path looks like a secret").hidden());
    }
    if text.ends_with('/') {
        return Err(Problem::new(format!("{} ends with `/`: it names a directory", quoted(text))));
    }
    text.parse().map_err(|error: crate::model::BadPath| {
        let problem = Problem::new(error.to_string());
        if text.starts_with("~") { problem.help("write the path on the host out, from `/`") } else { problem }
    })
}

fn path(table: &Reader<'_>, key: &'static str) -> Option<RemotePath> {
    table.need(key, table.parsed(key, remote))
}

fn declared(table: &Reader<'_>, secrets: &Secrets) -> Option<SecretName> {
    let name = table.parsed("secret", |text| {
        if secrets.sources.contains_key(text) {
            return Ok(text.to_owned());
        }
        let names = || secrets.sources.keys().map(String::as_str);
        if let Some(near) = nearest(text, names()) {
            return Err(Problem::new(format!("unknown secret {}, did you mean `{near}`?", quoted(text))));
        }
        // What stands here may be the secret itself.
        let all = names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let help =
            if all.is_empty() { "declare it under [secrets.NAME]".to_owned() } else { format!("declared: {all}") };
        Err(Problem::new("no secret of this name is declared").help(help).hidden())
    });
    table.need("secret", name)
}

fn place(table: &Reader<'_>, secrets: &Secrets) -> Option<Place> {
    for key in ["value", "content", "contents", "data", "text", "token"] {
        if let Some(entry) = table.peek(key) {
            table.forgive(key);
            let diag = Diag::at(entry.place, "a secret's value never stands in a playbook").hidden();
            table.note(diag.help(format!("declare it under [secrets.NAME] and {SOURCES}")));
        }
    }
    let secret = declared(table, secrets);
    let path = path(table, "path");
    let mode = match table.get("mode") {
        Some(Entry { value: DeValue::Integer(_), place, .. }) => {
            let diag = Diag::at(place, "`mode` must be a string of octal digits, not a number");
            table.note(diag.help("write `mode = \"0600\"`"));
            None
        }
        _ => table.parsed("mode", check::mode).or(0o600),
    };
    let owner = table.name_or_number("owner", check::user).optional();
    let group = table.name_or_number("group", check::user).optional();
    let newline = table.flag("newline").or(false);
    Some(Place { secret: secret?, path: path?, mode: mode?, owner: owner?, group: group?, newline: newline? })
}

fn point(table: &Reader<'_>) -> Option<Point> {
    let file = path(table, "file");
    let key = table.need("key", table.parsed("key", check::env_name));
    let formats = [("dotenv", EnvFormat::Dotenv), ("systemd-dropin", EnvFormat::SystemdDropin)];
    let format = match table.word("format", &formats) {
        Got::Absent => file.as_ref().map(format_of),
        other => other.value(),
    };
    if let (Some(EnvFormat::SystemdDropin), Some(file)) = (format, &file)
        && !file.as_str().ends_with(".conf")
    {
        table.wrong("file", "systemd reads only drop-ins whose name ends with `.conf`");
    }
    let value = table.need("value", table.parsed("value", |text| pointer(text, format)));
    let reaches = table.word("reaches", &[("daemon", Reaches::Daemon), ("jobs", Reaches::Jobs)]).or(Reaches::Daemon);
    let remove = table.list("remove", check::env_name).or(Vec::new());
    if let (Some(key), Some(remove)) = (&key, &remove)
        && remove.contains(key)
    {
        table.wrong("remove", format!("`remove` would take out `{key}` itself"));
        return None;
    }
    Some(Point { file: file?, key: key?, value: value?, reaches: reaches?, remove: remove?, format: format? })
}

/// A file's format by its path: `x.service.d/y.conf` is a drop-in.
fn format_of(file: &RemotePath) -> EnvFormat {
    let in_dropin_dir = file.parent().ends_with(".service.d");
    if in_dropin_dir && file.as_str().ends_with(".conf") { EnvFormat::SystemdDropin } else { EnvFormat::Dotenv }
}

/// A pointer's value: it needs no quoting in any format, and no format expands it.
fn pointer(text: &str, format: Option<EnvFormat>) -> Result<String, Problem> {
    if literal::looks_secret(text) {
        return Err(Problem::new("the value looks like a secret; it must be the path of a file that holds it").hidden());
    }
    if text.is_empty() {
        return Err(Problem::new("the value is empty"));
    }
    let safe = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if let Some(bad) = text.chars().find(|c| !safe(*c)) {
        let message =
            format!("{} holds `{}`, which means different things in env files", quoted(text), bad.escape_debug());
        return Err(Problem::new(message).help("letters, digits and `_@%+=:,./-` only"));
    }
    if format == Some(EnvFormat::SystemdDropin) && text.contains('%') {
        return Err(Problem::new(format!("{} holds `%`, which systemd expands in a drop-in", quoted(text))));
    }
    Ok(text.to_owned())
}

fn restart(table: &Reader<'_>) -> Option<Restart> {
    let how = table.exactly_one(&["systemd", "docker", "compose", "command"]);
    let how = match how {
        Some("systemd") => {
            let unit = table.parsed("systemd", |text| check::plain(text, "systemd unit", ":_.\\@-", 255));
            unit.value().map(|unit| RestartHow::Systemd { unit })
        }
        Some("docker") => {
            let container = table.parsed("docker", |text| check::plain(text, "container", "_.-", 255));
            container.value().map(|container| RestartHow::Docker { container })
        }
        Some("compose") => {
            let file = path(table, "compose");
            let service = table.parsed("service", |text| check::plain(text, "compose service", "_.-", 255));
            let service = table.need("service", service);
            file.zip(service).map(|(file, service)| RestartHow::Compose { file, service })
        }
        Some(_) => {
            let command = table.shell("command").value();
            let check = table.shell("check").optional();
            let pid_file = table.parsed("pid_file", remote).optional();
            command.zip(check).zip(pid_file).map(|((command, check), pid_file)| RestartHow::Command {
                command,
                check,
                pid_file,
            })
        }
        None => {
            ["service", "check", "pid_file"].into_iter().for_each(|key| table.know(key));
            None
        }
    };
    let healthy = table.duration("healthy").or(Duration::from_secs(5));
    let timeout = table.positive("timeout").or(Duration::from_secs(90));
    let drain = table.word("drain", &[("wait", Drain::Wait), ("off", Drain::Off)]).or(Drain::Wait);
    let drain_timeout = table.positive("drain_timeout").or(Duration::from_secs(600));
    Some(Restart { how: how?, healthy: healthy?, timeout: timeout?, drain: drain?, drain_timeout: drain_timeout? })
}

fn verify_publish(table: &Reader<'_>) -> Option<VerifyPublish> {
    let repo = table.need("repo", table.parsed("repo", check::repository));
    let workflow = table.parsed("workflow", |text| {
        let help = "the workflow's file name alone, such as `publish.yml`";
        let name = check::plain(text, "workflow", "._-", 255).map_err(|problem| problem.help(help))?;
        let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        if yaml { Ok(name) } else { Err(Problem::new(format!("{} is no workflow", quoted(&name))).help(help)) }
    });
    let workflow = table.need("workflow", workflow);
    let git_ref = table.need("ref", table.parsed("ref", |text| check::plain(text, "branch", "._-/+@", 255)));
    let image = table.parsed("image", |text| check::plain(text, "image", "._-/:@", 255)).optional();
    let timeout = table.positive("timeout").or(Duration::from_secs(20 * 60));
    let inputs = inputs(table);
    let on = table.word("on", &[("any", PublishOn::Any), ("this-runner", PublishOn::ThisRunner)]).or(PublishOn::Any);
    let runner = table.parsed("runner", |text| check::plain(text, "runner's name", "._- ()", 255)).optional();
    let job = table.parsed("job", |text| check::plain(text, "job", "._- ()", 255)).optional();
    let runner_log = table.parsed("runner_log", remote).optional();
    let pushed_by = table.parsed("pushed_by", |text| check::plain(text, "account", "._-", 255)).optional();
    Some(VerifyPublish {
        repo: repo?,
        workflow: workflow?,
        git_ref: git_ref?,
        image: image?,
        timeout: timeout?,
        inputs: inputs?,
        on: on?,
        runner: runner?,
        job: job?,
        runner_log: runner_log?,
        pushed_by: pushed_by?,
    })
}

/// A workflow's inputs: names and texts.
fn inputs(table: &Reader<'_>) -> Option<BTreeMap<String, String>> {
    let inputs = match table.table("inputs") {
        Got::Absent => return Some(BTreeMap::new()),
        other => other.value()?,
    };
    let mut known = true;
    let mut all = BTreeMap::new();
    for entry in inputs.entries() {
        let text = match entry.value {
            DeValue::String(raw) => inputs.filled(&entry.place, raw, Mode::Plain),
            DeValue::Boolean(yes) => Got::Is(yes.to_string()),
            DeValue::Integer(number) => Got::Is(number.to_string()),
            _ => {
                inputs.note(Diag::at(entry.place, "an input is a string, a whole number, true or false"));
                Got::Unknown
            }
        };
        match text {
            Got::Is(text) => drop(all.insert(entry.key.to_owned(), text)),
            _ => known = false,
        }
    }
    known.then_some(all)
}

fn command(table: &Reader<'_>) -> Option<Command> {
    let argv = |key| match table.words(key, check::word) {
        Got::Is(words) if words.first().is_none_or(String::is_empty) => {
            table.wrong(key, format!("`{key}` names no program"));
            None
        }
        other => other.value().map(CommandLine::Argv),
    };
    let run = match table.exactly_one(&["run", "argv"]) {
        Some("run") => table.shell("run").value().map(CommandLine::Shell),
        Some(_) => argv("argv"),
        None => None,
    };
    let undo = match table.get("undo") {
        None => Some(None),
        Some(Entry { value: DeValue::Array(_), .. }) => argv("undo").map(Some),
        Some(_) => table.shell("undo").value().map(|line| Some(CommandLine::Shell(line))),
    };
    let changes = table.flag("changes").or(true);
    let has_undo = table.has("undo");
    match changes {
        Some(true) if !has_undo => {
            let diag = Diag::at(table.here(), "a command needs an `undo`, so that it can be taken back");
            table.note(diag.help("or `changes = false`, if it changes nothing"));
        }
        Some(false) if has_undo => {
            table.wrong("changes", "a command that changes nothing needs no `undo`");
        }
        _ => {}
    }
    changes?;
    Some(Command { run: run?, undo: undo? })
}

fn wait(table: &Reader<'_>) -> Option<Wait> {
    let until = match table.exactly_one(&["for", "path", "port", "until"]) {
        Some("for") => table.positive("for").value().map(WaitFor::Time),
        Some("path") => path(table, "path").map(WaitFor::Path),
        Some("port") => {
            table.number("port", 1..=65535).value().and_then(|port| u16::try_from(port).ok()).map(WaitFor::Port)
        }
        Some(_) => table.shell("until").value().map(WaitFor::Command),
        None => None,
    };
    let timeout = table.positive("timeout").or(Duration::from_secs(60));
    Some(Wait { until: until?, timeout: timeout? })
}

fn http(table: &Reader<'_>) -> Option<Http> {
    let url = table.need("url", table.parsed("url", |text| check::url(text).map(|_| text.to_owned())));
    let status = table.number("status", 100..=599).or(200);
    let contains = table.parsed("contains", check::word).optional();
    let timeout = table.positive("timeout").or(Duration::from_secs(10));
    Some(Http { url: url?, status: u16::try_from(status?).ok()?, contains: contains?, timeout: timeout? })
}

fn prove(table: &Reader<'_>, secrets: &Secrets) -> Option<Prove> {
    let secret = declared(table, secrets)?;
    let identity = secrets.identities.get(&secret).cloned();
    let minted = matches!(secrets.sources.get(&secret), Some(SecretSource::Infisical { .. }));
    if !minted && identity.is_none() {
        let place = table.peek("secret").map_or_else(|| table.here(), |entry| entry.place);
        let diag = Diag::at(place, format!("`{secret}` names no identity: nothing says what it may read"));
        table.note(diag.help(format!("name the identity's file in [secrets.{secret}]: `identity = \"….toml\"`")));
        return None;
    }
    Some(Prove { secret, identity })
}

fn assert_not_stored(table: &Reader<'_>) -> Option<AssertNotStored> {
    let repo = table.need("repo", table.parsed("repo", check::repository));
    let names = table.need("names", table.list("names", check::env_name));
    if names.as_ref().is_some_and(Vec::is_empty) {
        table.wrong("names", "`names` is empty");
        return None;
    }
    Some(AssertNotStored { repo: repo?, names: names? })
}

fn approve(table: &Reader<'_>) -> Option<Approve> {
    table.need("message", table.parsed("message", check::sentence)).map(|message| Approve { message })
}
