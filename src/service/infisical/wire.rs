//! The parts of the server's answers that are looked at.

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Its clock.
    pub date: jiff::Timestamp,
    /// The longest life of a token in seconds, whatever is configured; older servers do not say.
    #[serde(rename = "maxIdentityAccessTokenTTL")]
    pub max_token_ttl: Option<u64>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// Its organization.
    pub org_id: String,
    /// Its environments.
    #[serde(default)]
    pub environments: Vec<Environment>,
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Environment {
    /// Its slug.
    pub slug: String,
}

#[derive(Deserialize)]
pub(super) struct OneProject {
    pub(super) project: Project,
}

#[derive(Deserialize)]
pub(super) struct Projects {
    pub(super) projects: Vec<Project>,
}

#[derive(Deserialize)]
pub(super) struct ProjectIds {
    pub(super) projects: Vec<Id>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    pub(super) identity_details: IdentityDetails,
}

#[derive(Deserialize)]
pub(super) struct IdentityDetails {
    pub(super) organization: Id,
}

#[derive(Deserialize)]
pub(super) struct Id {
    pub(super) id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoggedIn {
    pub(super) access_token: SecretString,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) project_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct OneIdentity {
    pub(super) identity: Identity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProjectIdentities {
    pub(super) identities: Vec<Identity>,
    pub(super) total_count: usize,
}

/// An identity's membership in the organization.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrgMembership {
    pub(super) role: String,
    pub(super) identity: Identity,
}

#[derive(Deserialize)]
pub(super) struct OneOrgMembership {
    pub(super) identity: OrgMembership,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrgMemberships {
    pub(super) identities: Vec<OrgMembership>,
    pub(super) total_count: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Role {
    pub(super) role: String,
    #[serde(default)]
    pub(super) custom_role_slug: Option<String>,
    #[serde(default)]
    pub(super) is_temporary: bool,
}

impl Role {
    /// The role's slug; what is temporary is told, since it is another thing.
    pub(super) fn word(&self) -> String {
        let slug = self.custom_role_slug.as_deref().unwrap_or(&self.role);
        if self.is_temporary { format!("{slug} (temporary)") } else { slug.to_owned() }
    }
}

#[derive(Deserialize)]
pub(super) struct Membership {
    pub(super) roles: Vec<Role>,
    pub(super) identity: Member,
}

/// Who a member is, and how it can log in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    pub(super) auth_methods: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneMembership {
    pub(super) identity_membership: Membership,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Everywhere {
    pub(super) identity_memberships: Vec<ElsewhereMember>,
}

#[derive(Deserialize)]
pub(super) struct ElsewhereMember {
    pub(super) project: Id,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Privilege {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) is_temporary: bool,
    #[serde(default)]
    pub(super) permissions: Value,
}

#[derive(Deserialize)]
pub(super) struct OnePrivilege {
    pub(super) privilege: Privilege,
}

#[derive(Deserialize)]
pub(super) struct Privileges {
    pub(super) privileges: Vec<Privilege>,
}

#[derive(Deserialize)]
pub(super) struct Sources {
    pub(super) sources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) is_temporary: bool,
    pub(super) permissions: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneTokenAuth {
    pub(super) identity_token_auth: TokenAuth,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenAuth {
    #[serde(rename = "accessTokenTTL")]
    pub(super) ttl: u64,
    #[serde(rename = "accessTokenMaxTTL")]
    pub(super) max_ttl: u64,
    pub(super) access_token_num_uses_limit: u64,
    #[serde(default)]
    pub(super) access_token_period: u64,
    /// Older servers may not say.
    #[serde(default)]
    pub(super) access_token_trusted_ips: Option<Vec<TrustedIp>>,
}

/// Addresses from which a token is taken.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TrustedIp {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) prefix: Option<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewToken {
    pub(super) access_token: SecretString,
    pub(super) token_data: TokenData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenData {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    pub(super) identity_id: String,
    pub(super) is_access_token_revoked: bool,
}

#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) tokens: Vec<TokenData>,
}

/// What a server says when it did what it was told.
#[derive(Deserialize)]
pub(super) struct Message {
    #[serde(rename = "message")]
    pub(super) _message: String,
}

#[derive(Deserialize)]
pub(super) struct OneToken {
    pub(super) token: TokenData,
}

/// A secret without its value: that is never taken from the answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Secret {
    pub(super) secret_key: String,
    #[serde(default)]
    pub(super) secret_path: Option<String>,
    #[serde(default)]
    pub(super) secret_value_hidden: bool,
}

#[derive(Deserialize)]
pub(super) struct OneSecret {
    pub(super) secret: Secret,
}

#[derive(Deserialize)]
pub(super) struct Secrets {
    pub(super) secrets: Vec<Secret>,
    #[serde(default)]
    pub(super) imports: Vec<Value>,
}
