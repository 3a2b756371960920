//! One JSON object a line, for programs.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Printer, Reporter};
use crate::event::{Event, EventKind};
use crate::model::{CredentialState, Fingerprint, HostResult};

/// Tells each event as one JSON object.
///
/// Every object begins with `ts`, `run`, `seq`, `event`, `host`, `step`, `step_index`, `status` (null where it has
/// none); what else there is follows from the event. Fingerprints are written short, as everywhere for people.
#[derive(Debug)]
pub struct Jsonl<W: Write> {
    printer: Printer<W>,
}

impl<W: Write> Jsonl<W> {
    /// Writes through this printer.
    pub fn new(printer: Printer<W>) -> Self {
        Self { printer }
    }
}

impl<W: Write + Send> Reporter for Jsonl<W> {
    fn event(&mut self, event: &Event) {
        self.printer.json(&object(event));
    }

    fn finish(&mut self) -> io::Result<()> {
        self.printer.finish()
    }
}

fn object(event: &Event) -> Value {
    let details = match &event.kind {
        EventKind::HostFinished { result } => host(result),
        EventKind::RunFinished { exit_code, hosts, .. } => {
            json!({ "exit_code": exit_code, "hosts": hosts.iter().map(host).collect::<Vec<_>>() })
        }
        EventKind::HostPlanned { batch, of, credentials, at_most, .. } => json!({
            "batch": batch,
            "of": of,
            "credentials": credentials.iter().map(credential).collect::<Vec<_>>(),
            "at_most": at_most,
        }),
        EventKind::Token { identity, id, expires, fingerprint, detail, .. } => json!({
            "identity": identity,
            "id": id,
            "expires": expires,
            "fingerprint": fingerprint.as_ref().map(Fingerprint::short),
            "detail": detail,
        }),
        kind => serde_json::to_value(kind).unwrap_or_default(),
    };
    let name = serde_json::to_value(&event.kind).ok().and_then(|kind| kind.get("event").cloned());
    let mut object = Map::new();
    object.insert("ts".into(), json!(event.ts));
    object.insert("run".into(), json!(event.run));
    object.insert("seq".into(), json!(event.seq));
    object.insert("event".into(), name.unwrap_or_default());
    object.insert("host".into(), json!(event.host));
    object.insert("step".into(), json!(event.step.as_ref().map(|step| &step.name)));
    object.insert("step_index".into(), json!(event.step.as_ref().map(|step| step.index)));
    object.insert("status".into(), json!(event.kind.status()));
    if let Value::Object(details) = details {
        for (key, value) in details {
            object.entry(key).or_insert(value);
        }
    }
    Value::Object(object)
}

fn credential(state: &CredentialState) -> Value {
    let short = |fingerprint: &Option<Fingerprint>| fingerprint.as_ref().map(Fingerprint::short);
    json!({ "path": state.path, "before": short(&state.before), "now": short(&state.now), "read": !state.unread })
}

fn host(result: &HostResult) -> Value {
    json!({
        "host": result.host,
        "status": result.status,
        "batch": result.batch,
        "credentials": result.credentials.iter().map(credential).collect::<Vec<_>>(),
        "reason": result.reason,
        "mend": result.mend,
        "notes": result.notes,
    })
}
