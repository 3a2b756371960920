//! What has to change so that an identity is what its file says: pure, from what was found.

use std::fmt;

use super::access::{Found, FoundPrivilege, wanted};
use super::rules::{Rule, listed, same};
use super::tokens::{TokenAuth, seconds};
use crate::model::{IdentityScope, IdentitySpec};

/// What the privilege is called that keyswap makes.
pub(super) const SLUG: &str = "keyswap-read";
const NO_ACCESS: &str = "no-access";
const TOKEN_AUTH: &str = "token-auth";

/// One change. Two that are equal do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make the identity, without any rights.
    Create {
        /// Its name.
        name: String,
        /// Where it lives.
        scope: IdentityScope,
    },
    /// Make it a member of the project, without any rights.
    Join {
        /// The project's slug.
        project: String,
    },
    /// Take its roles in the project away.
    StripRoles {
        /// Which it has.
        from: Vec<String>,
    },
    /// Attach Token Auth.
    AttachTokenAuth {
        /// How its tokens are to be made.
        to: TokenAuth,
    },
    /// Change how its tokens are made.
    ChangeTokenAuth {
        /// How they are made.
        from: TokenAuth,
        /// How they are to be made.
        to: TokenAuth,
    },
    /// Grant what it may read.
    Grant {
        /// The rules.
        rules: Vec<Rule>,
    },
    /// Make a privilege grant exactly what it may read.
    Regrant {
        /// The privilege.
        from: FoundPrivilege,
        /// The rules.
        to: Vec<Rule>,
    },
    /// Take away what it was granted otherwise.
    Withdraw {
        /// The privilege.
        privilege: FoundPrivilege,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = crate::service::http::clean;
        let granted = |privilege: &FoundPrivilege| {
            privilege.rules.as_deref().map_or_else(|| "rules of an unknown form".to_owned(), listed)
        };
        match self {
            Self::Create { name, scope } => write!(f, "+ identity `{name}` ({scope}), without rights"),
            Self::Join { project } => write!(f, "+ member of `{project}`, role {NO_ACCESS}"),
            Self::StripRoles { from } => {
                write!(f, "~ roles in the project: {} → {NO_ACCESS}", clean(&from.join(", ")))
            }
            Self::AttachTokenAuth { to } => write!(f, "+ token auth: {}", life(to)),
            Self::ChangeTokenAuth { from, to } => write!(f, "~ token auth: {} → {}", life(from), life(to)),
            Self::Grant { rules } => write!(f, "+ privilege `{SLUG}`: {}", listed(rules)),
            Self::Regrant { from, to } => {
                write!(f, "~ privilege `{}`: {} → {}", clean(&from.slug), granted(from), listed(to))
            }
            Self::Withdraw { privilege } => {
                write!(f, "- privilege `{}`: {}", clean(&privilege.slug), granted(privilege))
            }
        }
    }
}

fn life(auth: &TokenAuth) -> String {
    let times = if auth.uses == 0 { String::new() } else { format!(", {} uses", auth.uses) };
    let from = if auth.from_anywhere { "" } else { ", from some addresses only" };
    if auth.ttl == auth.max_ttl {
        format!("ttl {} s{times}{from}", auth.ttl)
    } else {
        format!("ttl {} s, at most {} s{times}{from}", auth.ttl, auth.max_ttl)
    }
}

/// Why an identity cannot be made what its file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The server ends every token sooner.
    #[error("the server ends every token after {} days; the file asks for {} days", .most / 86_400, .wanted / 86_400)]
    TooLong {
        /// What the file says, in seconds.
        wanted: u64,
        /// What the server allows, in seconds.
        most: u64,
    },
    /// The file names an environment that the project does not have.
    #[error("the project has no environment `{0}`")]
    NoEnvironment(String),
    /// The identity has rights that are nobody's to take away by accident.
    #[error("the identity is more than a dedicated one: {0}")]
    NotDedicated(String),
}

/// What was found and what has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What stands on the server.
    pub found: Found,
    /// What has to change, in order. Nothing: it is what the file says.
    pub changes: Vec<Change>,
}

