//! What an identity may do: its place in the project, its additional privileges, and all of that together as the
//! server evaluates it.

use serde_json::json;

use super::error::if_there;
use super::rules::Rule;
use super::tokens::TokenAuth;
use super::{Class, FoundIdentity, Infisical, InfisicalError, Project, get, wire};
use crate::model::{IdentityScope, IdentitySpec};
use crate::service::http::{Method, Request};

const PRIVILEGES: [&str; 3] = ["api", "v2", "identity-project-additional-privilege"];

/// What stands on the server for an identity's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The project.
    pub project: Project,
    /// The identity, if it is there.
    pub identity: Option<FoundIdentity>,
    /// Its roles in the project; `None`: no member.
    pub roles: Option<Vec<String>>,
    /// How it can log in, as far as the project knows it.
    pub methods: Vec<String>,
    /// Projects other than this one that it is a member of; none are known for an identity of a project.
    pub elsewhere: Vec<String>,
    /// How its tokens are made, if at all.
    pub token_auth: Option<TokenAuth>,
    /// What it was granted beside its roles.
    pub privileges: Vec<FoundPrivilege>,
    /// The longest life of a token in seconds, where the server says it.
    pub max_ttl: Option<u64>,
}

/// An additional privilege that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPrivilege {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// It ends by itself.
    pub is_temporary: bool,
    /// What it grants; `None`: in a shape that is not known here.
    pub rules: Option<Vec<Rule>>,
}

/// Where effective rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `role`, `group_role` or `additional_privilege`.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// It ends by itself.
    pub is_temporary: bool,
    /// What it grants; `None`: in a shape that is not known here.
    pub rules: Option<Vec<Rule>>,
}

impl Infisical {
    /// Looks at everything that an identity's file speaks of; changes nothing.
    ///
    /// # Errors
    /// When the server refuses, cannot be asked, or it is not clear which identity is meant.
    pub async fn look(&self, spec: &IdentitySpec) -> Result<Found, InfisicalError> {
        let max_ttl = self.status().await?.max_token_ttl;
        let project = self.project(&spec.project).await?;
        let identity = self.find_identity(spec, &project).await?;
        let mut found = Found {
            project,
            identity: None,
            roles: None,
            methods: Vec::new(),
            elsewhere: Vec::new(),
            token_auth: None,
            privileges: Vec::new(),
            max_ttl,
        };
        let Some(identity) = identity else { return Ok(found) };
        if let Some(member) = self.membership(&found.project.id, &identity.id).await? {
            found.roles = Some(member.roles.iter().map(wire::Role::word).collect());
            found.methods = member.identity.auth_methods;
        }
        found.token_auth = self.token_auth(&identity.id).await?;
        if found.roles.is_some() {
            found.privileges = self.privileges(&found.project.id, &identity.id).await?;
        }
        if spec.scope == IdentityScope::Org {
            let all = self.memberships(&identity.id).await?;
            found.elsewhere = all.into_iter().filter(|id| *id != found.project.id).collect();
        }
        found.identity = Some(identity);
        Ok(found)
    }

    /// An identity's place in a project; `None`: no member.
    async fn membership(&self, project: &str, identity: &str) -> Result<Option<wire::Membership>, InfisicalError> {
        let path = ["api", "v1", "projects", project, "memberships", "identities", identity];
        let Some(reply) = if_there(self.send(&get(&path)).await)? else { return Ok(None) };
        Ok(Some(reply.json::<wire::OneMembership>()?.identity_membership))
    }

    /// The projects that an identity of the organization is a member of.
    pub(super) async fn memberships(&self, identity: &str) -> Result<Vec<String>, InfisicalError> {
        let reply = self.send(&get(&["api", "v1", "identities", identity, "identity-memberships"])).await?;
        let all = reply.json::<wire::Everywhere>()?.identity_memberships;
        Ok(all.into_iter().map(|membership| membership.project.id).collect())
    }

    /// Makes an identity a member without any rights.
    pub(super) async fn join(&self, project: &str, identity: &str) -> Result<(), InfisicalError> {
        self.set_roles(Method::Post, project, identity).await
    }

    /// Takes every role away from a member.
    pub(super) async fn strip_roles(&self, project: &str, identity: &str) -> Result<(), InfisicalError> {
        self.set_roles(Method::Patch, project, identity).await
    }

