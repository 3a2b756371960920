//! The files' shape as JSON Schema, for editors: what may stand where, with a word on each key.
//!
//! An editor only helps; what counts is the loader. So a schema never refuses what the loader takes, and both know the same keys:
//! `load::tests::schema` asks the loader for each table's keys. Draft 7 is what taplo and its editors read.

mod build;
mod identity;
mod inventory;
mod playbook;

use serde_json::{Value, json};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A playbook.
    Playbook,
    /// An inventory.
    Inventory,
    /// An Infisical identity.
    Identity,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Playbook, Self::Inventory, Self::Identity];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Playbook => "playbook",
            Self::Inventory => "inventory",
            Self::Identity => "identity",
        }
    }
}

/// The schema of a kind of file.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    let body = match kind {
        Kind::Playbook => playbook::body(),
        Kind::Inventory => inventory::body(),
        Kind::Identity => identity::body(),
    };
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": format!("keyswap {}", kind.as_str()),
    });
    if let (Value::Object(schema), Value::Object(body)) = (&mut schema, body) {
        schema.extend(body);
    }
    schema
}

/// The schema as a file holds it.
#[must_use]
pub fn text(kind: Kind) -> String {
    format!("{:#}\n", schema(kind))
}
