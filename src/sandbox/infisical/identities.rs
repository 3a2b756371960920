//! Identities of the organization and of projects.

use serde_json::{Value, json};

use super::reply::{Ask, No, Said, bad_request, forbidden, no_route, not_found};
use super::show::{metadata, methods, org_identity, org_membership, project_identity, roles, with};
use super::world::{Identity, World, new_id};

impl World {
    /// Whether the caller may do this to an identity: by the organization's rules or by its project's.
    pub(super) fn need_for(&self, who: &str, identity: &Identity, action: &str) -> Result<(), No> {
        if action != "read" && identity.instance_admin && !self.identity(who).is_some_and(|own| own.instance_admin) {
            return Err(forbidden(
                "You are attempting to modify an instance admin identity. This requires elevated instance admin \
                 privileges",
            ));
        }
        match &identity.project {
            Some(project) => self.need_in_project(project, who, action, "identity"),
            None => self.need_in_org(who, if action == "create-token" { "edit" } else { action }, "identity"),
        }
    }

    fn by_id(&self, id: &str) -> Result<Identity, No> {
        if uuid::Uuid::parse_str(id).is_err() {
            return Err(No::new(500, "FindByOrgId", "Something went wrong"));
        }
        let found = self.identity(id).filter(|identity| identity.project.is_none());
        found.cloned().ok_or_else(|| not_found(format!("Failed to find identity with id {id}")))
    }

