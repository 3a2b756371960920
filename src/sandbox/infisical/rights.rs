//! Who may do what: rules, their conditions, and the ten seconds for which a server remembers them.
//!
//! As recorded: unknown keys of a condition and unknown operators are dropped without a word when a rule is stored. A
//! dropped key makes the rule wider, a dropped operator leaves an empty condition that nothing meets.

use serde_json::{Map, Value, json};

use super::reply::{No, denied, not_member};
use super::world::{Cached, World};

/// How long what was looked up for a call about secrets is remembered, in milliseconds.
const REMEMBERED: i64 = 10_000;

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it is about, such as `secrets`.
    pub subject: String,
    /// What may be done.
    pub actions: Vec<String>,
    /// Where it holds; everywhere when there are none.
    pub conditions: Option<Value>,
    /// It forbids.
    pub inverted: bool,
}

impl Rule {
    fn new(actions: &[&str], subject: &str) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self { subject: subject.to_owned(), actions, conditions: None, inverted: false }
    }

    /// The rules of a request's `permissions`, as a server stores them.
    pub(super) fn read_all(permissions: &Value) -> Vec<Self> {
        permissions.as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(permission: &Value) -> Self {
        let actions = match permission.get("action") {
            Some(Value::Array(actions)) => actions.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(action)) => vec![action.clone()],
            _ => Vec::new(),
        };
        Self {
            subject: permission.get("subject").and_then(Value::as_str).unwrap_or_default().to_owned(),
            actions,
            conditions: permission.get("conditions").map(stored),
            inverted: permission.get("inverted").and_then(Value::as_bool).unwrap_or_default(),
        }
    }

    /// As a privilege shows it.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({"subject": self.subject, "action": self.actions});
        if let Some(object) = shown.as_object_mut() {
            if let Some(conditions) = &self.conditions {
                object.insert("conditions".to_owned(), conditions.clone());
            }
            object.insert("inverted".to_owned(), self.inverted.into());
        }
        shown
    }

    /// As a refusal's `details` show it.
    pub(super) fn detail(&self) -> Value {
        let mut shown = json!({"action": self.actions, "inverted": self.inverted, "subject": [self.subject]});
        if let (Some(object), Some(conditions)) = (shown.as_object_mut(), &self.conditions) {
            object.insert("conditions".to_owned(), conditions.clone());
        }
        shown
    }

    /// As the audit of permissions packs it.
    pub(super) fn packed(&self) -> Value {
        let mut packed = vec![self.actions.join(",").into(), self.subject.clone().into()];
        if self.conditions.is_some() || self.inverted {
            packed.push(self.conditions.clone().unwrap_or_else(|| 0.into()));
        }
        if self.inverted {
            packed.push(1.into());
        }
        Value::Array(packed)
    }

    /// It names this action. The old `read` stands for two newer ones, but is not listed under their names.
    fn is_about(&self, action: &str, subject: &str) -> bool {
        self.subject == subject && self.actions.iter().any(|own| own == action)
    }

    fn covers(&self, action: &str, subject: &str, at: Option<&Place<'_>>) -> bool {
        let old = subject == "secrets" && ["describeSecret", "readValue"].contains(&action);
        (self.is_about(action, subject) || (old && self.is_about("read", subject)))
            && at.is_none_or(|at| self.conditions.as_ref().is_none_or(|conditions| at.meets(conditions)))
    }
}

/// What a server keeps of a rule's conditions, in its own order.
fn stored(conditions: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["secretTags", "secretName", "secretPath", "environment"] {
        let operators: &[&str] = if key == "secretTags" { &["$in", "$all"] } else { &["$eq", "$ne", "$in", "$glob"] };
        match conditions.get(key) {
            Some(Value::Object(given)) => {
                let known = given.iter().filter(|(operator, _)| operators.contains(&operator.as_str()));
                let known: Map<String, Value> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
                kept.insert(key.to_owned(), known.into());
            }
            Some(Value::String(text)) => {
                kept.insert(key.to_owned(), text.clone().into());
            }
            _ => {}
        }
    }
    kept.into()
}

/// Where a secret is.
pub(super) struct Place<'a> {
    pub(super) environment: &'a str,
    pub(super) path: &'a str,
    pub(super) name: &'a str,
}

impl Place<'_> {
    fn meets(&self, conditions: &Value) -> bool {
        let field = |key: &str| match key {
            "environment" => self.environment,
            "secretPath" => self.path,
            "secretName" => self.name,
            _ => "",
        };
        conditions.as_object().is_none_or(|all| all.iter().all(|(key, wanted)| meets(field(key), wanted)))
    }
}

fn meets(value: &str, wanted: &Value) -> bool {
    match wanted {
        Value::String(text) => text == value,
        // Nothing is equal to an empty condition.
        Value::Object(operators) if operators.is_empty() => false,
        Value::Object(operators) => operators.iter().all(|(operator, operand)| match operator.as_str() {
            "$eq" => operand == value,
            "$ne" => operand != value,
            "$in" => operand.as_array().is_some_and(|list| list.iter().any(|one| one == value)),
            "$glob" => operand.as_str().is_some_and(|pattern| glob(pattern.as_bytes(), value.as_bytes())),
            _ => false,
        }),
        _ => false,
    }
}

