//! Variables: from TOML tables, and from `-e`.

use camino::{Utf8Path, Utf8PathBuf};
use indexmap::IndexMap;
use serde_json::Value as Json;
use toml::de::DeValue;

use super::Context;
use super::check;
use super::diag::{Diag, Diagnostics, Place};
use super::file::{Node, Sink};
use super::literal;
use super::reader::{Fill, Reader, integer};
use super::template::{Fault, Scope, Var};
use crate::model::{Host, Vars};

/// Why `-e` was not understood. No variant holds the argument itself: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ExtraVarsError {
    /// Neither `name=value` nor `@file`.
    #[error("extra variable number {0} is neither `name=value` nor `@file.toml`")]
    Shape(usize),
    /// The name cannot be used.
    #[error("extra variable number {0}: {1}")]
    Name(usize, String),
    /// The value looks like a secret.
    #[error(
        "the extra variable `{0}` looks like a secret, which must not stand in arguments: \
         name its source in the playbook's [secrets] instead"
    )]
    Secret(String),
    /// The file is wrong.
    #[error("{0}")]
    File(Diagnostics),
}

/// Reads `-e` arguments: `name=value`, or `@file.toml`, whose path starts at the working directory. Later ones win.
///
/// `true`, `false` and whole numbers keep their type, so that `-e debug=true` works in a `when`; everything else is
/// text. A value that looks like a secret, or whose name says so, is refused and not repeated.
///
/// # Errors
/// If an argument cannot be understood, or looks like a secret.
pub fn extra_vars(args: &[String], context: &Context) -> Result<Vars, ExtraVarsError> {
    let mut vars = Vars::new();
    for (number, arg) in (1..).zip(args) {
        if let Some(path) = arg.strip_prefix('@') {
            let path = if path.starts_with("~/") { expand_home(path, context) } else { Utf8PathBuf::from(path) };
            let all = vars_file(&path, context).map_err(ExtraVarsError::File)?;
            vars.extend(all.into_iter().map(|(name, var)| (name, var.value)));
            continue;
        }
        let (name, value) = arg.split_once('=').ok_or(ExtraVarsError::Shape(number))?;
        let name = name.trim();
        if literal::looks_secret(name) {
            return Err(ExtraVarsError::Shape(number));
        }
        check::variable_name(name).map_err(|problem| ExtraVarsError::Name(number, problem.message))?;
        if literal::looks_secret(value) || literal::looks_secret(arg) || literal::names_a_secret(name, value) {
            return Err(ExtraVarsError::Secret(name.to_owned()));
        }
        vars.insert(name.to_owned(), typed(value));
    }
    Ok(vars)
}

fn expand_home(path: &str, context: &Context) -> Utf8PathBuf {
    context.home.join(path.trim_start_matches("~/"))
}

fn vars_file(path: &Utf8Path, context: &Context) -> Result<IndexMap<String, Var>, Diagnostics> {
    let sink = Sink::default();
    let vars = sink.read(&context.cwd.join(path)).and_then(|text| {
        let file = sink.add(path, &text);
        let node: Node<'_> = sink.parse(file, &text)?;
        let reader = Reader::new(&sink, &node.place, &node.table, "the variables", Fill::Keep);
        Some(read(&reader))
    });
    sink.finish()?;
    Ok(vars.unwrap_or_default())
}

/// The type that a value on the command line has.
fn typed(value: &str) -> Json {
    let whole = value.parse::<i64>().ok().filter(|number| number.to_string() == value);
    match (value, whole) {
        ("true", _) => Json::Bool(true),
        ("false", _) => Json::Bool(false),
        (_, Some(number)) => Json::from(number),
        _ => Json::from(value),
    }
}

/// Every variable of a table, with its place.
pub(super) fn read(reader: &Reader<'_>) -> IndexMap<String, Var> {
    let mut vars = IndexMap::new();
    for entry in reader.entries() {
        if let Err(problem) = check::variable_name(entry.key) {
            reader.note(Diag::at(entry.key_place, problem.message).maybe_help(problem.help));
            continue;
        }
        if let Some(value) = json(reader, &entry.place, entry.value) {
            vars.insert(entry.key.to_owned(), Var { value, place: Some(entry.place) });
        }
    }
    vars
}

/// The `vars` table of a host, a group or the defaults.
pub(super) fn read_under(reader: &Reader<'_>, key: &'static str) -> IndexMap<String, Var> {
    reader.table(key).value().map(|table| read(&table)).unwrap_or_default()
}

