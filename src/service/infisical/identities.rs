//! Finding and making identities. Names are not unique on the server, so a name that stands for two is refused.

use serde_json::json;

use super::error::if_there;
use super::{Infisical, InfisicalError, Project, get, wire};
use crate::model::{IdentityScope, IdentitySpec};
use crate::service::http::{Method, Request};

/// The most pages that are asked for: a server that counts wrong must not keep anybody busy for ever.
const MOST_PAGES: usize = 50;
const PAGE: usize = 100;

/// An identity that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundIdentity {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its role in the organization, where it is one of the organization.
    pub org_role: Option<String>,
    /// The project that it belongs to, where it is one of a project.
    pub project: Option<String>,
}

impl Infisical {
    /// The identity that a file means, if it is there.
    ///
    /// # Errors
    /// When the name stands for several, the id for none or for one that is called otherwise or lives elsewhere.
    pub async fn find_identity(
        &self,
        spec: &IdentitySpec,
        project: &Project,
    ) -> Result<Option<FoundIdentity>, InfisicalError> {
        if let Some(id) = &spec.id {
            let wrong = |why: String| InfisicalError::WrongIdentity { id: id.clone(), why };
            let found = self.identity(spec.scope, project, id).await?;
            let found = found.ok_or_else(|| wrong(format!("is no identity of this {}", spec.scope)))?;
            if found.name != spec.name {
                return Err(wrong(format!("is called `{}`", crate::service::http::clean(&found.name))));
            }
            return Ok(Some(found));
        }
        let mut found = match spec.scope {
            IdentityScope::Project => self.project_identities(project, &spec.name).await?,
            IdentityScope::Org => self.org_identities(&spec.name).await?,
        };
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => {
                let ids = found.into_iter().map(|identity| identity.id).collect();
                Err(InfisicalError::Ambiguous { name: spec.name.clone(), ids })
            }
        }
    }

    /// An identity by its id.
    pub(super) async fn identity(
        &self,
        scope: IdentityScope,
        project: &Project,
        id: &str,
    ) -> Result<Option<FoundIdentity>, InfisicalError> {
        let reply = match scope {
            IdentityScope::Project => self.send(&get(&["api", "v1", "projects", &project.id, "identities", id])).await,
            IdentityScope::Org => self.send(&get(&["api", "v1", "identities", id])).await,
        };
        let Some(reply) = if_there(reply)? else { return Ok(None) };
        let found = match scope {
            IdentityScope::Project => seen(reply.json::<wire::OneIdentity>()?.identity, None),
            IdentityScope::Org => {
                let membership = reply.json::<wire::OneOrgMembership>()?.identity;
                seen(membership.identity, Some(membership.role))
            }
        };
        if found.id == id { Ok(Some(found)) } else { Err(InfisicalError::Odd("another identity came back".to_owned())) }
    }

    async fn project_identities(&self, project: &Project, name: &str) -> Result<Vec<FoundIdentity>, InfisicalError> {
        let mut found = Vec::new();
        let mut offset = 0;
        for _ in 0..MOST_PAGES {
            let request = get(&["api", "v1", "projects", &project.id, "identities"]);
            let request = request.query("offset", &offset).query("limit", &PAGE);
            let page: wire::ProjectIdentities = self.send(&request).await?.json()?;
            offset += page.identities.len();
            let end = page.identities.is_empty() || offset >= page.total_count;
            let called = page.identities.into_iter().filter(|identity| identity.name == name);
            found.extend(called.map(|identity| seen(identity, None)));
            if end {
                return Ok(found);
            }
        }
        Err(InfisicalError::Odd("the list of identities has no end".to_owned()))
    }

    async fn org_identities(&self, name: &str) -> Result<Vec<FoundIdentity>, InfisicalError> {
        let request = Request::new(Method::Post, &["api", "v1", "identities", "search"]).repeatable();
        let request = request.json(&json!({"search": {"name": {"$eq": name}}}))?;
        let page: wire::OrgMemberships = self.send(&request).await?.json()?;
        if page.total_count > page.identities.len() {
            return Err(InfisicalError::Odd(format!("{} identities are called alike", page.total_count)));
        }
        let called = page.identities.into_iter().filter(|membership| membership.identity.name == name);
        Ok(called.map(|membership| seen(membership.identity, Some(membership.role))).collect())
    }

    /// Makes an identity without any rights. Whether one is there already must have been asked before.
    pub(super) async fn create_identity(
        &self,
        spec: &IdentitySpec,
        project: &Project,
    ) -> Result<FoundIdentity, InfisicalError> {
        let metadata = json!([{"key": "managed-by", "value": "keyswap"}]);
        let (path, body) = match spec.scope {
            IdentityScope::Project => (
                vec!["api", "v1", "projects", &project.id, "identities"],
                json!({
                    "name": spec.name, "hasDeleteProtection": false, "metadata": metadata,
                    "roles": [{"role": "no-access", "isTemporary": false}],
                }),
            ),
            IdentityScope::Org => (
                vec!["api", "v1", "identities"],
                json!({
                    "name": spec.name, "organizationId": project.org_id, "role": "no-access",
                    "hasDeleteProtection": false, "metadata": metadata,
                }),
            ),
        };
        let request = Request::new(Method::Post, &path).json(&body)?;
        let made: wire::OneIdentity = self.send(&request).await?.json()?;
        let role = (spec.scope == IdentityScope::Org).then(|| "no-access".to_owned());
        Ok(seen(made.identity, role))
    }
}

fn seen(identity: wire::Identity, org_role: Option<String>) -> FoundIdentity {
    FoundIdentity { id: identity.id, name: identity.name, org_role, project: identity.project_id }
}
