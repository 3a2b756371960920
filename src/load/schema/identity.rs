//! The schema of an identity's file.

use serde_json::{Value, json};

use super::build::{Keys, shaped, table, text, time, word, words};

pub(super) fn body() -> Value {
    let access: Keys = vec![
        ("environment", text("The environment's slug")),
        ("path", shaped("The folder, from /", "^/([^/]+(/[^/]+)*)?$")),
        ("read", words("Every key that it may read, by its name; no patterns")),
    ];
    let access = table("A folder, and the keys in it that may be read", access, &["environment", "path", "read"]);
    let token_auth =
        table("How long its tokens live", vec![("ttl", time("Whole seconds, at least a minute", ""))], &["ttl"]);
    let keys = vec![
        ("name", text("The identity's name")),
        ("id", shaped("Its id, where several bear the name", "^[0-9A-Fa-f-]{32,36}$")),
        ("project", text("The project's slug or id")),
        ("scope", word("Whether it belongs to the project or to the organization", &["project", "org"])),
        ("token_auth", token_auth),
        (
            "access",
            json!({ "description": "All that it may read; anything more is drift", "type": "array", "items": access, "minItems": 1 }),
        ),
    ];
    table("A dedicated Infisical identity", keys, &["name", "project", "token_auth", "access"])
}