    /// `/api/v1/identities…`, `/api/v2/identities/search`
    pub(super) fn identities(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        match (ask.method.as_str(), path) {
            ("POST", [_, "v1", _]) => {
                ask.need("name")?;
                ask.need("organizationId")?;
                self.need_in_org(who, "create", "identity")?;
                self.create(ask, who, None)
            }
            ("GET", [_, "v1", _]) => {
                self.need_in_org(who, "read", "identity")?;
                let all: Vec<Value> = self.of_org(who).map(|identity| org_membership(identity, false)).collect();
                Ok(json!({"totalCount": all.len(), "identities": all}))
            }
            ("POST", [_, "v1", _, "search"]) => {
                self.need_in_org(who, "read", "identity")?;
                let mut found: Vec<&Identity> = self.of_org(who).filter(|identity| wanted(ask, identity)).collect();
                found.reverse();
                let found: Vec<Value> = found.into_iter().map(|identity| org_membership(identity, true)).collect();
                Ok(json!({"totalCount": found.len(), "identities": found}))
            }
            ("POST", [_, "v2", _, "search"]) => Ok(self.search_everywhere(ask, who)),
            ("GET", [_, "v1", _, id]) => {
                let identity = self.by_id(id)?;
                self.need_for(who, &identity, "read")?;
                let shown = org_membership(&identity, true);
                Ok(json!({"identity": with(shown, json!({"metadata": metadata(&identity)}))}))
            }
            ("GET", [_, "v1", _, id, "identity-memberships"]) => {
                let identity = self.by_id(id)?;
                self.need_for(who, &identity, "read")?;
                Ok(json!({"identityMemberships": self.everywhere(&identity)}))
            }
            ("PATCH", [_, "v1", _, id]) => {
                let identity = self.by_id(id)?;
                self.need_for(who, &identity, "edit")?;
                let identity = self.change(&identity.id, ask);
                Ok(json!({"identity": with(org_identity(&identity), json!({"metadata": []}))}))
            }
            ("DELETE", [_, "v1", _, id]) => {
                let identity = self.by_id(id)?;
                self.need_for(who, &identity, "delete")?;
                if identity.protected {
                    return Err(bad_request("Identity has delete protection"));
                }
                self.remove(id);
                Ok(json!({"identity": org_identity(&identity)}))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    /// `/api/v1/projects/:project/identities…`
    pub(super) fn project_identities(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let [_, _, _, project, _, rest @ ..] = path else { return Err(no_route(&ask.method, &ask.target)) };
        let mine = |id: &str, world: &Self| {
            let found = world.identity(id).filter(|identity| identity.project.as_deref() == Some(*project));
            found.cloned().ok_or_else(|| not_found(format!("Identity with id {id} not found")))
        };
        let action = match ask.method.as_str() {
            "POST" => "create",
            "PATCH" => "edit",
            "DELETE" => "delete",
            _ => "read",
        };
        self.need_in_project(project, who, action, "identity")?;
        match (ask.method.as_str(), rest) {
            ("POST", []) => {
                ask.need("name")?;
                self.create(ask, who, Some(project))
            }
            ("GET", []) => {
                let (offset, limit) = ask.page(1000, 1000)?;
                let all = self.identities.iter().filter(|i| i.project.as_deref() == Some(*project) && !i.deleted);
                let all: Vec<Value> =
                    all.map(|i| with(project_identity(i), json!({"metadata": metadata(i)}))).collect();
                let page: Vec<&Value> = all.iter().skip(offset).take(limit).collect();
                Ok(json!({"identities": page, "totalCount": all.len()}))
            }
            ("GET", [id]) => {
                let identity = mine(id, self)?;
                let more = json!({
                    "activeLockoutAuthMethods": [], "authMethods": methods(&identity), "metadata": metadata(&identity),
                });
                Ok(json!({"identity": with(project_identity(&identity), more)}))
            }
            ("PATCH", [id]) => {
                mine(id, self)?;
                let identity = self.change(id, ask);
                Ok(json!({"identity": with(project_identity(&identity), json!({"metadata": []}))}))
            }
            ("DELETE", [id]) => {
                let identity = mine(id, self)?;
                if identity.protected {
                    return Err(bad_request("Cannot delete identity while delete protection is enabled"));
                }
                self.remove(id);
                Ok(json!({"identity": project_identity(&identity)}))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn of_org<'w>(&'w self, who: &str) -> impl Iterator<Item = &'w Identity> + use<'w> {
        let org = self.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
        self.identities.iter().filter(move |i| !i.deleted && i.project.is_none() && i.org == org)
    }

    fn create(&mut self, ask: &Ask, who: &str, project: Option<&str>) -> Said {
        let org = self.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
        let pairs = ask.body.get("metadata").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |pair: &Value, key: &str| pair.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pairs: Vec<[String; 3]> =
            pairs.iter().map(|pair| [new_id(), text(pair, "key"), text(pair, "value")]).collect();
        let protected = ask.body.get("hasDeleteProtection").and_then(Value::as_bool).unwrap_or_default();
        let role = ask.text("role").unwrap_or("no-access").to_owned();
        let id = self.add_identity(&org, project, ask.need("name")?);
        self.with_identity(&id, |identity| {
            identity.metadata = pairs;
            identity.protected = protected;
            identity.org_role = role;
        });
        if let Some(project) = project {
            let asked = ask.body.get("roles").and_then(Value::as_array);
            let slugs: Vec<&str> =
                asked.into_iter().flatten().filter_map(|role| role.get("role").and_then(Value::as_str)).collect();
            self.add_member(project, &id, if slugs.is_empty() { &["no-access"] } else { &slugs });
        }
        let identity = self.identity(&id).cloned().ok_or_else(|| not_found("identity"))?;
        let shown = if project.is_some() { project_identity(&identity) } else { org_identity(&identity) };
        Ok(json!({"identity": with(shown, json!({"authMethods": [], "metadata": metadata(&identity)}))}))
    }

    /// The quirk of the real one: to take the protection away takes the name as well.
    fn change(&mut self, id: &str, ask: &Ask) -> Identity {
        let now = self.clock.now();
        let protect = ask.body.get("hasDeleteProtection").and_then(Value::as_bool);
        let name = ask.text("name").map(str::to_owned);
        let mut changed = None;
        self.with_identity(id, |identity| {
            match protect {
                Some(true) => identity.protected = true,
                Some(false) if name.is_some() => identity.protected = false,
                _ => {}
            }
            if let Some(name) = name {
                identity.name = name;
            }
            if let Some(role) = ask.text("role") {
                role.clone_into(&mut identity.org_role);
            }
            identity.times.1 = now;
            changed = Some(identity.clone());
        });
        changed.unwrap_or_else(|| nobody(id))
    }

    fn remove(&mut self, id: &str) {
        self.with_identity(id, |identity| identity.deleted = true);
        self.memberships.retain(|membership| membership.identity != id);
        self.privileges.retain(|privilege| privilege.identity != id);
        // An identity's end is seen at once.
        self.cache.retain(|(_, identity), _| identity != id);
    }

    fn everywhere(&self, identity: &Identity) -> Vec<Value> {
        let own = json!({
            "name": identity.name, "id": identity.id, "hasDeleteProtection": identity.protected,
            "authMethods": methods(identity),
        });
        let memberships = self.memberships.iter().filter(|membership| membership.identity == identity.id);
        memberships
            .map(|membership| {
                let made = super::clock::iso(membership.made);
                let project = self.project(&membership.project);
                let name = project.map(|project| project.name.clone()).unwrap_or_default();
                json!({
                    "id": membership.id, "identityId": identity.id, "createdAt": made, "updatedAt": made,
                    "roles": roles(membership, true), "identity": own,
                    "project": {"name": name, "id": membership.project, "type": "secret-manager"},
                })
            })
            .collect()
    }

    /// Only what the caller may see: nothing rather than a refusal.
    fn search_everywhere(&self, ask: &Ask, who: &str) -> Value {
        let mut found = Vec::new();
        if self.need_in_org(who, "read", "identity").is_ok() {
            for identity in self.of_org(who).filter(|identity| wanted(ask, identity)) {
                let mut shown = org_membership(identity, true);
                if let Some(object) = shown.as_object_mut() {
                    object.shift_remove("role");
                    object.shift_remove("roleId");
                }
                let role = super::world::Role { id: new_id(), slug: identity.org_role.clone() };
                let role = with(super::show::role(&role, true), json!({"customRoleDescription": null}));
                let more = json!({"scope": "organization", "projectId": null, "project": null, "roles": [role]});
                found.push(with(shown, more));
            }
        }
        found.reverse();
        json!({"totalCount": found.len(), "identities": found})
    }
}

fn wanted(ask: &Ask, identity: &Identity) -> bool {
    let name = ask.body.pointer("/search/name/$eq").and_then(Value::as_str);
    name.is_none_or(|name| name == identity.name)
}

fn nobody(id: &str) -> Identity {
    Identity {
        id: id.to_owned(),
        name: String::new(),
        org: String::new(),
        project: None,
        org_role: String::new(),
        org_membership: String::new(),
        instance_admin: false,
        protected: false,
        metadata: Vec::new(),
        token_auth: None,
        universal_auth: None,
        detached: None,
        deleted: true,
        seen: None,
        times: (0, 0),
    }
}
