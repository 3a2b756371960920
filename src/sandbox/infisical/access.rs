//! Memberships and additional privileges: what an identity may do in a project.

use serde_json::{Value, json};

use super::Rule;
use super::reply::{Ask, No, Said, bad_request, invalid, no_route, not_found, not_member};
use super::rights::role_rules;
use super::show;
use super::world::{Privilege, World};

const ACTIONS: [&str; 6] = ["read", "describeSecret", "readValue", "create", "edit", "delete"];
const ROLES: [&str; 4] = ["admin", "member", "viewer", "no-access"];

impl World {
    /// `/api/v1/projects/:project/memberships/identities…`
    pub(super) fn memberships(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let [_, _, _, project, _, _, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
        let action = match ask.method.as_str() {
            "POST" => "create",
            "PATCH" => "edit",
            "DELETE" => "delete",
            _ => "read",
        };
        self.need_in_project(project, who, action, "identity")?;
        let missing = |id: &str| not_found(format!("Identity with id {id} not found in project with id {project}"));
        match (ask.method.as_str(), rest) {
            ("GET", []) => {
                let (offset, limit) = ask.page(1000, 1000)?;
                let all = self.memberships.iter().filter(|membership| membership.project == *project);
                let all: Vec<Value> = all.map(|membership| show::membership(self, membership, false)).collect();
                let page: Vec<&Value> = all.iter().skip(offset).take(limit).collect();
                Ok(json!({"identityMemberships": page, "totalCount": all.len()}))
            }
            ("GET", [id]) => {
                let membership = self.membership(project, id).ok_or_else(|| missing(id))?;
                Ok(json!({"identityMembership": show::membership(self, membership, true)}))
            }
            ("GET", [id, "permissions", "audit"]) => self.audit(project, id),
            ("POST" | "PATCH", [id]) => {
                let asked = ask.body.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
                let slugs: Vec<&str> = asked.iter().filter_map(|r| r.get("role").and_then(Value::as_str)).collect();
                if let Some(unknown) = slugs.iter().find(|slug| !ROLES.contains(slug)) {
                    return Err(not_found(format!(
                        "Specified roles '{unknown}' was not found in the project with ID '{project}'"
                    )));
                }
                if ask.method == "POST" {
                    if self.membership(project, id).is_some() {
                        return Err(bad_request("Identity is already a member"));
                    }
                    self.add_member(project, id, &slugs);
                    return self.short(project, id).ok_or_else(|| missing(id));
                }
                let roles: Vec<super::Role> = slugs
                    .iter()
                    .map(|slug| super::Role { id: super::world::new_id(), slug: (*slug).to_owned() })
                    .collect();
                let found = self.memberships.iter_mut().find(|m| m.project == *project && m.identity == *id);
                let membership = found.ok_or_else(|| missing(id))?;
                membership.roles = roles;
                Ok(json!({"roles": show::roles(membership, true)}))
            }
            ("DELETE", [id]) => {
                let shown = self.short(project, id).ok_or_else(|| missing(id))?;
                self.memberships.retain(|m| m.project != *project || m.identity != *id);
                // What was granted beside the membership goes with it.
                self.privileges.retain(|p| p.project != *project || p.identity != *id);
                Ok(shown)
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn short(&self, project: &str, id: &str) -> Option<Value> {
        let membership = self.membership(project, id)?;
        let made = super::clock::iso(membership.made);
        Some(json!({"identityMembership": {
            "id": membership.id, "projectId": project, "identityId": id, "createdAt": made, "updatedAt": made,
        }}))
    }

    fn audit(&self, project: &str, id: &str) -> Said {
        let Some(membership) = self.membership(project, id) else {
            return Err(not_found(format!(
                "Target identity with ID '{id}' is not a member of project with ID '{project}' \
                 [targetIdentityId={id}] [projectId={project}]"
            )));
        };
        let mut sources: Vec<Value> = membership
            .roles
            .iter()
            .map(|role| {
                let rules: Vec<Value> = role_rules(&role.slug).iter().map(Rule::packed).collect();
                json!({
                    "id": role.id, "type": "role", "name": role.slug, "slug": role.slug, "isTemporary": false,
                    "permissions": rules,
                })
            })
            .collect();
        for privilege in self.privileges.iter().filter(|p| p.project == project && p.identity == id) {
            let rules: Vec<Value> = privilege.rules.iter().map(Rule::packed).collect();
            sources.push(json!({
                "id": privilege.id, "type": "additional_privilege", "name": privilege.slug,
                "isTemporary": privilege.temporary.is_some(), "permissions": rules,
            }));
        }
        Ok(json!({"sources": sources}))
    }

    /// `/api/v2/identity-project-additional-privilege…` and the older address for reading.
    pub(super) fn privileges(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let old = path.contains(&"additional-privilege");
        let rest = path.get(if old { 4 } else { 3 }..).unwrap_or_default();
        match (ask.method.as_str(), rest) {
            ("POST", []) => {
                let (identity, project) = (ask.need("identityId")?.to_owned(), ask.need("projectId")?.to_owned());
                check(&ask.body)?;
                self.need_in_project(&project, who, "assign-additional-privileges", "identity")?;
                if self.membership(&project, &identity).is_none() {
                    return Err(not_member(&project));
                }
                let slug = ask.need("slug")?.to_owned();
                if self.privileges.iter().any(|p| p.project == project && p.identity == identity && p.slug == slug) {
                    return Err(bad_request(format!("Additional privilege with name {slug} exists")));
                }
                let permissions = self.written(ask.body.get("permissions").unwrap_or(&Value::Null));
                let id = self.add_privilege(&project, &identity, &slug, &permissions);
                let temporary = self.temporary(ask);
                self.with_privilege(&id, |privilege| {
                    privilege.temporary = temporary;
                    Ok(json!({"privilege": show::privilege(privilege, true)}))
                })
            }
            ("GET", []) => {
                let identity = ask.asked("identityId").unwrap_or_default();
                let project = match (ask.asked("projectId"), ask.asked("projectSlug")) {
                    (Some(id), _) => id.to_owned(),
                    (None, slug) => self.by_slug(slug.unwrap_or_default()),
                };
                self.need_in_project(&project, who, "read", "identity")?;
                let mine = self.privileges.iter().filter(|p| p.project == project && p.identity == identity);
                let listed: Vec<Value> = mine
                    .map(|privilege| {
                        let shown = show::privilege(privilege, old);
                        if old { show::with(shown, json!({"projectMembershipId": project})) } else { shown }
                    })
                    .collect();
                Ok(json!({"privileges": listed}))
            }
            ("GET", ["slug", slug]) => {
                let project = self.by_slug(ask.asked("projectSlug").unwrap_or_default());
                let identity = ask.asked("identityId").unwrap_or_default();
                self.need_in_project(&project, who, "read", "identity")?;
                let found =
                    self.privileges.iter().find(|p| p.project == project && p.identity == identity && p.slug == *slug);
                let found = found.ok_or_else(|| not_found(format!("Privilege with slug {slug} not found")))?;
                Ok(json!({"privilege": show::privilege(found, true)}))
            }
            (method, [id]) => {
                let gone = || not_found(format!("Privilege with id {id} not found"));
                let found = self.privileges.iter().find(|p| p.id == *id).cloned().ok_or_else(gone)?;
                let action = if method == "GET" { "read" } else { "assign-additional-privileges" };
                self.need_in_project(&found.project, who, action, "identity")?;
                match method {
                    "GET" => Ok(json!({"privilege": show::privilege(&found, true)})),
                    "DELETE" => {
                        self.privileges.retain(|privilege| privilege.id != found.id);
                        Ok(json!({"privilege": show::privilege(&found, true)}))
                    }
                    "PATCH" => {
                        check(&ask.body)?;
                        let (now, temporary) = (self.clock.now(), self.temporary(ask));
                        let written = ask.body.get("permissions").map(|permissions| self.written(permissions));
                        self.with_privilege(&found.id, |privilege| {
                            if let Some(permissions) = &written {
                                privilege.rules = Rule::read_all(permissions);
                            }
                            if let Some(slug) = ask.text("slug") {
                                slug.clone_into(&mut privilege.slug);
                            }
                            if ask.body.get("type").is_some() {
                                privilege.temporary = temporary;
                            }
                            privilege.times.1 = now;
                            Ok(json!({"privilege": show::privilege(privilege, true)}))
                        })
                    }
                    _ => Err(no_route(&ask.method, &ask.target)),
                }
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    /// What is stored of rules that are written.
    fn written(&self, permissions: &Value) -> Value {
        let mut permissions = permissions.clone();
        if let (Some(lost), Some(rules)) = (self.loses, permissions.as_array_mut()) {
            for conditions in rules.iter_mut().filter_map(|rule| rule.get_mut("conditions")?.as_object_mut()) {
                conditions.shift_remove(lost);
            }
        }
        permissions
    }

    fn with_privilege(&mut self, id: &str, change: impl FnOnce(&mut Privilege) -> Said) -> Said {
        let found = self.privileges.iter_mut().find(|privilege| privilege.id == id);
        change(found.ok_or_else(|| not_found(format!("Privilege with id {id} not found")))?)
    }

    fn by_slug(&self, slug: &str) -> String {
        self.projects.iter().find(|project| project.slug == slug).map(|p| p.id.clone()).unwrap_or_default()
    }

    /// `"type": {"isTemporary": true, "temporaryRange": "15s", …}`; seconds are enough here.
    fn temporary(&self, ask: &Ask) -> Option<(String, i64, i64)> {
        let kind = ask.body.get("type")?;
        let yes = kind.get("isTemporary").and_then(Value::as_bool).unwrap_or_default();
        let range = kind.get("temporaryRange").and_then(Value::as_str).filter(|_| yes)?;
        let seconds: i64 = range.trim_end_matches('s').parse().unwrap_or(3600);
        // Simpler than the real one: it always begins now.
        let begin = self.clock.now();
        Some((range.to_owned(), begin, begin + seconds * 1000))
    }
}

/// What permissions must not be.
fn check(body: &Value) -> Result<(), No> {
    let permissions = body.get("permissions").and_then(Value::as_array).cloned().unwrap_or_default();
    for (at, permission) in permissions.iter().enumerate() {
        if permission.get("subject").and_then(Value::as_str) != Some("secrets") {
            let (path, message) = (json!(["permissions", at, "subject"]), "Invalid discriminator value.");
            let options = ["secrets"];
            return Err(invalid(json!({
                "code": "invalid_union_discriminator", "options": options, "path": path, "message": message,
            })));
        }
        let actions = permission.get("action").and_then(Value::as_array).cloned().unwrap_or_default();
        let actions: Vec<&str> = actions.iter().filter_map(Value::as_str).collect();
        if let Some(unknown) = actions.iter().find(|action| !ACTIONS.contains(action)) {
            return Err(unknown_action(at, unknown));
        }
        let new: Vec<&str> = actions.iter().filter(|a| ["describeSecret", "readValue"].contains(a)).copied().collect();
        if actions.contains(&"read") && !new.is_empty() {
            return Err(bad_request(
                "You have selected Read, and Read Value. You cannot select Read Value or Describe Secret if you have \
                 selected Read. The Read permission is a legacy action which has been replaced by Describe Secret \
                 and Read Value.",
            ));
        }
        let path = permission.pointer("/conditions/secretPath/$eq").and_then(Value::as_str);
        if path.is_some_and(|path| !path.starts_with('/')) {
            let path = json!(["permissions", at, "conditions", "secretPath", "$eq"]);
            let message = "Invalid Secret Path; it must start with a '/'";
            return Err(invalid(json!({"code": "custom", "message": message, "path": path})));
        }
    }
    Ok(())
}

fn unknown_action(at: usize, unknown: &str) -> No {
    let wanted = ACTIONS.map(|action| format!("'{action}'")).join(" | ");
    let path = json!(["permissions", at, "action"]);
    let array = json!({
        "expected": wanted, "received": "array", "code": "invalid_type", "path": path,
        "message": format!("Expected {wanted}, received array"),
    });
    let one = json!({
        "received": unknown, "code": "invalid_enum_value", "options": ACTIONS,
        "path": ["permissions", at, "action", 0],
        "message": format!("Invalid enum value. Expected {wanted}, received '{unknown}'"),
    });
    let errors = json!([{"issues": [array], "name": "ZodError"}, {"issues": [one], "name": "ZodError"}]);
    invalid(json!({"code": "invalid_union", "unionErrors": errors, "path": path, "message": "Invalid input"}))
}
