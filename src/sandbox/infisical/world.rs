//! What the stand-in holds: organizations, projects, identities, memberships, privileges and tokens, all in memory.
//!
//! Names of identities are not unique, ids are; nothing is ever removed from `tokens`, so that a test can ask what
//! became of each.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::clock::Clock;
use super::rights::Rule;

/// An organization.
#[derive(Debug, Clone)]
pub struct Org {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
}

/// An environment or a folder in one: an id and what it is called.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Its slug.
    pub slug: String,
}

/// A folder of an environment; the root is there from the beginning.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its id.
    pub id: String,
    /// The environment's slug.
    pub environment: String,
    /// Its path from `/`.
    pub path: String,
    /// When it was made, in milliseconds.
    pub made: i64,
}

/// A secret of a project.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Its id.
    pub id: String,
    /// The environment's slug.
    pub environment: String,
    /// The folder's path.
    pub path: String,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How often it was written.
    pub version: u32,
    /// When it was made and last written, in milliseconds.
    pub times: (i64, i64),
}

/// A folder's import of another one.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its id.
    pub id: String,
    /// The id of the folder that it was made in.
    pub folder: String,
    /// The slug of the environment that it is from.
    pub environment: String,
    /// The path of the folder that it is from.
    pub path: String,
    /// Its place among the imports of its folder.
    pub position: usize,
    /// When it was made, in milliseconds.
    pub made: i64,
}

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
    /// The organization's id.
    pub org: String,
    /// Its environments.
    pub environments: Vec<Named>,
    /// Its folders, the roots left out.
    pub folders: Vec<Folder>,
    /// Its secrets.
    pub secrets: Vec<Secret>,
    /// Its imports.
    pub imports: Vec<Import>,
    /// The ids of its four built-in roles.
    pub roles: [String; 4],
    /// When it was made, in milliseconds.
    pub made: i64,
}

/// Token Auth of an identity.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// Its id.
    pub id: String,
    /// Seconds; 0 is "as long as may be".
    pub ttl: i64,
    /// Seconds.
    pub max_ttl: i64,
    /// How often a token may be used; 0 is without a limit.
    pub uses: i64,
    /// By how many seconds a token may be renewed; 0: not.
    pub period: i64,
    /// The only addresses from which it is taken: with a licence.
    pub addresses: Option<Value>,
    /// When it was made and last changed.
    pub times: (i64, i64),
}

/// Universal Auth of an identity.
#[derive(Debug, Clone)]
pub struct UniversalAuth {
    /// Its id.
    pub id: String,
    /// What it is logged in with, beside the secret.
    pub client_id: String,
    /// Seconds.
    pub ttl: i64,
    /// The secrets that are good.
    pub secrets: Vec<String>,
    /// When it was made.
    pub made: i64,
}

/// A machine identity.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Its name, which others may bear too.
    pub name: String,
    /// The organization's id.
    pub org: String,
    /// The project's id, if it is an identity of a project.
    pub project: Option<String>,
    /// `no-access`, `member` or `admin`.
    pub org_role: String,
    /// The id of its membership in the organization.
    pub org_membership: String,
    /// It may call the admin routes.
    pub instance_admin: bool,
    /// It cannot be deleted.
    pub protected: bool,
    /// Id, key, value.
    pub metadata: Vec<[String; 3]>,
    /// Token Auth, if attached.
    pub token_auth: Option<TokenAuth>,
    /// Universal Auth, if attached.
    pub universal_auth: Option<UniversalAuth>,
    /// When Token Auth was detached last, in milliseconds: what is older is dead.
    pub detached: Option<i64>,
    /// It is gone.
    pub deleted: bool,
    /// It logged in or had a token minted.
    pub seen: Option<(&'static str, i64)>,
    /// When it was made and last changed.
    pub times: (i64, i64),
}

/// A role in a project.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its id.
    pub id: String,
    /// `admin`, `member`, `viewer` or `no-access`.
    pub slug: String,
}

/// An identity's place in a project.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Its id.
    pub id: String,
    /// The project's id.
    pub project: String,
    /// The identity's id.
    pub identity: String,
    /// The roles.
    pub roles: Vec<Role>,
    /// When it was made.
    pub made: i64,
}

