//! What leans on other secrets: references in values (`${KEY}`, `${env.folder.KEY}`), and folders that import others.
//!
//! As recorded: a value is expanded unless the caller says no. One reference that the caller may not read makes a whole
//! listing fail. An import is listed for everybody, with those of its secrets that the caller may read.

use serde_json::{Value, json};

use super::clock::iso;
use super::reply::{Ask, No, Said, bad_request, forbidden, no_route, not_found, required};
use super::rights::{Place, Rule, allows};
use super::show;
use super::world::{Import, Project, Secret, World, new_id};

/// How deep references are followed.
const DEEPEST: usize = 10;

/// A secret's value with what it refers to. One that the caller may not read is refused; one that is not there stays as it
/// is written.
pub(super) fn expanded(project: &Project, rules: &[Rule], secret: &Secret) -> Result<String, No> {
    let mut value = secret.value.clone();
    let mut open = vec![(secret.clone(), vec![secret.id.clone()])];
    while let Some((at, seen)) = open.pop() {
        for (written, inside) in references(&at.value) {
            let (environment, path, key) = target(&at, inside);
            let place = Place { environment: &environment, path: &path, name: &key };
            if !allows(rules, "readValue", "secrets", Some(&place)) {
                return Err(forbidden(&format!(
                    "You do not have permission to read secret '{key}' in environment '{environment}' at path '{path}', which is \
                     referenced by secret '{}' in environment '{}' at path '{}'.",
                    secret.key, secret.environment, secret.path
                )));
            }
            let Some(found) = project.secret(&environment, &path, &key) else { continue };
            value = value.replace(written, &found.value);
            if !seen.contains(&found.id) && seen.len() <= DEEPEST {
                let seen = seen.iter().cloned().chain([found.id.clone()]).collect();
                open.push((found.clone(), seen));
            }
        }
    }
    Ok(value)
}

/// Each `${…}` of a value, and what stands in it.
fn references(value: &str) -> Vec<(&str, &str)> {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let found = value.match_indices("${").filter_map(|(at, _)| {
        let rest = value.get(at + 2..)?;
        let end = rest.find('}')?;
        let inside = rest.get(..end).filter(|inside| !inside.is_empty() && inside.chars().all(name))?;
        Some((value.get(at..at + end + 3)?, inside))
    });
    found.collect()
}

/// Environment, folder and name of what a secret refers to.
fn target(from: &Secret, inside: &str) -> (String, String, String) {
    let parts: Vec<&str> = inside.split('.').collect();
    match parts.as_slice() {
        [environment, folders @ .., key] => {
            ((*environment).to_owned(), format!("/{}", folders.join("/")), (*key).to_owned())
        }
        _ => (from.environment.clone(), from.path.clone(), inside.to_owned()),
    }
}

/// The refusal of a listing in which one cannot be expanded.
pub(super) fn list_refused(no: &No) -> No {
    forbidden("Failed to expand one or more secret references").detailed(json!([no.message()]))
}

/// What a folder imports, as a listing shows it. `hidden`: without the values.
pub(super) fn imported(
    project: &Project,
    rules: &[Rule],
    (environment, path): (&str, &str),
    hidden: bool,
) -> Vec<Value> {
    let into = project.folder(environment, path);
    let mine = project.imports.iter().filter(|import| Some(&import.folder) == into.as_ref());
    let shown = mine.map(|import| {
        let secrets = project.secrets.iter().filter(|secret| {
            let at = Place { environment: &secret.environment, path: &secret.path, name: &secret.key };
            let may = |action| allows(rules, action, "secrets", Some(&at));
            let there = secret.environment == import.environment && secret.path == import.path;
            there && may("describeSecret") && (hidden || may("readValue"))
        });
        json!({
            "secretPath": import.path, "environment": import.environment,
            "folderId": project.folder(&import.environment, &import.path),
            "secrets": secrets.map(|secret| show::imported(secret, hidden)).collect::<Vec<_>>(),
        })
    });
    shown.collect()
}