/// What has to change, in order; nothing when all is as the file says.
///
/// # Errors
/// When that cannot be reached.
pub fn plan(spec: &IdentitySpec, found: &Found) -> Result<Vec<Change>, PlanError> {
    let ttl = seconds(spec.ttl);
    if let Some(most) = found.max_ttl.filter(|most| ttl > *most) {
        return Err(PlanError::TooLong { wanted: ttl, most });
    }
    let known = |slug: &str| found.project.environments.iter().any(|environment| environment.slug == slug);
    if let Some(access) = spec.access.iter().find(|access| !known(&access.environment)) {
        return Err(PlanError::NoEnvironment(access.environment.clone()));
    }
    if let Some(role) = found.identity.as_ref().and_then(|identity| identity.org_role.as_deref())
        && role != NO_ACCESS
    {
        return Err(PlanError::NotDedicated(format!("its role in the organization is `{role}`")));
    }
    if !found.elsewhere.is_empty() {
        let others = found.elsewhere.join(", ");
        return Err(PlanError::NotDedicated(format!("it is a member of other projects, too: {others}")));
    }
    if let Some(method) = found.methods.iter().find(|method| *method != TOKEN_AUTH) {
        let method = crate::service::http::clean(method);
        return Err(PlanError::NotDedicated(format!("it can log in by `{method}`, too: detach that")));
    }
    if let Some(period) = found.token_auth.as_ref().map(|auth| auth.period).filter(|period| *period != 0) {
        return Err(PlanError::NotDedicated(format!(
            "its tokens can be renewed for ever (accessTokenPeriod {period})"
        )));
    }

    let mut changes = Vec::new();
    if found.identity.is_none() {
        changes.push(Change::Create { name: spec.name.clone(), scope: spec.scope });
    }
    match &found.roles {
        // An identity of a project is a member from the beginning.
        None if spec.scope == IdentityScope::Project && found.identity.is_none() => {}
        None => changes.push(Change::Join { project: found.project.slug.clone() }),
        Some(roles) if roles.iter().all(|role| role == NO_ACCESS) => {}
        Some(roles) => changes.push(Change::StripRoles { from: roles.clone() }),
    }
    let auth = TokenAuth { ttl, max_ttl: ttl, uses: 0, period: 0, from_anywhere: true };
    match &found.token_auth {
        None => changes.push(Change::AttachTokenAuth { to: auth }),
        Some(from) if *from == auth => {}
        Some(from) => changes.push(Change::ChangeTokenAuth { from: from.clone(), to: auth }),
    }
    // What goes goes first, so that at no time there is more than before and what is to be.
    let own = found.privileges.iter().find(|privilege| privilege.slug == SLUG);
    for privilege in found.privileges.iter().filter(|privilege| privilege.slug != SLUG) {
        changes.push(Change::Withdraw { privilege: privilege.clone() });
    }
    let rules = wanted(spec);
    match own {
        None => changes.push(Change::Grant { rules }),
        Some(own) if !own.is_temporary && own.rules.as_deref().is_some_and(|found| same(found, &rules)) => {}
        Some(own) => changes.push(Change::Regrant { from: own.clone(), to: rules }),
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::model::Access;
    use crate::service::infisical::{FoundIdentity, Project, wire::Environment};

    fn spec() -> IdentitySpec {
        let access = Access { environment: "prod".to_owned(), path: "/a".to_owned(), read: vec!["A".to_owned()] };
        IdentitySpec {
            name: "runner".to_owned(),
            id: None,
            project: "p".to_owned(),
            scope: IdentityScope::Project,
            ttl: Duration::from_secs(90 * 86_400),
            access: vec![access],
        }
    }

    /// As it is to be.
    fn found() -> Found {
        let privilege = FoundPrivilege {
            id: "1".to_owned(),
            slug: SLUG.to_owned(),
            is_temporary: false,
            rules: Some(wanted(&spec())),
        };
        Found {
            project: Project {
                id: "p-1".to_owned(),
                slug: "p".to_owned(),
                org_id: "o".to_owned(),
                environments: vec![Environment { slug: "prod".to_owned() }],
            },
            identity: Some(FoundIdentity {
                id: "i".to_owned(),
                name: "runner".to_owned(),
                org_role: None,
                project: Some("p-1".to_owned()),
            }),
            roles: Some(vec![NO_ACCESS.to_owned()]),
            elsewhere: Vec::new(),
            methods: vec!["token-auth".to_owned()],
            token_auth: Some(TokenAuth { ttl: 7_776_000, max_ttl: 7_776_000, uses: 0, period: 0, from_anywhere: true }),
            privileges: vec![privilege],
            max_ttl: Some(7_776_000),
        }
    }

    fn said(found: &Found) -> Vec<String> {
        plan(&spec(), found).unwrap().iter().map(Change::to_string).collect()
    }

    #[test]
    fn nothing_where_all_is_as_it_is_to_be() {
        assert_eq!(said(&found()), [""; 0]);
    }

    #[test]
    fn everything_where_there_is_nothing() {
        let nothing = Found { identity: None, roles: None, token_auth: None, privileges: Vec::new(), ..found() };
        let said = said(&nothing);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], "+ identity `runner` (project), without rights");
        assert_eq!(said[1], "+ token auth: ttl 7776000 s");
        assert!(
            said[2].starts_with("+ privilege `keyswap-read`: describeSecret+readValue on secrets where"),
            "{said:?}"
        );
        let org = IdentitySpec { scope: IdentityScope::Org, ..spec() };
        assert!(plan(&org, &nothing).unwrap().contains(&Change::Join { project: "p".to_owned() }));
    }

    #[test]
    fn anything_more_is_drift() {
        let mut wide = found();
        wide.roles = Some(vec!["viewer".to_owned()]);
        wide.token_auth = Some(TokenAuth { ttl: 0, max_ttl: 0, uses: 0, period: 0, from_anywhere: true });
        let everywhere = json!({"subject": "secrets", "action": ["describeSecret", "readValue"]});
        wide.privileges[0].rules = Some(vec![Rule::read(&everywhere).unwrap()]);
        let other = FoundPrivilege { slug: "other".to_owned(), rules: None, ..wide.privileges[0].clone() };
        wide.privileges.push(other);
        let changes = plan(&spec(), &wide).unwrap();
        assert!(
            matches!(
                changes.as_slice(),
                [
                    Change::StripRoles { .. },
                    Change::ChangeTokenAuth { .. },
                    Change::Withdraw { .. },
                    Change::Regrant { .. }
                ]
            ),
            "{changes:?}"
        );
        let mut temporary = found();
        temporary.privileges[0].is_temporary = true;
        assert!(matches!(plan(&spec(), &temporary).unwrap().as_slice(), [Change::Regrant { .. }]));
    }

    #[test]
    fn what_cannot_be_reached_is_said_at_once() {
        let capped = Found { max_ttl: Some(86_400), ..found() };
        assert!(plan(&spec(), &capped).unwrap_err().to_string().contains("after 1 days"));
        let mut admin = found();
        admin.identity.as_mut().unwrap().org_role = Some("admin".to_owned());
        assert!(matches!(plan(&spec(), &admin), Err(PlanError::NotDedicated(_))));
        let elsewhere = Found { elsewhere: vec!["q".to_owned()], ..found() };
        assert!(matches!(plan(&spec(), &elsewhere), Err(PlanError::NotDedicated(_))));
        let other = Found { methods: vec!["token-auth".to_owned(), "universal-auth".to_owned()], ..found() };
        assert!(plan(&spec(), &other).unwrap_err().to_string().contains("`universal-auth`"));
        let mut periodic = found();
        periodic.token_auth.as_mut().unwrap().period = 3600;
        assert!(matches!(plan(&spec(), &periodic), Err(PlanError::NotDedicated(_))));
        let mut bound = found();
        bound.token_auth.as_mut().unwrap().from_anywhere = false;
        assert!(said(&bound)[0].contains("from some addresses only → "), "{:?}", said(&bound));
        let mut none = found();
        none.project.environments.clear();
        assert_eq!(plan(&spec(), &none), Err(PlanError::NoEnvironment("prod".to_owned())));
    }
}
