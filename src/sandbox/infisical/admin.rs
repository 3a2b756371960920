//! What only admins see: of the instance, and of the organization.

use serde_json::{Value, json};

use super::clock::iso;
use super::reply::{Ask, Said, forbidden, no_route};
use super::show;
use super::world::World;

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

impl World {
    /// `/api/v1/admin/…`, `/api/v1/organization/…`, `/api/v2/organizations/:id/identity-memberships`
    pub(super) fn admin(&mut self, ask: &Ask, who: &str, path: &[&str]) -> Said {
        match path {
            [_, _, "organization", "audit-logs"] => {
                self.need_in_org(who, "read", "audit-logs")?;
                // Without a licence nothing is kept.
                return Ok(json!({"auditLogs": []}));
            }
            [_, _, "organization", "roles"] => {
                self.need_in_org(who, "read", "role")?;
                return Ok(json!({"roles": self.org_roles(who)}));
            }
            [_, _, "organizations", _, "identity-memberships"] => {
                self.need_in_org(who, "read", "identity")?;
                let all = self.identities.iter().filter(|identity| !identity.deleted && identity.project.is_none());
                let all: Vec<Value> = all
                    .map(|identity| {
                        let own = json!({
                            "name": identity.name, "id": identity.id, "orgId": identity.org,
                            "authMethods": show::methods(identity),
                        });
                        show::with(show::org_membership(identity, false), json!({"identity": own}))
                    })
                    .collect();
                return Ok(json!({"totalCount": all.len(), "identityMemberships": all}));
            }
            [_, _, _, "config"] => return Ok(json!({"config": self.config(who)})),
            _ => {}
        }
        if !self.identity(who).is_some_and(|identity| identity.instance_admin) {
            return Err(forbidden("Requires elevated super admin privileges"));
        }
        match path {
            [_, _, _, "identity-management", "identities"] => {
                let all: Vec<Value> = self
                    .identities
                    .iter()
                    .filter(|identity| !identity.deleted)
                    .map(|i| json!({"name": i.name, "id": i.id, "isInstanceAdmin": i.instance_admin}))
                    .collect();
                let limit = ask.asked("limit").and_then(|text| text.parse().ok()).unwrap_or(20);
                Ok(json!({"identities": all.iter().take(limit).collect::<Vec<_>>(), "total": all.len()}))
            }
            [_, _, _, "encryption-strategies"] => {
                Ok(json!({"strategies": [{"strategy": "SOFTWARE", "enabled": true}]}))
            }
            [_, _, _, "organization-management", "organizations"] => {
                let all: Vec<Value> =
                    self.orgs.iter().map(|org| json!({"id": org.id, "name": org.name, "slug": org.slug})).collect();
                Ok(json!({"total": all.len(), "organizations": all}))
            }
            [_, _, _, "user-management", "users"] => Ok(json!({
                "users": [{
                    "username": "admin@example.net", "email": "admin@example.net", "isEmailVerified": true,
                    "firstName": "Admin", "lastName": "User", "authMethods": ["email"], "id": NOBODY,
                    "superAdmin": true,
                }],
                "total": 1,
            })),
            _ => Err(no_route(&ask.method, &ask.target)),
        }
    }

    fn org_roles(&self, who: &str) -> Vec<Value> {
        let org = self.identity(who).map(|identity| identity.org.clone()).unwrap_or_default();
        let at = iso(self.clock.now());
        let role = |(name, slug): (&str, &str)| {
            json!({
                "id": super::world::new_id(), "name": name, "description": name, "slug": slug, "createdAt": at,
                "updatedAt": at, "orgId": org,
            })
        };
        [("Admin", "admin"), ("Member", "member"), ("No Access", "no-access")].map(role).to_vec()
    }

    /// Anybody may ask; an instance admin is told more.
    fn config(&self, who: &str) -> Value {
        let mut config = json!({
            "id": NOBODY, "initialized": true, "allowSignUp": true, "allowedSignUpDomain": null,
            "defaultAuthOrgId": null, "enabledLoginMethods": null, "authConsentContent": null,
            "pageFrameContent": null, "isPublicSecretSharingDisabled": false, "licenseServerV2Enabled": false,
            "isCrossProjectSecretSharingEnabled": false, "defaultAuthOrgSlug": null,
            "defaultAuthOrgAuthEnforced": null, "defaultAuthOrgAuthMethod": null,
        });
        if self.identity(who).is_some_and(|identity| identity.instance_admin) {
            let more = json!({
                "instanceId": NOBODY, "trustSamlEmails": false, "trustLdapEmails": false, "trustOidcEmails": false,
                "adminIdentityIds": [who], "fipsEnabled": false, "isMigrationModeOn": false,
                "isSecretScanningDisabled": true, "kubernetesAutoFetchServiceAccountToken": false,
                "paramsFolderSecretDetectionEnabled": false, "isOfflineUsageReportsEnabled": false,
            });
            config = show::with(config, more);
        }
        config
    }
}
