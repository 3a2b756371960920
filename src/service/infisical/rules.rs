//! Rules as the server keeps them, and whether they are exactly those that were asked for.
//!
//! A rule is compared whole, never by its parts: the server drops what it does not know without a word, and what is
//! left may reach much further. A shape that is not known here is an error, never an empty rule.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::model::Access;

/// The two rights that reading takes.
const READ: [&str; 2] = ["describeSecret", "readValue"];

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    subject: String,
    actions: BTreeSet<String>,
    /// An object; empty where the rule holds everywhere. Lists in it are sorted.
    conditions: Value,
    inverted: bool,
}

impl Rule {
    /// The rule that a file's access stands for.
    #[must_use]
    pub fn of(access: &Access) -> Self {
        let conditions = json!({
            "environment": {"$eq": access.environment}, "secretPath": {"$eq": access.path},
            "secretName": {"$in": access.read},
        });
        Self {
            subject: "secrets".to_owned(),
            actions: READ.map(str::to_owned).into(),
            conditions: sorted(&conditions),
            inverted: false,
        }
    }

    /// As a request writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"subject": self.subject, "action": self.actions, "conditions": self.conditions})
    }

    /// Reads what a privilege, or the details of a refusal, show. `None`: another shape.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let known = ["subject", "action", "conditions", "inverted"];
        if !object.keys().all(|key| known.contains(&key.as_str())) {
            return None;
        }
        let inverted = match object.get("inverted") {
            None => false,
            Some(value) => value.as_bool()?,
        };
        let subject = match words(object.get("subject")?)?.as_slice() {
            [one] => one.clone(),
            _ => return None,
        };
        let actions = words(object.get("action")?)?.into_iter().collect();
        Some(Self { subject, actions, conditions: conditions(object.get("conditions"))?, inverted })
    }

    /// Reads what the audit of permissions packs into a list: actions, subject, conditions, whether it forbids.
    #[must_use]
    pub fn unpack(value: &Value) -> Option<Self> {
        let parts = value.as_array()?;
        let text = |at: usize| parts.get(at).and_then(Value::as_str);
        let unset = |value: &Value| value.is_null() || value == &Value::from(0) || value == &Value::from("");
        if parts.len() > 4 && !parts.iter().skip(4).all(unset) {
            return None;
        }
        let inverted = match parts.get(3) {
            None => false,
            Some(value) if unset(value) || value == &Value::Bool(false) => false,
            Some(value) if value == &Value::from(1) || value == &Value::Bool(true) => true,
            Some(_) => return None,
        };
        let given = parts.get(2).filter(|value| !unset(value));
        Some(Self {
            subject: text(1)?.to_owned(),
            actions: text(0)?.split(',').map(str::to_owned).collect(),
            conditions: conditions(given)?,
            inverted,
        })
    }

    /// Reads a list of rules, each by `read`.
    #[must_use]
    pub fn read_all(value: &Value, read: fn(&Value) -> Option<Self>) -> Option<Vec<Self>> {
        value.as_array()?.iter().map(read).collect()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}{} on {}", if self.inverted { "not " } else { "" }, actions.join("+"), self.subject)?;
        match self.conditions.as_object() {
            Some(conditions) if !conditions.is_empty() => write!(f, " where {}", self.conditions),
            _ => f.write_str(" everywhere"),
        }
    }
}

/// Whether two sets of rules are the same; their order does not matter, how often one is there does.
#[must_use]
pub(super) fn same(one: &[Rule], other: &[Rule]) -> bool {
    let mut left: Vec<&Rule> = other.iter().collect();
    let all = one.iter().all(|rule| match left.iter().position(|own| *own == rule) {
        Some(at) => {
            left.swap_remove(at);
            true
        }
        None => false,
    });
    all && left.is_empty()
}

/// Rules on one line.
#[must_use]
pub(super) fn listed(rules: &[Rule]) -> String {
    if rules.is_empty() {
        return "no rule".to_owned();
    }
    crate::service::http::clean(&rules.iter().map(Rule::to_string).collect::<Vec<_>>().join("; "))
}

fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `None`: no conditions in a shape that is known.
fn conditions(value: Option<&Value>) -> Option<Value> {
    match value {
        None | Some(Value::Null) => Some(Value::Object(Map::new())),
        Some(object @ Value::Object(_)) => Some(sorted(object)),
        Some(_) => None,
    }
}

/// Keys and list items in one order, so that only what differs is different.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<(&String, &Value)> = object.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Rule {
        let read = vec!["B".to_owned(), "A".to_owned()];
        Rule::of(&Access { environment: "prod".to_owned(), path: "/a".to_owned(), read })
    }

    #[test]
    fn three_shapes_are_one_rule() {
        let conditions =
            json!({"secretName": {"$in": ["A", "B"]}, "secretPath": {"$eq": "/a"}, "environment": {"$eq": "prod"}});
        let stored = json!({"subject": "secrets", "action": ["readValue", "describeSecret"],
            "conditions": conditions, "inverted": false});
        let detail = json!({"subject": ["secrets"], "action": ["describeSecret", "readValue"],
            "conditions": conditions, "inverted": false});
        let packed = json!(["describeSecret,readValue", "secrets", conditions]);
        assert_eq!(Rule::read(&stored), Some(wanted()));
        assert_eq!(Rule::read(&detail), Some(wanted()));
        assert_eq!(Rule::unpack(&packed), Some(wanted()));
        assert_eq!(Rule::read(&wanted().to_json()), Some(wanted()));
    }

    #[test]
    fn what_differs_is_another_rule() {
        let with = |conditions: Value| {
            Rule::read(&json!({"subject": "secrets", "action": READ, "conditions": conditions})).unwrap()
        };
        let path = json!({"$eq": "/a"});
        let names = json!({"$in": ["A", "B"]});
        for other in [
            json!({"secretPath": path, "environment": {"$eq": "prod"}}),
            json!({"secretName": {}, "secretPath": path, "environment": {"$eq": "prod"}}),
            json!({"secretName": names, "secretPath": path, "environment": {"$in": ["prod", "dev"]}}),
            json!({"secretName": names, "secretPath": path}),
        ] {
            assert_ne!(with(other.clone()), wanted(), "{other}");
        }
        let forbids = json!({"subject": "secrets", "action": READ, "inverted": true});
        assert!(Rule::read(&forbids).unwrap().inverted);
        assert_eq!(Rule::unpack(&json!(["read", "secrets", 0, 1])).map(|rule| rule.inverted), Some(true));
    }

    #[test]
    fn an_unknown_shape_is_no_rule() {
        for odd in [json!([]), json!({"subject": "secrets"}), json!({"subject": "a", "action": ["x"], "new": 1})] {
            assert_eq!(Rule::read(&odd), None, "{odd}");
        }
        for odd in [json!(["read"]), json!(["read", "secrets", "x"]), json!(["read", "secrets", 0, 2])] {
            assert_eq!(Rule::unpack(&odd), None, "{odd}");
        }
    }

    #[test]
    fn sets_are_compared_whole() {
        let everywhere = Rule::read(&json!({"subject": "secrets", "action": READ})).unwrap();
        assert!(same(&[wanted(), everywhere.clone()], &[everywhere.clone(), wanted()]));
        assert!(!same(&[wanted()], &[wanted(), everywhere]) && !same(&[wanted(), wanted()], &[wanted()]));
        assert!(!same(&[], &[wanted()]) && same(&[], &[]));
    }
}
