//! Projects, their roles and their folders.

use serde_json::{Value, json};

use super::clock::iso;
use super::reply::{Ask, Said, bad_request, no_route, not_found, not_member};
use super::show;
use super::world::{Folder, World};

impl World {
    /// `/api/v1/projects…`, `/api/v1/workspace`, `/api/v2/workspace/:id/roles`
    pub(super) fn projects(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let joined = |world: &Self| -> Vec<Value> {
            let mine = world.projects.iter().filter(|project| world.membership(&project.id, who).is_some());
            mine.map(show::project).collect()
        };
        match (ask.method.as_str(), path) {
            ("GET", [_, _, "workspace"]) => Ok(json!({"workspaces": without(joined(self), &["deletedEnvironments"])})),
            ("GET", [_, _, _]) => Ok(json!({"projects": joined(self)})),
            ("POST", [_, _, _]) => {
                let org = self.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
                self.need_in_org(who, "create", "workspace")?;
                let slug = ask.text("slug").map_or_else(|| ask.need("projectName"), Ok)?.to_owned();
                let id = self.add_project(&org, &slug);
                self.add_member(&id, who, &["admin"]);
                Ok(json!({"project": self.project(&id).map(show::project)}))
            }
            // Every identity of the organization sees which projects there are.
            ("POST", [_, _, _, "search"]) => {
                let org = self.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
                let all = self.projects.iter().filter(|project| project.org == org);
                let all: Vec<Value> = all
                    .map(|project| {
                        let member = self.membership(&project.id, who).is_some();
                        show::with(show::project(project), json!({"isMember": member}))
                    })
                    .collect();
                let all = without(all, &["_id", "environments", "deletedEnvironments"]);
                Ok(json!({"totalCount": all.len(), "projects": all}))
            }
            ("GET", [_, _, _, "slug", slug]) => {
                let found = self.projects.iter().find(|project| project.slug == *slug);
                let found = found.ok_or_else(|| not_found(format!("Project with slug '{slug}' not found")))?;
                self.rules(&found.id, who).ok_or_else(|| not_member(&found.id))?;
                Ok(show::project(found))
            }
            ("GET", [_, _, _, id]) => {
                let found = self.project(id).ok_or_else(|| not_found(format!("Project with ID '{id}' not found")))?;
                self.rules(id, who).ok_or_else(|| not_member(id))?;
                Ok(json!({"project": show::project(found)}))
            }
            ("GET", [_, _, _, id, "roles"]) => {
                self.need_in_project(id, who, "read", "role")?;
                Ok(json!({"roles": self.roles(id)}))
            }
            ("POST", [_, _, _, id, "roles"]) => {
                self.need_in_project(id, who, "create", "role")?;
                Err(bad_request(
                    "Failed to create custom role due to plan RBAC restriction. Upgrade to Infisical Enterprise plan \
                     to create custom roles.",
                ))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn roles(&self, id: &str) -> Vec<Value> {
        let Some(project) = self.project(id) else { return Vec::new() };
        let made = iso(project.made);
        let built_in = [
            ("Admin", "Full administrative access over a project", "admin"),
            ("Member", "Limited read/write role in a project", "member"),
            ("Viewer", "Only read role in a project", "viewer"),
            ("No Access", "No access to any resources in the project", "no-access"),
        ];
        let pairs = project.roles.iter().zip(built_in);
        pairs
            .map(|(own, (name, description, slug))| {
                json!({
                    "id": own, "name": name, "description": description, "slug": slug, "createdAt": made,
                    "updatedAt": made, "projectId": id,
                })
            })
            .collect()
    }

    /// `/api/v2/folders`
    pub(super) fn folders(&mut self, ask: &Ask, who: &str, _path: &[&str]) -> Said {
        let now = self.clock.now();
        if ask.method == "POST" {
            let (id, environment) = (ask.need("projectId")?, ask.need("environment")?);
            self.need_in_project(id, who, "create", "secret-folders")?;
            let (name, parent) = (ask.need("name")?, ask.text("path").unwrap_or("/"));
            let path = format!("{}/{name}", parent.trim_end_matches('/'));
            let Some(project) = self.projects.iter_mut().find(|project| project.id == id) else {
                return Err(not_found("project"));
            };
            if project.folder(environment, &path).is_some() {
                return Err(bad_request(format!("Folder with name '{name}' already exists in path '{parent}'")));
            }
            project.add_folder(environment, &path, now);
            let found = project.folders.iter().find(|f| f.environment == environment && f.path == path);
            let shown = found.map(|folder| show::with(show_folder(project, folder), json!({"path": path})));
            return Ok(json!({"folder": shown}));
        }
        let id = ask.asked("projectId").unwrap_or_default();
        // A member sees the names of all folders, whatever it may read.
        self.rules(id, who).ok_or_else(|| not_member(id))?;
        let Some(project) = self.project(id) else { return Err(not_found("project")) };
        let (environment, above) = (ask.asked("environment").unwrap_or_default(), ask.asked("path").unwrap_or("/"));
        let deep = ask.asked("recursive") == Some("true");
        let above = above.trim_end_matches('/');
        let folders = project.folders.iter().filter(|folder| {
            let below = folder.path.strip_prefix(above).and_then(|rest| rest.strip_prefix('/'));
            folder.environment == environment && below.is_some_and(|below| deep || !below.contains('/'))
        });
        let folders: Vec<Value> = folders
            .map(|folder| {
                let shown = show_folder(project, folder);
                if deep { show::with(shown, json!({"relativePath": folder.path})) } else { shown }
            })
            .collect();
        Ok(json!({"folders": folders}))
    }
}

/// Some answers show less.
fn without(mut projects: Vec<Value>, keys: &[&str]) -> Vec<Value> {
    for project in projects.iter_mut().filter_map(Value::as_object_mut) {
        project.retain(|key, _| !keys.contains(&key.as_str()));
    }
    projects
}

fn show_folder(project: &super::Project, folder: &Folder) -> Value {
    let made = iso(folder.made);
    let (above, name) = folder.path.rsplit_once('/').unwrap_or_default();
    let parent = project.folder(&folder.environment, if above.is_empty() { "/" } else { above });
    let environment = project.environments.iter().find(|e| e.slug == folder.environment).map(|e| e.id.clone());
    json!({
        "id": folder.id, "name": name, "version": 1, "createdAt": made, "updatedAt": made, "envId": environment,
        "parentId": parent, "isReserved": false, "description": null, "lastSecretModified": null,
    })
}
