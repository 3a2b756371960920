//! The pieces that schemas are built of.

use serde_json::{Map, Value, json};

/// Keys of a table.
pub(super) type Keys = Vec<(&'static str, Value)>;

/// A text with `{{ }}` in it: what it will be is known for each host only.
const TEMPLATE: &str = r"\{\{";

/// Any text.
pub(super) fn text(says: &str) -> Value {
    json!({ "description": says, "type": "string" })
}

/// A text of a shape.
pub(super) fn shaped(says: &str, pattern: &str) -> Value {
    json!({ "description": says, "type": "string", "pattern": pattern })
}

/// One of a few words, the default first.
pub(super) fn word(says: &str, words: &[&str]) -> Value {
    json!({ "description": says, "type": "string", "enum": words, "default": words.first() })
}

/// A whole number.
pub(super) fn number(says: &str, least: u64, most: u64) -> Value {
    json!({ "description": says, "type": "integer", "minimum": least, "maximum": most })
}

/// `true` or `false`.
pub(super) fn flag(says: &str, default: bool) -> Value {
    json!({ "description": says, "type": "boolean", "default": default })
}

/// `true` or `false`, or a text.
pub(super) fn flag_or_text(says: &str) -> Value {
    json!({ "description": says, "anyOf": [{ "type": "boolean" }, { "type": "string" }], "default": false })
}

/// A length of time.
pub(super) fn time(says: &str, default: &str) -> Value {
    let pattern = r"^\s*[0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]";
    let mut value = shaped(&format!("{says}. A length of time with its unit, such as 90s, 10m, 1m 30s"), pattern);
    if let Value::Object(object) = &mut value
        && !default.is_empty()
    {
        object.insert("default".to_owned(), default.into());
    }
    value
}

/// A path on the host.
pub(super) fn remote_path(says: &str) -> Value {
    templated(shaped(&format!("{says}. A whole path, from /"), "^/.*[^/]$"))
}

/// A text or several.
pub(super) fn texts(says: &str) -> Value {
    json!({ "description": says, "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
}

/// One or several of a few words.
pub(super) fn some_of(says: &str, words: &[&str]) -> Value {
    let one = json!({ "type": "string", "enum": words });
    json!({ "description": says, "anyOf": [one, { "type": "array", "items": one }] })
}

/// Several texts, at least one.
pub(super) fn words(says: &str) -> Value {
    json!({ "description": says, "type": "array", "items": { "type": "string" }, "minItems": 1 })
}

/// That, or a text with `{{ }}` that becomes that.
pub(super) fn templated(value: Value) -> Value {
    let Value::Object(mut inner) = value else { return value };
    let mut outer = Map::new();
    for key in ["description", "default"] {
        if let Some(said) = inner.shift_remove(key) {
            outer.insert(key.to_owned(), said);
        }
    }
    outer.insert("anyOf".to_owned(), json!([inner, { "type": "string", "pattern": TEMPLATE }]));
    Value::Object(outer)
}

/// A table with these keys and no others.
pub(super) fn table(says: &str, keys: Keys, required: &[&str]) -> Value {
    let keys: Map<String, Value> = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut table = json!({ "description": says, "type": "object", "properties": keys, "additionalProperties": false });
    if let Value::Object(table) = &mut table
        && !required.is_empty()
    {
        table.insert("required".to_owned(), required.into());
    }
    table
}

/// A table with names of the operator's as keys.
pub(super) fn named(says: &str, each: &Value) -> Value {
    json!({ "description": says, "type": "object", "additionalProperties": each })
}

/// One of several shapes.
pub(super) fn one_of(says: &str, shapes: &[Value]) -> Value {
    json!({ "description": says, "oneOf": shapes })
}

/// Variables: what templates can use.
pub(super) fn vars(says: &str) -> Value {
    json!({ "description": says, "type": "object", "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" } })
}

/// Where a secret comes from; never the secret. `minted`: whether Infisical may make it, and so `prove` may look at it.
pub(super) fn source(says: &str, minted: bool) -> Value {
    let from = |word: &str, says: &str| json!({ "description": says, "const": word });
    let local = "A path on this machine, relative to this file; ~/ is your home";
    let identity =
        || ("identity", text("The file of the identity that it must be for, relative to this one: `prove` looks"));
    let shape = |says: &str, mut keys: Vec<(&'static str, Value)>, needed: &[&str]| {
        keys.extend(minted.then(identity));
        table(says, keys, needed)
    };
    let mut shapes = vec![
        shape("Typed at a prompt", vec![("from", from("prompt", "Typed when it is needed, without echo"))], &["from"]),
        shape(
            "From a file",
            vec![("from", from("file", "Read from a file that you alone can read")), ("path", text(local))],
            &["from", "path"],
        ),
        shape(
            "From the environment",
            vec![("from", from("env", "Taken from keyswap's own environment")), ("name", text("The variable"))],
            &["from", "name"],
        ),
        shape(
            "From a program",
            vec![
                ("from", from("command", "What a program writes")),
                ("argv", texts("The program and its arguments; no shell reads them")),
            ],
            &["from", "argv"],
        ),
    ];
    if minted {
        shapes.push(table(
            "Minted by Infisical",
            vec![
                ("from", from("infisical", "Minted for the run, for the identity of a file")),
                ("identity", text("The identity's file, relative to this one")),
            ],
            &["from", "identity"],
        ));
    }
    one_of(&format!("{says}. It says where the secret comes from, and never holds it"), &shapes)
}

/// `[approval]`.
pub(super) fn approval() -> Value {
    let keys = vec![
        ("required", number("How many must sign (1)", 1, 100)),
        ("allowed_signers", text("Who may sign: a file in OpenSSH's allowed_signers format, relative to this file")),
        ("valid", time("How long a signature holds", "4h")),
    ];
    table("Who must sign a plan before it runs", keys, &["allowed_signers"])
}