/// An additional privilege of an identity in a project.
#[derive(Debug, Clone)]
pub struct Privilege {
    /// Its id.
    pub id: String,
    /// The project's id.
    pub project: String,
    /// The identity's id.
    pub identity: String,
    /// Its slug.
    pub slug: String,
    /// What it grants, as it was stored.
    pub rules: Vec<Rule>,
    /// Range, begin and end, in milliseconds.
    pub temporary: Option<(String, i64, i64)>,
    /// When it was made and last changed.
    pub times: (i64, i64),
}

/// A token that was minted.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// The identity's id.
    pub identity: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// `token-auth` or `universal-auth`.
    pub method: &'static str,
    /// Seconds, capped.
    pub ttl: i64,
    /// Seconds, as configured.
    pub max_ttl: i64,
    /// How often it may be used; 0 is without a limit.
    pub limit: i64,
    /// How often it was used.
    pub used: i64,
    /// In seconds.
    pub issued: i64,
    /// In seconds; none for the tokens of old.
    pub expires: Option<i64>,
    /// It is refused.
    pub revoked: bool,
    /// Listings say that it is revoked.
    pub listed_as_revoked: bool,
    /// When it was made and last changed.
    pub times: (i64, i64),
}

/// What was looked up for an identity in a project, and when.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    pub(super) at: i64,
    /// `None`: no member.
    pub(super) rules: Option<Vec<Rule>>,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// The organizations.
    pub orgs: Vec<Org>,
    /// The projects.
    pub projects: Vec<Project>,
    /// The identities, deleted ones included.
    pub identities: Vec<Identity>,
    /// Who is a member where.
    pub memberships: Vec<Membership>,
    /// Who may do more than the role says.
    pub privileges: Vec<Privilege>,
    /// Every token that was ever minted.
    pub tokens: Vec<Token>,
    /// What time it is.
    pub clock: Clock,
    /// A condition that is lost whenever a privilege is written.
    pub loses: Option<&'static str>,
    pub(super) cache: BTreeMap<(String, String), Cached>,
    pub(super) key: String,
}

/// A new id.
pub(super) fn new_id() -> String {
    Uuid::new_v4().to_string()
}

