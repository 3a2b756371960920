//! The identity's file: who it is, how long its tokens live, and every key that it may read.
//!
//! What would widen it by a slip of the pen is refused here: patterns, empty lists, names that stand twice.

use std::collections::BTreeSet;

use camino::Utf8Path;
use toml::de::DeValue;

use super::check::{self, Problem};
use super::diag::{Diag, Diagnostics, Place, quoted};
use super::file::{Node, Sink};
use super::reader::{Entry, Fill, Reader};
use crate::model::{Access, IdentityScope, IdentitySpec};

/// Reads an identity's file.
///
/// # Errors
/// Everything that is wrong with the file, at once.
pub fn identity(path: &Utf8Path) -> Result<IdentitySpec, Diagnostics> {
    let sink = Sink::default();
    let text = sink.read(path);
    from_text(sink, path, text.as_deref().unwrap_or_default())
}

/// [`identity`], from a text that was read already.
pub(super) fn from_text(sink: Sink, path: &Utf8Path, text: &str) -> Result<IdentitySpec, Diagnostics> {
    let mut identity = None;
    if sink.is_clean() {
        let file = sink.add(path, text);
        if let Some(node) = sink.parse(file, text) {
            identity = read(&sink, &node);
        }
    }
    sink.finish()?;
    // For what cannot happen: a reader gave up without saying why.
    identity.ok_or_else(|| Diagnostics::new(Vec::new(), vec![Diag::new(format!("{path} could not be understood"))]))
}

fn read(sink: &Sink, node: &Node<'_>) -> Option<IdentitySpec> {
    let reader = Reader::new(sink, &node.place, &node.table, "an identity", Fill::Never);
    let plain = |what: &'static str| move |text: &str| check::plain(text, what, "._-", 64);
    let name = reader.need("name", reader.parsed("name", plain("name for an identity")));
    let id = reader.parsed("id", uuid).optional();
    let project = reader.need("project", reader.parsed("project", plain("project's slug or id")));
    let scopes = [("project", IdentityScope::Project), ("org", IdentityScope::Org)];
    let scope = reader.word("scope", &scopes).or(IdentityScope::Project);
    let ttl = match reader.need("token_auth", reader.table("token_auth")) {
        Some(table) => {
            let ttl = table.need("ttl", table.positive("ttl"));
            table.finish();
            ttl.filter(|ttl| {
                let whole = ttl.as_secs() >= 60 && ttl.subsec_nanos() == 0;
                if !whole {
                    reader.wrong("token_auth", "`ttl` must be whole seconds, at least a minute");
                }
                whole
            })
        }
        None => None,
    };
    let access = accesses(&reader);
    reader.finish();
    Some(IdentitySpec { name: name?, id: id?, project: project?, scope: scope?, ttl: ttl?, access: access? })
}

fn uuid(text: &str) -> Result<String, Problem> {
    let id = uuid::Uuid::parse_str(text).map_err(|_| {
        Problem::new(format!("{} is no id of an identity", quoted(text)))
            .help("such as `00000000-0000-4000-8000-000000000000`")
    })?;
    Ok(id.to_string())
}

fn accesses(reader: &Reader<'_>) -> Option<Vec<Access>> {
    let Some(Entry { value, place, key_place, .. }) = reader.get("access") else {
        let diag = Diag::at(reader.here(), "an identity needs to say what it may read");
        reader.note(diag.help("each folder begins with `[[access]]`"));
        return None;
    };
    let DeValue::Array(items) = value else {
        let diag = Diag::at(key_place, "`access` must be a list of tables");
        reader.note(diag.help("each folder begins with `[[access]]`"));
        return None;
    };
    if items.is_empty() {
        reader.note(Diag::at(place, "an identity that may read nothing is of no use"));
        return None;
    }
    let mut all = Vec::new();
    let mut folders = BTreeSet::new();
    for item in items.iter() {
        let place = Place::new(place.file, &item.span());
        let DeValue::Table(table) = item.get_ref() else {
            reader.note(Diag::at(place, "an access is a table"));
            continue;
        };
        let table = Reader::new(reader.sink(), &place, table, "an access", Fill::Never);
        let environment = table.need(
            "environment",
            table.parsed("environment", |text| check::plain(text, "environment's slug", "_-", 64)),
        );
        let path = table.need("path", table.parsed("path", folder));
        let read = match table.need("read", table.words("read", secret)) {
            Some(read) => names(&table, read),
            None => None,
        };
        table.finish();
        let (Some(environment), Some(path), Some(read)) = (environment, path, read) else { continue };
        if !folders.insert((environment.clone(), path.clone())) {
            reader.note(Diag::at(place, format!("{environment}:{path} has an access already")));
            continue;
        }
        all.push(Access { environment, path, read });
    }
    (all.len() == items.len()).then_some(all)
}