fn json(reader: &Reader<'_>, place: &Place, value: &DeValue<'_>) -> Option<Json> {
    let wrong = |why: &str| {
        reader.note(Diag::at(place.clone(), why));
        None
    };
    Some(match value {
        DeValue::String(text) => {
            if let Err(fault) = super::template::check(text, super::template::Mode::Plain) {
                reader.fault(place, text, fault);
                return None;
            }
            Json::from(text.as_ref())
        }
        DeValue::Integer(_) => match integer(value) {
            Some(number) => Json::from(number),
            None => return wrong("the number is out of range"),
        },
        DeValue::Float(number) => {
            let number = number.as_str().replace('_', "").parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            match number {
                Some(number) => Json::Number(number),
                None => return wrong("the number is not finite"),
            }
        }
        DeValue::Boolean(yes) => Json::Bool(*yes),
        DeValue::Datetime(time) => Json::from(time.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| json(reader, place, item.get_ref()));
            Json::Array(items.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| Some((key.get_ref().to_string(), json(reader, place, value.get_ref())?)));
            Json::Object(pairs.collect::<Option<_>>()?)
        }
    })
}

/// The variables that a host's templates see: the inventory's, over them the playbook's, over them `-e`.
pub(super) fn scope<'v>(host: &'v Host, play: &'v IndexMap<String, Var>, extra: &'v Vars) -> Scope<'v> {
    let bare = |(name, value): (&'v String, &'v Json)| (name.as_str(), Var { value: value.clone(), place: None });
    let mut all: std::collections::BTreeMap<&str, Var> = host.vars.iter().map(bare).collect();
    all.extend(play.iter().map(|(name, var)| (name.as_str(), var.clone())));
    all.extend(extra.iter().map(bare));
    all.insert(check::HOST_VARIABLE, Var { value: Json::from(host.name.as_str()), place: None });
    Scope::new(all)
}

/// A host's variables with every template in them filled in, for display; a fault stands in its variable's place.
pub fn resolved_vars(host: &Host, extra: &Vars) -> Vec<(String, Result<Json, String>)> {
    let play = IndexMap::new();
    let scope = scope(host, &play, extra);
    let names: std::collections::BTreeSet<&String> = host.vars.keys().chain(extra.keys()).collect();
    let said = |fault: Fault| fault.message;
    names.into_iter().map(|name| (name.clone(), scope.resolved(name).map_err(said))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context { home: "/home/ops".into(), cwd: "/".into(), user: "ops".to_owned() }
    }

    fn extra(args: &[&str]) -> Result<Vars, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        extra_vars(&args, &context()).map_err(|error| format!("{error} {error:?}"))
    }

    #[test]
    fn arguments_become_variables_and_later_ones_win() {
        let vars = extra(&["a=1", "b=true", "c=x=y z", "d=", "e=01", "a=2"]).unwrap();
        assert_eq!(serde_json::json!(vars), serde_json::json!({"a": 2, "b": true, "c": "x=y z", "d": "", "e": "01"}));
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2ln";
        for arg in [
            &format!("x={jwt}"),
            jwt,
            &format!("{jwt}=x"),
            "password=hunter2",
            "TOKEN=hunter2",
            "x=ghp_hunter2hunter2",
            "forge_secret=hunter2",
            "x=https://a:hunter2@b",
            "hunter2",
        ] {
            let said = extra(&[arg]).unwrap_err();
            assert!(!said.contains("hunter2") && !said.contains("eyJ"), "{said}");
        }
        assert!(extra(&["token_file=/run/x", "token=/run/x"]).is_ok());
        assert!(extra(&["inventory_hostname=x"]).unwrap_err().contains("set by keyswap"));
    }

    #[test]
    fn a_file_gives_variables_of_every_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars.toml");
        std::fs::write(&path, "a = 'x'\nb = [1, { c = true }]\nd = 1.5\n").unwrap();
        let vars = extra(&[&format!("@{}", path.display())]).unwrap();
        assert_eq!(serde_json::json!(vars), serde_json::json!({"a": "x", "b": [1, {"c": true}], "d": 1.5}));
        std::fs::write(&path, "password = 'hunter2'\n").unwrap();
        let said = extra(&[&format!("@{}", path.display())]).unwrap_err();
        assert!(said.contains("literal value") && !said.contains("hunter2"), "{said}");
        assert!(extra(&["@/nowhere/x.toml"]).unwrap_err().contains("cannot read"));
    }
}