/// `*` stays within a folder, `**` does not, `?` is one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| glob(rest, text.get(at..).unwrap_or_default())),
        [b'*', rest @ ..] => {
            let longest = text.iter().position(|c| *c == b'/').unwrap_or(text.len());
            (0..=longest).any(|at| glob(rest, text.get(at..).unwrap_or_default()))
        }
        [b'?', rest @ ..] => matches!(text, [first, tail @ ..] if *first != b'/' && glob(rest, tail)),
        [own, rest @ ..] => matches!(text, [first, tail @ ..] if first == own && glob(rest, tail)),
    }
}

/// What a built-in role of a project may do. Only what the stand-in asks for is there, and a little more.
pub(super) fn role_rules(slug: &str) -> Vec<Rule> {
    let all = ["read", "edit", "create", "delete"];
    let secrets = ["describeSecret", "readValue"];
    match slug {
        "admin" => vec![
            Rule::new(&all, "secret-folders"),
            Rule::new(&all, "secret-imports"),
            Rule::new(&all, "role"),
            Rule::new(&all, "settings"),
            Rule::new(&[&secrets[..], &["read", "create", "edit", "delete"][..]].concat(), "secrets"),
            Rule::new(
                &[&all[..], &["grant-privileges", "assign-additional-privileges", "create-token"][..]].concat(),
                "identity",
            ),
        ],
        "member" => vec![
            Rule::new(&[&secrets[..], &["create", "edit", "delete"][..]].concat(), "secrets"),
            Rule::new(&all, "secret-folders"),
            Rule::new(&["read"], "role"),
            Rule::new(&["read"], "identity"),
        ],
        "viewer" => vec![
            Rule::new(&secrets, "secrets"),
            Rule::new(&["read"], "secret-folders"),
            Rule::new(&["read"], "role"),
            Rule::new(&["read"], "identity"),
        ],
        _ => Vec::new(),
    }
}

/// Whether the last rule that covers it allows it.
pub(super) fn allows(rules: &[Rule], action: &str, subject: &str, at: Option<&Place<'_>>) -> bool {
    let deciding = |rule: &&Rule| rule.covers(action, subject, at) && (at.is_some() || !rule.inverted);
    rules.iter().rev().find(deciding).is_some_and(|rule| !rule.inverted)
}

/// Refuses what the rules do not allow, with the rules that are about it.
pub(super) fn need(rules: &[Rule], action: &str, subject: &str, at: Option<&Place<'_>>) -> Result<(), No> {
    if allows(rules, action, subject, at) {
        return Ok(());
    }
    let about = rules.iter().filter(|rule| rule.is_about(action, subject)).map(Rule::detail).collect();
    Err(denied(action, subject, about))
}

impl World {
    /// What an identity may do in a project now; `None`: it is no member.
    pub(super) fn rules(&self, project: &str, identity: &str) -> Option<Vec<Rule>> {
        let member = self.membership(project, identity)?;
        let now = self.clock.now();
        let mut rules: Vec<Rule> = member.roles.iter().flat_map(|role| role_rules(&role.slug)).collect();
        for privilege in &self.privileges {
            let mine = privilege.project == project && privilege.identity == identity;
            let valid = privilege.temporary.as_ref().is_none_or(|(_, from, to)| (*from..*to).contains(&now));
            if mine && valid {
                rules.extend(privilege.rules.iter().cloned());
            }
        }
        Some(rules)
    }

    /// As [`World::rules`], or as it was up to ten seconds ago: for calls about secrets.
    pub(super) fn remembered_rules(&mut self, project: &str, identity: &str) -> Result<Vec<Rule>, No> {
        let now = self.clock.now();
        let at = (project.to_owned(), identity.to_owned());
        let known =
            self.cache.get(&at).filter(|cached| now - cached.at < REMEMBERED).map(|cached| cached.rules.clone());
        let rules = match known {
            Some(rules) => rules,
            None => {
                let rules = self.rules(project, identity);
                self.cache.insert(at, Cached { at: now, rules: rules.clone() });
                rules
            }
        };
        rules.ok_or_else(|| not_member(project))
    }

    /// What the project's rules allow, fresh.
    pub(super) fn need_in_project(&self, project: &str, who: &str, action: &str, what: &str) -> Result<(), No> {
        let rules = self.rules(project, who).ok_or_else(|| not_member(project))?;
        need(&rules, action, what, None)
    }

    /// What the role in the organization allows.
    pub(super) fn need_in_org(&self, who: &str, action: &str, what: &str) -> Result<(), No> {
        let admin = self.identity(who).is_some_and(|identity| identity.org_role == "admin");
        if admin { Ok(()) } else { Err(denied(action, what, Vec::new())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stay_in_their_folder_unless_told() {
        let matches = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
        assert!(matches("KAN_*", "KAN_A") && !matches("KAN_*", "XKAN_A"));
        assert!(matches("/**", "/a/b") && !matches("/*", "/a/b") && matches("/a/?", "/a/b"));
    }

    #[test]
    fn a_dropped_key_widens_and_a_dropped_operator_closes() {
        let rules = |conditions: Value| {
            Rule::read_all(&json!([{"subject": "secrets", "action": ["readValue"], "conditions": conditions}]))
        };
        let at = Place { environment: "prod", path: "/", name: "B" };
        let may = |rules: &[Rule]| allows(rules, "readValue", "secrets", Some(&at));
        assert!(!may(&rules(json!({"secretName": {"$in": ["A"]}}))));
        assert!(may(&rules(json!({"secretname": {"$in": ["A"]}}))));
        assert!(!may(&rules(json!({"secretName": {"$inn": ["B"]}}))));
    }
}
