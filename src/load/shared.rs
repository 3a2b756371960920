//! Tables that several files share: where a secret comes from, a server, an approval.

use camino::{Utf8Path, Utf8PathBuf};

use super::Context;
use super::check::{self, Problem};
use super::diag::{Diag, did_you_mean, quoted};
use super::file::local_path;
use super::reader::{Entry, Fill, Got, Reader};
use crate::model::{ApprovalPolicy, SecretSource, Service, Services};

/// Says what to write where a secret's value was written.
pub(super) const SOURCES: &str = "name where it comes from: `{ from = \"prompt\" }`, `{ from = \"file\", path = … }`, \
                       `{ from = \"env\", name = … }` or `{ from = \"command\", argv = […] }`";

/// The keys of a secret's source.
const SOURCE_KEYS: &[&str] = &["from", "path", "name", "argv", "identity"];

/// `{ from = …, … }`.
pub(super) fn secret_source(
    parent: &Reader<'_>,
    entry: &Entry<'_>,
    file: &Utf8Path,
    context: &Context,
) -> Option<SecretSource> {
    source(parent, entry, (file, context), false).map(|(source, _)| source)
}

/// `{ from = …, …, identity = … }`: where a secret comes from, and the file of the identity that it is to be for, where it is
/// not minted.
pub(super) fn secret(
    parent: &Reader<'_>,
    entry: &Entry<'_>,
    file: &Utf8Path,
    context: &Context,
) -> Option<(SecretSource, Option<Utf8PathBuf>)> {
    source(parent, entry, (file, context), true)
}

/// Where something else stands in it, that may be the secret itself, and no line is drawn.
fn source(
    parent: &Reader<'_>,
    entry: &Entry<'_>,
    (file, context): (&Utf8Path, &Context),
    identified: bool,
) -> Option<(SecretSource, Option<Utf8PathBuf>)> {
    let what = format!("the secret `{}`", entry.key);
    let toml::de::DeValue::Table(table) = entry.value else {
        let message = format!("`{}` must be a table that names a source, not a value", entry.key);
        parent.note(Diag::at(entry.place.clone(), message).help(SOURCES).hidden());
        return None;
    };
    let strange = |key: &str| !SOURCE_KEYS.contains(&key) || key == "argv";
    let private = table.keys().any(|key| strange(key.get_ref()));
    let reader = Reader::new(parent.sink(), &entry.place, table, what, Fill::Never).private(private);
    let path = |text: &str| local_path(text, file, context);
    let from = reader.parsed("from", |text| {
        let kinds = ["prompt", "file", "env", "command", "infisical"];
        kinds.iter().position(|kind| *kind == text).ok_or_else(|| {
            let near = did_you_mean(text, kinds);
            let problem = Problem::new(format!("unknown source of a secret{near}")).help(SOURCES);
            if near.is_empty() { problem.hidden() } else { problem }
        })
    });
    let env_name = |text: &str| {
        let wrong = |_| Problem::new("this is no name for an environment variable").hidden();
        check::env_name(text).map_err(wrong)
    };
    let source = match reader.need("from", from) {
        Some(0) => Some(SecretSource::Prompt),
        Some(1) => reader.need("path", reader.parsed("path", path)).map(|path| SecretSource::File { path }),
        Some(2) => reader.need("name", reader.parsed("name", env_name)).map(|name| SecretSource::Env { name }),
        Some(3) => {
            let argv = reader.need("argv", reader.list("argv", check::word));
            if argv.as_ref().is_some_and(|argv| argv.first().is_none_or(String::is_empty)) {
                reader.wrong("argv", "`argv` names no program");
            }
            argv.map(|argv| SecretSource::Command { argv })
        }
        Some(_) => {
            let identity = reader.need("identity", reader.parsed("identity", path));
            identity.map(|identity| SecretSource::Infisical { identity })
        }
        None => {
            // Without a source nobody knows which of these belong to it.
            SOURCE_KEYS.iter().for_each(|key| reader.know(key));
            None
        }
    };
    let minted = matches!(source, Some(SecretSource::Infisical { .. }));
    let identity = match identified && source.is_some() && !minted {
        true => reader.parsed("identity", path).optional(),
        false => Some(None),
    };
    reader.finish();
    source.zip(identity)
}

/// `[services.…]`, each one whole: a later file replaces a service, it never mixes one's address with another's login.
pub(super) fn services(reader: &Reader<'_>, file: &Utf8Path, context: &Context, into: &mut Services) {
    for entry in reader.entries() {
        if !["infisical", "forge"].contains(&entry.key) {
            let near = did_you_mean(entry.key, ["infisical", "forge"]);
            let message = format!("unknown service {}{near}", quoted(entry.key));
            reader.note(Diag::at(entry.key_place, message).help("one of `infisical`, `forge`"));
            continue;
        }
        let Got::Is(table) = reader.open(&entry, format!("the service `{}`", entry.key)) else { continue };
        let url = table.need("url", table.parsed("url", check::url));
        let ca_file = table.parsed("ca_file", |text| local_path(text, file, context)).optional();
        let mut service = Service {
            url: url.clone().unwrap_or_default(),
            ca_file: ca_file.flatten(),
            token: None,
            client_id: None,
            client_secret: None,
        };
        if entry.key == "forge" {
            service.token = table.get("token").and_then(|token| secret_source(&table, &token, file, context));
        } else if let Got::Is(auth) = table.table("auth") {
            infisical_login(&auth, file, context, &mut service);
            auth.finish();
        }
        let slot = if entry.key == "forge" { &mut into.forge } else { &mut into.infisical };
        if url.is_some() {
            *slot = Some(service);
        }
        table.finish();
    }
}

/// `auth = { client_id, client_secret }` or `auth = { token }`.
fn infisical_login(auth: &Reader<'_>, file: &Utf8Path, context: &Context, service: &mut Service) {
    let id = auth.parsed("client_id", |text| check::plain(text, "client id", "-_.", 128));
    let secret = auth.get("client_secret");
    let token = auth.get("token");
    match (&token, id.is_absent() && secret.is_none()) {
        (Some(token), false) => {
            auth.note(Diag::at(token.key_place.clone(), "`auth` has both a token and a client id or secret"));
        }
        (None, true) => {
            auth.note(Diag::at(auth.here(), "`auth` needs `client_id` and `client_secret`, or `token`"));
        }
        (None, false) if id.is_absent() || secret.is_none() => {
            let missing = if secret.is_none() { "client_secret" } else { "client_id" };
            auth.note(Diag::at(auth.here(), format!("`{missing}` is missing in `auth`")));
        }
        _ => {}
    }
    service.client_id = id.value();
    service.client_secret = secret.and_then(|entry| secret_source(auth, &entry, file, context));
    service.token = token.and_then(|entry| secret_source(auth, &entry, file, context));
}

/// `[approval]`.
pub(super) fn approval(reader: &Reader<'_>, file: &Utf8Path, context: &Context) -> Option<ApprovalPolicy> {
    let required = reader.number("required", 1..=100).or(1);
    let signers = reader.parsed("allowed_signers", |text| local_path(text, file, context));
    let allowed_signers = reader.need("allowed_signers", signers);
    let valid = match reader.duration("valid") {
        Got::Is(valid) if valid.as_secs() == 0 => {
            reader.wrong("valid", "an approval must hold for at least one second");
            None
        }
        other => other.or(std::time::Duration::from_secs(4 * 3600)),
    };
    Some(ApprovalPolicy {
        required: u32::try_from(required?).ok()?,
        allowed_signers: allowed_signers?,
        valid_seconds: valid?.as_secs(),
    })
}
