//! `keyswap hosts`, `keyswap ping`: the inventory against the world.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accept::accept;
use super::args::{HostsArgs, HostsVerb, Output, PingArgs};
use super::inventory::{extra_vars, joined, select};
use super::session::Session;
use super::{CliError, error};
use crate::load;
use crate::model::{Become, Host, Vars};
use crate::remote::{Answer, Connect, HostFacts, Op, SshConnect};

pub(super) async fn hosts(session: &Session, args: &HostsArgs) -> Result<u8, CliError> {
    let hosts = select(session, &args.select, None)?;
    if args.verb == Some(HostsVerb::Accept) {
        return accept(session, args, hosts).await;
    }
    let extra = extra_vars(session, &args.select.extra_vars)?;
    let mut out = session.out();
    if session.global.output == Output::Jsonl {
        for host in &hosts {
            out.line(&object(host, &extra).to_string());
        }
        return Ok(0);
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
        for (key, value) in load::resolved_vars(host, &extra) {
            match value {
                Ok(value) => out.line(&format!("  {key} = {value}")),
                Err(error) => out.line(&format!("  {key}: {error}")),
            }
        }
    }
    Ok(0)
}

fn word(become_method: Become) -> String {
    match become_method {
        Become::None => "none",
        Become::Sudo => "sudo",
        Become::Doas => "doas",
    }
    .to_owned()
}

/// A host for programs.
fn object(host: &Host, extra: &Vars) -> Value {
    let to = &host.connection;
    let mut vars = serde_json::Map::new();
    let mut errors = serde_json::Map::new();
    for (key, value) in load::resolved_vars(host, extra) {
        match value {
            Ok(value) => vars.insert(key, value),
            Err(error) => errors.insert(key, error.into()),
        };
    }
    json!({
        "event": "host", "host": host.name, "address": to.address, "port": to.port, "user": to.user,
        "become": word(to.become_method), "jump": to.jump.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(),
        "state_dir": to.state_dir, "vars": vars, "errors": errors,
    })
}

/// Reaches every selected host, logs in, escalates, and says what it is.
pub(super) async fn ping(session: &Session, args: &PingArgs) -> Result<u8, CliError> {
    let hosts = select(session, &args.select, Some(&args.reach))?;
    let connect = Arc::new(session.ssh(&joined(&args.select.inventory))?);
    let permits = Arc::new(Semaphore::new(usize::from(args.reach.forks)));
    let mut tasks = JoinSet::new();
    for (at, host) in hosts.into_iter().enumerate() {
        let (connect, permits) = (Arc::clone(&connect), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (at, host.name.clone(), one(connect.as_ref(), &host).await)
        });
    }
    let mut results: Vec<_> = tasks.join_all().await;
    results.sort_by_key(|(at, ..)| *at);
    let mut out = session.out();
    let mut code = 0;
    for (_, name, result) in results {
        match result {
            Ok(facts) => {
                out.line(&format!(
                    "{name}: ok: {} as uid {}, {}, {}, state in {} ({})",
                    facts.login, facts.uid, facts.shell, facts.os, facts.state_dir, facts.phase
                ));
                if !facts.missing.is_empty() {
                    code = code.max(2);
                    out.line(&format!(
                        "{name}: lacks {}: {}",
                        facts.missing.join(", "),
                        install(&facts.os, "coreutils")
                    ));
                }
                // What the guard's watcher is started with.
                let has = |tool: &str| facts.have.iter().any(|have| have == tool);
                let by_systemd = facts.uid == 0 && has("systemd") && has("systemd-run");
                if !by_systemd && !has("setsid") {
                    let how = install(&facts.os, "util-linux");
                    out.line(&format!("{name}: cannot keep the guard, for want of setsid: {how}"));
                }
                if matches!(facts.phase.as_str(), "armed" | "undo" | "dirty") {
                    out.line(&format!("{name}: run {} holds it: keyswap resume {}", facts.run, facts.run));
                }
            }
            Err(why) => {
                code = code.max(error::UNREACHABLE);
                out.line(&format!("{name}: {why}"));
            }
        }
    }
    Ok(code)
}

/// How a package is installed on a system with this name.
fn install(os: &str, package: &str) -> String {
    let families: [(&[&str], &str); 5] = [
        (&["Debian", "Ubuntu", "Raspbian", "Mint"], "apt-get install"),
        (&["Alpine"], "apk add"),
        (&["Fedora", "Red Hat", "CentOS", "Rocky", "AlmaLinux", "Amazon"], "dnf install"),
        (&["SUSE"], "zypper install"),
        (&["Arch"], "pacman -S"),
    ];
    let family = families.iter().find(|(names, _)| names.iter().any(|name| os.contains(name)));
    family.map_or_else(|| format!("install {package}"), |(_, command)| format!("{command} {package}"))
}

async fn one(connect: &SshConnect, host: &Host) -> Result<HostFacts, String> {
    let mut conn = connect.connect(host).await.map_err(|error| match &error.hint {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })?;
    let answer = conn.call(&Op::Hello, None).await;
    conn.close().await;
    match answer {
        Ok(Answer::Hello(facts)) => Ok(*facts),
        Ok(_) => Err("the host answered another question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