fn names(table: &Reader<'_>, read: Vec<String>) -> Option<Vec<String>> {
    if read.is_empty() {
        table.wrong("read", "`read` names no secret");
        return None;
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = read.iter().find(|name| !seen.insert(*name)) {
        table.wrong("read", format!("{} stands there twice", quoted(twice)));
        return None;
    }
    Some(read)
}

/// The name of a secret: every one by itself, never a pattern.
fn secret(text: &str) -> Result<String, Problem> {
    if text.contains(['*', '?', '{', '[']) {
        let problem = Problem::new(format!("{} is a pattern", quoted(text)));
        return Err(problem.help("name every key; what is not named may not be read"));
    }
    check::plain(text, "name of a secret", "_-.", 256)
}

/// A folder, from `/`.
fn folder(text: &str) -> Result<String, Problem> {
    if !text.starts_with('/') {
        return Err(Problem::new(format!("{} does not start with `/`", quoted(text))));
    }
    if text == "/" {
        return Ok(text.to_owned());
    }
    let good = |part: &str| check::plain(part, "folder", "_-", 128).is_ok();
    if text.split('/').skip(1).all(good) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("{} is no folder", quoted(text)))
        .help("such as `/home-platform/infra`: letters, digits, `-` and `_` between slashes, none at the end"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(text: &str) -> Result<IdentitySpec, String> {
        from_text(Sink::default(), "i.toml".into(), text).map_err(|error| error.to_string())
    }

    const GOOD: &str = r#"
name    = "forgejo-docker-publish"
project = "home-platform"
scope   = "project"
[token_auth]
ttl = "90d"
[[access]]
environment = "prod"
path = "/home-platform/infra"
read = ["KAN_FORGEJO_REGISTRY_USERNAME", "KAN_FORGEJO_REGISTRY_TOKEN"]
"#;

    #[test]
    fn a_whole_file() {
        let spec = load(GOOD).unwrap();
        assert_eq!((spec.name.as_str(), spec.project.as_str()), ("forgejo-docker-publish", "home-platform"));
        assert_eq!((spec.scope, spec.ttl), (IdentityScope::Project, Duration::from_secs(7_776_000)));
        assert_eq!((spec.access.len(), spec.access[0].read.len(), spec.id), (1, 2, None));
        let org = GOOD.replace("\"project\"\n[", "\"org\"\nid = \"00000000-0000-4000-8000-00000000000A\"\n[");
        let org = load(&org).unwrap();
        assert_eq!(org.scope, IdentityScope::Org);
        assert_eq!(org.id.as_deref(), Some("00000000-0000-4000-8000-00000000000a"));
    }

    #[test]
    fn what_would_widen_it_is_refused() {
        for (from, to, says) in [
            ("\"KAN_FORGEJO_REGISTRY_TOKEN\"", "\"KAN_*\"", "`KAN_*` is a pattern"),
            ("\"KAN_FORGEJO_REGISTRY_TOKEN\"", "\"KAN_FORGEJO_REGISTRY_USERNAME\"", "stands there twice"),
            ("[\"KAN_FORGEJO_REGISTRY_USERNAME\", \"KAN_FORGEJO_REGISTRY_TOKEN\"]", "[]", "names no secret"),
            ("[\"KAN_FORGEJO_REGISTRY_USERNAME\", \"KAN_FORGEJO_REGISTRY_TOKEN\"]", "\"A B\"", "a list of strings"),
            ("\"/home-platform/infra\"", "\"/home-platform/**\"", "is no folder"),
            ("\"/home-platform/infra\"", "\"/home-platform/../x\"", "is no folder"),
            ("\"/home-platform/infra\"", "\"/home-platform/\"", "is no folder"),
            ("\"/home-platform/infra\"", "\"home-platform\"", "does not start with `/`"),
            ("environment = \"prod\"", "enviroment = \"prod\"", "did you mean `environment`"),
            ("\"90d\"", "\"0s\"", "longer than nothing"),
            ("\"90d\"", "\"500ms\"", "whole seconds"),
            ("\"90d\"", "90", "a length of time"),
            ("scope   = \"project\"", "scope = \"projekt\"", "unknown value `projekt`"),
            ("[token_auth]", "[tokenauth]", "`token_auth` is missing"),
            ("[[access]]", "[access]", "must be a list of tables"),
            ("name    =", "id = \"x\"\nname    =", "is no id of an identity"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let said = load(&text).unwrap_err();
            assert!(said.contains(says), "{to}: {said}");
        }
    }

    #[test]
    fn a_folder_has_one_access() {
        let twice = format!("{GOOD}[[access]]\nenvironment = 'prod'\npath = '/home-platform/infra'\nread = ['A']\n");
        assert!(load(&twice).unwrap_err().contains("has an access already"));
        let two = format!("{GOOD}[[access]]\nenvironment = 'dev'\npath = '/'\nread = ['A']\n");
        assert_eq!(load(&two).unwrap().access.len(), 2);
    }

    #[test]
    fn everything_is_told_at_once() {
        let said = load("[[access]]\nread = []\n").unwrap_err();
        for what in
            ["`name` is missing", "`project` is missing", "`token_auth`", "`environment`", "`path`", "no secret"]
        {
            assert!(said.contains(what), "{what}: {said}");
        }
    }
}