impl World {
    /// A world with nothing in it.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            orgs: Vec::new(),
            projects: Vec::new(),
            identities: Vec::new(),
            memberships: Vec::new(),
            privileges: Vec::new(),
            tokens: Vec::new(),
            clock,
            loses: None,
            cache: BTreeMap::new(),
            key: new_id(),
        }
    }

    /// Adds an organization; its id.
    pub fn add_org(&mut self, name: &str) -> String {
        let id = new_id();
        self.orgs.push(Org { id: id.clone(), name: name.to_owned(), slug: format!("{}-1", name.to_lowercase()) });
        id
    }

    /// Adds a project with the environments `dev`, `staging` and `prod`; its id.
    pub fn add_project(&mut self, org: &str, slug: &str) -> String {
        let environment = |(name, slug): (&str, &str)| Named { id: new_id(), name: name.into(), slug: slug.into() };
        let id = new_id();
        self.projects.push(Project {
            id: id.clone(),
            name: slug.to_owned(),
            slug: slug.to_owned(),
            org: org.to_owned(),
            environments: [("Development", "dev"), ("Staging", "staging"), ("Production", "prod")]
                .map(environment)
                .to_vec(),
            folders: Vec::new(),
            imports: Vec::new(),
            secrets: Vec::new(),
            roles: std::array::from_fn(|_| new_id()),
            made: self.clock.now(),
        });
        id
    }

    /// Adds a secret and the folders on the way to it; its id.
    pub fn add_secret(&mut self, project: &str, environment: &str, path: &str, key: &str, value: &str) -> String {
        let now = self.clock.now();
        let id = new_id();
        if let Some(project) = self.projects.iter_mut().find(|p| p.id == project) {
            let mut so_far = String::new();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                so_far = format!("{so_far}/{part}");
                project.add_folder(environment, &so_far, now);
            }
            let secret = Secret {
                id: id.clone(),
                environment: environment.to_owned(),
                path: path.to_owned(),
                key: key.to_owned(),
                value: value.to_owned(),
                version: 1,
                times: (now, now),
            };
            project.secrets.push(secret);
        }
        id
    }

    /// Adds an identity of an organization, or of a project; its id.
    pub fn add_identity(&mut self, org: &str, project: Option<&str>, name: &str) -> String {
        let now = self.clock.now();
        let id = new_id();
        self.identities.push(Identity {
            id: id.clone(),
            name: name.to_owned(),
            org: org.to_owned(),
            project: project.map(str::to_owned),
            org_role: "no-access".to_owned(),
            org_membership: new_id(),
            instance_admin: false,
            protected: false,
            metadata: Vec::new(),
            token_auth: None,
            universal_auth: None,
            detached: None,
            deleted: false,
            seen: None,
            times: (now, now),
        });
        id
    }

    /// Changes an identity.
    pub fn with_identity(&mut self, id: &str, change: impl FnOnce(&mut Identity)) {
        if let Some(identity) = self.identities.iter_mut().find(|identity| identity.id == id) {
            change(identity);
        }
    }

    /// Makes an identity a member of a project; the membership's id.
    pub fn add_member(&mut self, project: &str, identity: &str, roles: &[&str]) -> String {
        let id = new_id();
        let roles = roles.iter().map(|slug| Role { id: new_id(), slug: (*slug).to_owned() }).collect();
        let made = self.clock.now();
        let (project, identity) = (project.to_owned(), identity.to_owned());
        self.memberships.push(Membership { id: id.clone(), project, identity, roles, made });
        id
    }

    /// Grants what the permissions (as an API call writes them) say; the privilege's id.
    pub fn add_privilege(&mut self, project: &str, identity: &str, slug: &str, permissions: &Value) -> String {
        let now = self.clock.now();
        let id = new_id();
        self.privileges.push(Privilege {
            id: id.clone(),
            project: project.to_owned(),
            identity: identity.to_owned(),
            slug: slug.to_owned(),
            rules: Rule::read_all(permissions),
            temporary: None,
            times: (now, now),
        });
        id
    }

    /// Attaches Token Auth.
    pub fn attach_token_auth(&mut self, identity: &str, ttl: i64) {
        let now = self.clock.now();
        let auth =
            TokenAuth { id: new_id(), ttl, max_ttl: ttl, uses: 0, period: 0, addresses: None, times: (now, now) };
        self.with_identity(identity, |identity| identity.token_auth = Some(auth));
    }

    /// Attaches Universal Auth with one client secret; the client id.
    pub fn attach_universal_auth(&mut self, identity: &str, secret: &str) -> String {
        let client_id = new_id();
        let auth = UniversalAuth {
            id: new_id(),
            client_id: client_id.clone(),
            ttl: 900,
            secrets: vec![secret.to_owned()],
            made: self.clock.now(),
        };
        self.with_identity(identity, |identity| identity.universal_auth = Some(auth));
        client_id
    }

    /// The tokens of Token Auth that a server would still take.
    #[must_use]
    pub fn living(&self) -> Vec<&Token> {
        let now = self.clock.now() / 1000;
        let lives = |token: &&Token| {
            let expired = token.expires.is_none_or(|expires| expires <= now);
            token.method == "token-auth" && !token.revoked && !expired
        };
        self.tokens.iter().filter(lives).collect()
    }

    pub(super) fn org(&self, id: &str) -> Value {
        let org = self.orgs.iter().find(|org| org.id == id);
        org.map_or(Value::Null, |org| json!({"id": org.id, "name": org.name, "slug": org.slug}))
    }

    pub(super) fn project(&self, id: &str) -> Option<&Project> {
        self.projects.iter().find(|project| project.id == id)
    }

    pub(super) fn identity(&self, id: &str) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id == id && !identity.deleted)
    }

    pub(super) fn membership(&self, project: &str, identity: &str) -> Option<&Membership> {
        self.memberships.iter().find(|m| m.project == project && m.identity == identity)
    }
}

impl Project {
    /// The folder's id, if it is there. A root always is, if its environment is.
    pub(super) fn folder(&self, environment: &str, path: &str) -> Option<String> {
        let root = self.environments.iter().find(|e| e.slug == environment)?;
        if path == "/" {
            return Some(root.id.clone());
        }
        self.folders.iter().find(|f| f.environment == environment && f.path == path).map(|f| f.id.clone())
    }

    pub(super) fn add_folder(&mut self, environment: &str, path: &str, made: i64) {
        if self.folder(environment, path).is_none() {
            let (environment, path) = (environment.to_owned(), path.to_owned());
            self.folders.push(Folder { id: new_id(), environment, path, made });
        }
    }

    pub(super) fn secret(&self, environment: &str, path: &str, key: &str) -> Option<&Secret> {
        self.secrets.iter().find(|s| s.environment == environment && s.path == path && s.key == key)
    }
}
