//! An audit, told: a table for people, a JSON object a host for programs.

use serde_json::{Value, json};

use super::judge::{Report, day};
use crate::model::HostName;

/// How it is with one host.
pub(super) enum Audited {
    Seen(Box<Report>),
    Unreachable(String),
    Failed(String),
}

impl Audited {
    pub(super) fn status(&self) -> &'static str {
        match self {
            // Nobody said what should lie there: that is no clean bill.
            Self::Seen(report) if report.drift.is_empty() && report.credentials.is_empty() => "unknown",
            Self::Seen(report) if report.drift.is_empty() => "ok",
            Self::Seen(_) => "drift",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
        }
    }
}

/// One host as a JSON object.
pub(super) fn object(host: &HostName, audited: &Audited) -> Value {
    let mut object = json!({ "event": "host-audited", "host": host, "status": audited.status() });
    let details = match audited {
        Audited::Seen(report) => serde_json::to_value(report).unwrap_or_default(),
        Audited::Unreachable(reason) | Audited::Failed(reason) => json!({ "reason": reason }),
    };
    if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
        object.extend(details);
    }
    object
}

/// The table's lines.
pub(super) fn table(hosts: &[(HostName, Audited)]) -> Vec<String> {
    let mut rows: Vec<Vec<String>> = vec![
        ["host", "state", "credential", "name", "mode", "owner", "age", "expires", "file"].map(str::to_owned).to_vec(),
    ];
    let mut below: Vec<Vec<String>> = vec![Vec::new()];
    for (host, audited) in hosts {
        let report = match audited {
            Audited::Seen(report) => report,
            Audited::Unreachable(reason) | Audited::Failed(reason) => {
                rows.push(vec![host.to_string(), audited.status().to_owned(), reason.clone()]);
                below.push(Vec::new());
                continue;
            }
        };
        let none = || "-".to_owned();
        for (at, credential) in report.credentials.iter().enumerate() {
            let state = if at == 0 { audited.status() } else { "" };
            rows.push(vec![
                host.to_string(),
                state.to_owned(),
                credential.fingerprint.clone().unwrap_or_else(|| "absent".to_owned()),
                credential.name.clone().unwrap_or_else(none),
                credential.mode.clone(),
                format!("{}:{}", credential.uid, credential.gid),
                credential.age_seconds.map_or_else(none, age),
                credential.expires.map_or_else(none, day),
                credential.path.clone(),
            ]);
            below.push(Vec::new());
        }
        if report.credentials.is_empty() {
            rows.push(vec![
                host.to_string(),
                audited.status().to_owned(),
                "no credential file is known here".to_owned(),
            ]);
            below.push(Vec::new());
        }
        if let Some(lines) = below.last_mut() {
            lines.extend(details(report));
        }
    }
    let widths: Vec<usize> = (0..8)
        .map(|column| {
            let cells = rows.iter().filter(|row| row.len() > 3).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut lines = Vec::new();
    for (row, below) in rows.iter().zip(below) {
        let cells = row.iter().enumerate().map(|(at, cell)| match widths.get(at) {
            Some(width) if at + 1 < row.len() => format!("{cell:<width$}"),
            _ => cell.clone(),
        });
        lines.push(cells.collect::<Vec<_>>().join("  "));
        lines.extend(below);
    }
    lines
}

/// What is said of a host below its credentials.
fn details(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for pointing in &report.pointers {
        let value = pointing.value.as_deref().unwrap_or("not set");
        let leads = [
            pointing.fingerprint.clone(),
            pointing.name.clone(),
            pointing.expires.map(|end| format!("until {}", day(end))),
        ];
        let leads = leads.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let leads = if leads.is_empty() { leads } else { format!(" ({leads})") };
        lines.push(format!("    pointer  {}: {}={value}{leads}", pointing.file, pointing.key));
    }
    for process in &report.processes {
        let who = process.pid.map_or_else(|| "not found".to_owned(), |pid| format!("process {pid}"));
        let up = process.age_seconds.map(|up| format!(", up {}", age(up))).unwrap_or_default();
        let with = process.pointer.as_ref().map(|with| format!(", with {with}")).unwrap_or_default();
        lines.push(format!("    runner   {who}{up}{with}"));
    }
    for copy in &report.copies {
        let name = copy.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let old = copy.age_seconds.map(|old| format!(", {} old", age(old))).unwrap_or_default();
        let what = copy.fingerprint.as_deref().unwrap_or("nothing");
        lines.push(format!("    copy     {} of {what}{name}{old}: {}", copy.kind, copy.at));
    }
    lines.push(format!("    keyswap  {}", report.state));
    lines.extend(report.drift.iter().map(|drift| format!("    drift    {drift}")));
    lines
}

/// A length of time in its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
