//! `keyswap hosts`: what the inventory says of each host that is selected, and who said it.

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use super::CliError;
use super::accept::accept;
use super::args::{HostsArgs, HostsVerb, Output};
use super::inventory::{extra_vars, select_from};
use super::session::{Session, told};
use crate::load;
use crate::model::{Become, Host, Jump, Origin, Origins, Vars};

pub(super) async fn hosts(session: &Session, args: &HostsArgs) -> Result<u8, CliError> {
    let (inventory, hosts) = select_from(session, &args.select, None)?;
    if args.verb == Some(HostsVerb::Accept) {
        return accept(session, args, hosts).await;
    }
    let extra = extra_vars(session, &args.select.extra_vars)?;
    let mut out = session.out();
    if session.global.output == Output::Jsonl {
        for host in &hosts {
            out.line(&object(host, &extra, inventory.origins.get(&host.name)).to_string());
        }
        return told(out, 0);
    }
    let mut rows = vec![["host", "login", "become", "through"].map(str::to_owned)];
    rows.extend(hosts.iter().map(|host| {
        let to = &host.connection;
        let through: Vec<&str> = to.jump.iter().map(|hop| hop.name.as_str()).collect();
        let through = if through.is_empty() { "-".to_owned() } else { through.join(", ") };
        [host.name.to_string(), format!("{}@{}:{}", to.user, to.address, to.port), word(to.become_method), through]
    }));
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = rows.iter().map(line);
    out.line(&lines.next().unwrap_or_default());
    for (host, line) in hosts.iter().zip(lines) {
        out.line(&line);
        let origins = inventory.origins.get(&host.name).filter(|origins| asked(origins));
        for (key, value, origin) in origins.map(|origins| settings(host, origins)).unwrap_or_default() {
            let value = value.iter().map(plain).collect::<Vec<_>>().join(", ");
            let value = if value.is_empty() { "none".to_owned() } else { value };
            out.line(&format!("  {key}: {value} ({})", origin.map_or("default", said)));
        }
        for note in origins.iter().flat_map(|origins| &origins.notes) {
            out.line(&format!("  not followed: {note}"));
        }
        for (key, value) in load::resolved_vars(host, &extra) {
            match value {
                Ok(value) => out.line(&format!("  {key} = {value}")),
                Err(error) => out.line(&format!("  {key}: {error}")),
            }
        }
    }
    told(out, 0)
}

fn word(become_method: Become) -> String {
    match become_method {
        Become::None => "none",
        Become::Sudo => "sudo",
        Become::Doas => "doas",
    }
    .to_owned()
}

/// Whether OpenSSH's settings have said anything.
fn asked(origins: &Origins) -> bool {
    !origins.notes.is_empty() || origins.of.values().any(|origin| *origin == Origin::SshConfig)
}

fn said(origin: Origin) -> &'static str {
    match origin {
        Origin::Inventory => "inventory",
        Origin::SshConfig => "ssh_config",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is set for a host, each key with its values and who said them. Passwords have none.
fn settings(host: &Host, origins: &Origins) -> Vec<(&'static str, Vec<Value>, Option<Origin>)> {
    let to = &host.connection;
    let texts = |texts: &[String]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let paths = |paths: &[Utf8PathBuf]| paths.iter().map(|path| json!(path)).collect::<Vec<_>>();
    let values = |key: &str| match key {
        "address" => vec![json!(to.address)],
        "port" => vec![json!(to.port)],
        "user" => vec![json!(to.user)],
        "jump" => to.jump.iter().map(|hop| json!(hop.name)).collect(),
        "identity_file" => paths(&to.identity_files),
        "identities_only" => vec![json!(to.identities_only)],
        "identity_agent" => to.identity_agent.iter().map(|socket| json!(socket)).collect(),
        "certificate_file" => paths(&to.certificate_files),
        "known_hosts" => paths(&to.known_hosts),
        "host_key" => texts(&to.host_keys),
        "host_key_alias" => to.host_key_alias.iter().map(|alias| json!(alias)).collect(),
        "kex" => texts(&to.algorithms.kex),
        "ciphers" => texts(&to.algorithms.ciphers),
        "macs" => texts(&to.algorithms.macs),
        "host_key_algorithms" => texts(&to.algorithms.host_key_algorithms),
        "connect_timeout" => vec![json!(format!("{}ms", to.connect_timeout_ms))],
        "become" => vec![json!(word(to.become_method))],
        "state_dir" => to.state_dir.iter().map(|dir| json!(dir)).collect(),
        _ => Vec::new(),
    };
    let set = Origins::KEYS.iter().filter_map(|key| {
        let origin = origins.of.get(key).copied();
        // Where a connection always has one, the usual is worth a line as well.
        (origin.is_some() || matches!(*key, "address" | "port" | "user")).then(|| (*key, values(key), origin))
    });
    set.collect()
}

/// A host for programs.
fn object(host: &Host, extra: &Vars, origins: Option<&Origins>) -> Value {
    let to = &host.connection;
    let mut vars = serde_json::Map::new();
    let mut errors = serde_json::Map::new();
    for (key, value) in load::resolved_vars(host, extra) {
        match value {
            Ok(value) => vars.insert(key, value),
            Err(error) => errors.insert(key, error.into()),
        };
    }
    let origins = origins.cloned().unwrap_or_default();
    let settings: serde_json::Map<String, Value> = settings(host, &origins)
        .into_iter()
        .map(|(key, value, origin)| (key.to_owned(), json!({ "value": value, "from": origin.map_or("default", said) })))
        .collect();
    let hops = to.jump.iter().map(|hop| {
        let Jump { name, connection } = hop;
        json!({ "name": name, "address": connection.address, "port": connection.port, "user": connection.user })
    });
    let hops: Vec<Value> = hops.collect();
    json!({
        "event": "host", "host": host.name, "address": to.address, "port": to.port, "user": to.user,
        "become": word(to.become_method), "jump": to.jump.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(),
        "state_dir": to.state_dir, "vars": vars, "errors": errors, "settings": settings, "hops": hops,
        "not_followed": origins.notes,
    })
}