    async fn set_roles(&self, method: Method, project: &str, identity: &str) -> Result<(), InfisicalError> {
        let path = ["api", "v1", "projects", project, "memberships", "identities", identity];
        let body = json!({"roles": [{"role": "no-access", "isTemporary": false}]});
        self.send(&Request::new(method, &path).json(&body)?).await?;
        Ok(())
    }

    /// What an identity was granted beside its roles, each with its rules.
    pub(super) async fn privileges(
        &self,
        project: &str,
        identity: &str,
    ) -> Result<Vec<FoundPrivilege>, InfisicalError> {
        let request = get(&PRIVILEGES).query("identityId", identity).query("projectId", project);
        let listed: wire::Privileges = self.send(&request).await?.json()?;
        let mut found = Vec::new();
        for row in listed.privileges {
            // The list does not say what they grant.
            let [api, version, name] = PRIVILEGES;
            match if_there(self.send(&get(&[api, version, name, &row.id])).await)? {
                Some(reply) => found.push(seen(reply.json::<wire::OnePrivilege>()?.privilege)),
                None => return Err(InfisicalError::Odd("a listed privilege is not there".to_owned())),
            }
        }
        Ok(found)
    }

    /// Grants exactly these rules, for good.
    pub(super) async fn grant(
        &self,
        (project, identity): (&str, &str),
        slug: &str,
        rules: &[Rule],
    ) -> Result<(), InfisicalError> {
        let rules: Vec<_> = rules.iter().map(Rule::to_json).collect();
        let body = json!({
            "identityId": identity, "projectId": project, "slug": slug, "type": {"isTemporary": false},
            "permissions": rules,
        });
        self.send(&Request::new(Method::Post, &PRIVILEGES).json(&body)?).await?;
        Ok(())
    }

    /// Makes a privilege grant exactly these rules, for good.
    pub(super) async fn regrant(&self, id: &str, slug: &str, rules: &[Rule]) -> Result<(), InfisicalError> {
        let rules: Vec<_> = rules.iter().map(Rule::to_json).collect();
        let body = json!({"slug": slug, "type": {"isTemporary": false}, "permissions": rules});
        let [api, version, name] = PRIVILEGES;
        // The same words once more change nothing.
        let request = Request::new(Method::Patch, &[api, version, name, id]).repeatable();
        self.send(&request.json(&body)?).await?;
        Ok(())
    }

    /// Takes a privilege away.
    pub(super) async fn withdraw(&self, id: &str) -> Result<(), InfisicalError> {
        let [api, version, name] = PRIVILEGES;
        let sent = self.send(&Request::new(Method::Delete, &[api, version, name, id]).repeatable()).await;
        if_there(sent).map(|_| ())
    }

    /// What an identity may do in a project in effect, by where it comes from.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn effective(&self, project: &str, identity: &str) -> Result<Vec<Source>, InfisicalError> {
        let path = ["api", "v1", "projects", project, "memberships", "identities", identity, "permissions", "audit"];
        let sources = self.send(&get(&path)).await?.json::<wire::Sources>()?.sources;
        let read = |source: wire::Source| Source {
            kind: source.kind,
            name: source.name,
            is_temporary: source.is_temporary,
            rules: Rule::read_all(&source.permissions, Rule::unpack),
        };
        Ok(sources.into_iter().map(read).collect())
    }

    /// Ids of projects of the organization; those that one is no member of are there too.
    pub(super) async fn all_projects(&self) -> Result<Vec<String>, InfisicalError> {
        let request = Request::new(Method::Post, &["api", "v1", "projects", "search"]).repeatable();
        let request = request.json(&json!({"limit": 100}))?;
        let found: wire::ProjectIds = self.send(&request).await?.json()?;
        Ok(found.projects.into_iter().map(|project| project.id).collect())
    }
}

fn seen(privilege: wire::Privilege) -> FoundPrivilege {
    FoundPrivilege {
        id: privilege.id,
        slug: privilege.slug,
        is_temporary: privilege.is_temporary,
        rules: Rule::read_all(&privilege.permissions, Rule::read),
    }
}

/// The rules that a file's access stands for.
pub(super) fn wanted(spec: &IdentitySpec) -> Vec<Rule> {
    spec.access.iter().map(Rule::of).collect()
}

/// The rules in a refusal's details: those that the one who asked has about it. `None`: it says nothing of them.
pub(super) fn details(error: &InfisicalError) -> Option<Vec<Rule>> {
    match error {
        InfisicalError::Refused { class: Class::Denied, refusal } => {
            Rule::read_all(refusal.details.as_ref()?, Rule::read)
        }
        _ => None,
    }
}
