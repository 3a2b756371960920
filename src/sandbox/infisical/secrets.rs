//! Secrets: read, list, write. The order of the checks is the real one's, because it is what a probe relies on:
//! membership, folder, permission, and only then whether the secret is there.

use serde_json::{Value, json};

use super::links;
use super::reply::{Ask, No, Said, bad_request, no_route, not_found, required};
use super::rights::{Place, Rule, allows, need};
use super::show;
use super::world::{Project, Secret, World};

/// Where a call looks.
struct Spot {
    project: String,
    environment: String,
    /// As it was asked, without a slash at its end: what conditions are held against.
    asked: String,
    /// As it is.
    path: String,
}

impl World {
    /// `/api/v4/secrets…`, `/api/v3/secrets/raw…`
    pub(super) fn secrets(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        let old = path.get(1) == Some(&"v3");
        let rest = path.get(if old { 4 } else { 3 }..).unwrap_or_default();
        if let ("GET", ["id", id]) = (ask.method.as_str(), rest) {
            return self.secret_by_id(who, id);
        }
        let spot = self.spot(ask, old)?;
        let rules = self.remembered_rules(&spot.project, who)?;
        let project = self.project(&spot.project).cloned().ok_or_else(|| not_found("project"))?;
        match (ask.method.as_str(), rest) {
            ("GET", []) => list(ask, &project, &spot, (&rules, old)),
            ("GET", [name]) => read(ask, &project, &spot, (&rules, old), name),
            ("POST", [name]) => {
                folder(&project, &spot, "CreateSecret")?;
                need_at(&rules, "create", &spot, name)?;
                if project.secret(&spot.environment, &spot.path, name).is_some() {
                    return Err(bad_request("Secret already exists"));
                }
                let value = stored(ask.text("secretValue").unwrap_or_default());
                let id = self.add_secret(&spot.project, &spot.environment, &spot.path, name, &value);
                let project = self.project(&spot.project).ok_or_else(|| not_found("project"))?;
                let made = project.secrets.iter().find(|secret| secret.id == id);
                Ok(json!({"secret": made.map(|secret| show::written(&spot.project, secret))}))
            }
            ("PATCH", [name]) => {
                let missing = || not_found(format!("Secret with name {name} not found"));
                project.secret(&spot.environment, &spot.path, name).ok_or_else(missing)?;
                need_at(&rules, "edit", &spot, name)?;
                let now = self.clock.now();
                let changed = self.with_secret(&spot, name, |secret| {
                    if let Some(value) = ask.text("secretValue") {
                        secret.value = stored(value);
                    }
                    secret.version += 1;
                    secret.times.1 = now;
                });
                let secret = changed.ok_or_else(missing)?;
                let more = json!({"secretValueHidden": false});
                Ok(json!({"secret": show::with(show::written(&spot.project, &secret), more)}))
            }
            ("DELETE", [name]) => {
                let secret = project.secret(&spot.environment, &spot.path, name);
                let secret = secret.ok_or_else(|| not_found("Secret not found"))?;
                need_at(&rules, "delete", &spot, name)?;
                if let Some(project) = self.projects.iter_mut().find(|project| project.id == spot.project) {
                    project.secrets.retain(|own| own.id != secret.id);
                }
                let mut shown = show::written(&spot.project, secret);
                if let Some(object) = shown.as_object_mut() {
                    object.shift_remove("isRotatedSecret");
                    object.shift_remove("rotationId");
                }
                Ok(json!({"secret": show::with(shown, json!({"secretValueHidden": false}))}))
            }
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn with_secret(&mut self, spot: &Spot, name: &str, change: impl FnOnce(&mut Secret)) -> Option<Secret> {
        let project = self.projects.iter_mut().find(|project| project.id == spot.project)?;
        let mine = |s: &&mut Secret| s.environment == spot.environment && s.path == spot.path && s.key == name;
        let secret = project.secrets.iter_mut().find(mine)?;
        change(secret);
        Some(secret.clone())
    }

    fn spot(&self, ask: &Ask, old: bool) -> Result<Spot, No> {
        let given = |key: &str| ask.asked(key).or_else(|| ask.text(key)).map(str::to_owned);
        let project = if old {
            let by_slug = given("workspaceSlug").and_then(|slug| {
                self.projects.iter().find(|project| project.slug == slug).map(|project| project.id.clone())
            });
            given("workspaceId").or(by_slug)
        } else {
            given("projectId")
        };
        let project = project.ok_or_else(|| required(if old { "workspaceId" } else { "projectId" }))?;
        let environment = given("environment").ok_or_else(|| bad_request("Missing environment"))?;
        let asked = given("secretPath").unwrap_or_else(|| "/".to_owned());
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
        if !asked.chars().all(good) {
            return Err(bad_request(
                "Invalid secret path. Only alphanumeric characters, dashes, and underscores are allowed.",
            ));
        }
        if self.project(&project).is_none() {
            return Err(not_found(format!(
                "Project with ID '{project}' not found during bot lookup. Are you sure you are using the correct \
                 project ID?"
            )));
        }
        let bare = asked.trim_matches('/');
        let path = format!("/{bare}");
        let asked = if asked.len() > 1 { asked.trim_end_matches('/').to_owned() } else { asked };
        Ok(Spot { project, environment, asked, path })
    }

    fn secret_by_id(&mut self, who: &str, id: &str) -> Said {
        let found = self.projects.iter().find_map(|project| {
            project.secrets.iter().find(|secret| secret.id == id).map(|secret| (project.id.clone(), secret.clone()))
        });
        let (project, secret) = found.ok_or_else(|| not_found(format!("Secret with ID '{id}' not found")))?;
        let rules = self.remembered_rules(&project, who)?;
        let at = Place { environment: &secret.environment, path: &secret.path, name: &secret.key };
        need(&rules, "readValue", "secrets", Some(&at))?;
        let mut shown = show::secret(&project, &secret, false);
        if let Some(object) = shown.as_object_mut() {
            object.shift_remove("secretValueHidden");
        }
        Ok(json!({"secret": shown}))
    }
}

fn need_at(rules: &[Rule], action: &str, spot: &Spot, name: &str) -> Result<(), No> {
    let at = Place { environment: &spot.environment, path: &spot.asked, name };
    need(rules, action, "secrets", Some(&at))
}

fn folder(project: &Project, spot: &Spot, class: &str) -> Result<(), No> {
    match project.folder(&spot.environment, &spot.path) {
        Some(_) => Ok(()),
        None => Err(No::new(
            404,
            class,
            format!("Folder with path '{}' in environment with slug '{}' not found", spot.path, spot.environment),
        )),
    }
}

/// Whether something is asked for. The old address wants it said, the new one takes it for granted.
fn wanted(ask: &Ask, keys: [&str; 2], old: bool) -> bool {
    let said = keys.iter().find_map(|key| ask.asked(key));
    said.map_or(!old, |said| said == "true")
}

/// The secret with its value as the caller wants it.
fn valued(ask: &Ask, project: &Project, secret: &Secret, (rules, old): (&[Rule], bool)) -> Result<Secret, No> {
    let mut secret = secret.clone();
    if wanted(ask, ["expandSecretReferences", "expand_secret_references"], old) {
        secret.value = links::expanded(project, rules, &secret)?;
    }
    Ok(secret)
}

fn read(ask: &Ask, project: &Project, spot: &Spot, (rules, old): (&[Rule], bool), name: &str) -> Said {
    folder(project, spot, "GetSecretByName")?;
    need_at(rules, "describeSecret", spot, name)?;
    let secret = project.secret(&spot.environment, &spot.path, name);
    let secret = secret.ok_or_else(|| not_found(format!("Secret with name '{name}' not found")))?;
    let hidden = ask.asked("viewSecretValue") == Some("false");
    let at = Place { environment: &spot.environment, path: &spot.asked, name };
    if !hidden && !allows(rules, "readValue", "secrets", Some(&at)) {
        let message = format!("You do not have permission to view secret value on secret with name '{name}'");
        return Err(No::new(403, "ForbiddenReadSecretError", message));
    }
    if hidden {
        return Ok(json!({"secret": show::secret(&project.id, secret, hidden)}));
    }
    let secret = valued(ask, project, secret, (rules, old))?;
    Ok(json!({"secret": show::secret(&project.id, &secret, hidden)}))
}

fn list(ask: &Ask, project: &Project, spot: &Spot, (rules, old): (&[Rule], bool)) -> Said {
    let hidden = ask.asked("viewSecretValue") == Some("false");
    need(rules, "describeSecret", "secrets", None)?;
    if !hidden {
        need(rules, "readValue", "secrets", None)?;
    }
    let deep = ask.asked("recursive") == Some("true");
    let below = format!("{}/", spot.path.trim_end_matches('/'));
    let mut found: Vec<&Secret> = project
        .secrets
        .iter()
        .filter(|secret| {
            let inside = secret.path == spot.path || (deep && format!("{}/", secret.path).starts_with(&below));
            let at = Place { environment: &secret.environment, path: &secret.path, name: &secret.key };
            secret.environment == spot.environment && inside && allows(rules, "describeSecret", "secrets", Some(&at))
        })
        .collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let shown: Result<Vec<Value>, No> = found
        .into_iter()
        .map(|secret| {
            let at = Place { environment: &secret.environment, path: &secret.path, name: &secret.key };
            if hidden || !allows(rules, "readValue", "secrets", Some(&at)) {
                return Ok(show::secret(&project.id, secret, true));
            }
            let secret = valued(ask, project, secret, (rules, old)).map_err(|no| links::list_refused(&no))?;
            Ok(show::secret(&project.id, &secret, false))
        })
        .collect();
    let imports = match wanted(ask, ["includeImports", "include_imports"], old) {
        true => links::imported(project, rules, (&spot.environment, &spot.path), hidden),
        false => Vec::new(),
    };
    Ok(json!({"secrets": shown?, "imports": imports}))
}

/// Blanks around a value go, one line end at its end stays.
fn stored(value: &str) -> String {
    let bare = value.trim();
    if value.ends_with('\n') { format!("{bare}\n") } else { bare.to_owned() }
}