impl World {
    /// `/api/v2/secret-imports…`
    pub(super) fn imports(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let id = ask.need("projectId")?.to_owned();
        let action = if ask.method == "DELETE" { "delete" } else { "create" };
        self.need_in_project(&id, who, action, "secret-imports")?;
        let now = self.clock.now();
        let (environment, above) = (ask.need("environment")?, ask.text("path").unwrap_or("/"));
        let Some(project) = self.projects.iter_mut().find(|project| project.id == id) else {
            return Err(not_found("project"));
        };
        let folder = project.folder(environment, above).ok_or_else(|| not_found("Folder not found"))?;
        match (ask.method.as_str(), path) {
            ("POST", [_, _, _]) => {
                let from = |key: &str| ask.body.get("import")?.get(key)?.as_str().map(str::to_owned);
                let environment = from("environment").ok_or_else(|| required("environment"))?;
                let path = from("path").ok_or_else(|| required("path"))?;
                if project.folder(&environment, &path).is_none() {
                    return Err(bad_request("Folder not found"));
                }
                let position = 1 + project.imports.iter().filter(|import| import.folder == folder).count();
                let import = Import { id: new_id(), folder, environment, path, position, made: now };
                let shown = show_import(project, &import);
                project.imports.push(import);
                Ok(json!({"message": "Successfully created secret import", "secretImport": shown}))
            }
            ("DELETE", [_, _, _, import]) => {
                let mine = |own: &&Import| own.id == *import && own.folder == folder;
                let found = project.imports.iter().find(mine).cloned();
                let found = found.ok_or_else(|| not_found("Secret import not found"))?;
                project.imports.retain(|own| own.id != found.id);
                let shown = show_import(project, &found);
                Ok(json!({"message": "Successfully deleted secret import", "secretImport": shown}))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }
}

fn show_import(project: &Project, import: &Import) -> Value {
    let environment = project.environments.iter().find(|e| e.slug == import.environment);
    let made = iso(import.made);
    json!({
        "id": import.id, "version": 1, "importPath": import.path, "position": import.position, "createdAt": made,
        "updatedAt": made, "folderId": import.folder, "isReplication": false, "isReplicationSuccess": null,
        "replicationStatus": null, "lastReplicated": null, "isReserved": false,
        "importEnv": environment.map(|e| json!({"name": e.name, "slug": e.slug, "id": e.id})),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Clock;
    use super::*;

    fn project(values: &[(&str, &str, &str, &str)]) -> Project {
        let mut world = World::new(Clock::still(0));
        let org = world.add_org("Home");
        let id = world.add_project(&org, "x");
        for (environment, path, key, value) in values {
            world.add_secret(&id, environment, path, key, value);
        }
        world.project(&id).unwrap().clone()
    }

    fn read(project: &Project, rules: &Value) -> Result<String, No> {
        let secret = project.secret("prod", "/a", "A").unwrap();
        expanded(project, &Rule::read_all(rules), secret)
    }

    #[test]
    fn a_reference_leads_through_others_and_what_is_not_there_stays() {
        let all = json!([{"subject": "secrets", "action": ["readValue"]}]);
        let project = project(&[
            ("prod", "/a", "A", "<${B}> ${dev.b.c.C} ${NONE} ${no name} ${A}"),
            ("prod", "/a", "B", "${dev.b.c.C}!"),
            ("dev", "/b/c", "C", "deep"),
        ]);
        let said = read(&project, &all).unwrap();
        assert!(said.starts_with("<deep!> deep ${NONE} ${no name} "), "{said}");
        // Whoever may not read what stands behind a reference of a reference may read nothing of it.
        let prod =
            json!([{"subject": "secrets", "action": ["readValue"], "conditions": {"environment": {"$eq": "prod"}}}]);
        let no = read(&project, &prod).unwrap_err();
        assert!(no.message().to_string().contains("'C' in environment 'dev' at path '/b/c'"), "{no:?}");
    }
}
