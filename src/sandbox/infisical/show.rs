//! How the stand-in writes what it holds: every key that was recorded, in the recorded order.

use serde_json::{Value, json};

use super::clock::iso;
use super::world::{Identity, Membership, Privilege, Project, Role, Secret, Token, TokenAuth, World};

/// What a server writes in place of a value that it does not show.
pub(super) const HIDDEN: &str = "<hidden-by-infisical>";

/// Adds keys.
pub(super) fn with(mut value: Value, more: Value) -> Value {
    if let (Some(into), Value::Object(more)) = (value.as_object_mut(), more) {
        into.extend(more);
    }
    value
}

pub(super) fn project(project: &Project) -> Value {
    let made = iso(project.made);
    let environment = |e: &super::world::Named| json!({"name": e.name, "slug": e.slug, "id": e.id});
    json!({
        "id": project.id, "name": project.name, "description": null, "type": "secret-manager", "defaultProduct": null,
        "slug": project.slug, "autoCapitalization": false, "orgId": project.org, "createdAt": made, "updatedAt": made,
        "version": 3, "upgradeStatus": null, "pitVersionLimit": 10, "kmsCertificateKeyId": null,
        "auditLogsRetentionDays": null, "hasDeleteProtection": false, "secretSharing": true,
        "showSnapshotsLegacy": false, "secretDetectionIgnoreValues": null,
        "enforceEncryptedSecretManagerSecretMetadata": null, "_id": project.id,
        "environments": project.environments.iter().map(environment).collect::<Vec<_>>(), "deletedEnvironments": [],
    })
}

pub(super) fn token_auth(identity: &Identity, auth: &TokenAuth) -> Value {
    json!({
        "id": auth.id, "accessTokenTTL": auth.ttl, "accessTokenMaxTTL": auth.max_ttl,
        "accessTokenNumUsesLimit": auth.uses,
        "accessTokenTrustedIps": auth.addresses.clone().unwrap_or_else(everywhere), "createdAt": iso(auth.times.0),
        "updatedAt": iso(auth.times.1), "identityId": identity.id, "accessTokenPeriod": auth.period,
    })
}

pub(super) fn everywhere() -> Value {
    json!([{"type": "ipv4", "prefix": 0, "ipAddress": "0.0.0.0"}, {"type": "ipv6", "prefix": 0, "ipAddress": "::"}])
}

pub(super) fn token(token: &Token) -> Value {
    json!({
        "id": token.id, "accessTokenTTL": token.ttl, "accessTokenMaxTTL": token.max_ttl, "accessTokenNumUses": 0,
        "accessTokenNumUsesLimit": token.limit, "accessTokenLastUsedAt": null, "accessTokenLastRenewedAt": null,
        "isAccessTokenRevoked": token.listed_as_revoked, "identityUAClientSecretId": null,
        "identityId": token.identity, "createdAt": iso(token.times.0), "updatedAt": iso(token.times.1),
        "name": token.name, "authMethod": token.method, "accessTokenPeriod": 0, "subOrganizationId": null,
    })
}

pub(super) fn role(role: &Role, long: bool) -> Value {
    let mut shown = json!({"id": role.id, "role": role.slug});
    if long {
        shown = with(shown, json!({"customRoleId": null}));
    }
    with(
        shown,
        json!({
            "customRoleName": null, "customRoleSlug": null, "isTemporary": false, "temporaryMode": null,
            "temporaryRange": null, "temporaryAccessStartTime": null, "temporaryAccessEndTime": null,
        }),
    )
}

pub(super) fn roles(membership: &Membership, long: bool) -> Vec<Value> {
    membership.roles.iter().map(|own| role(own, long)).collect()
}

pub(super) fn methods(identity: &Identity) -> Vec<&'static str> {
    let mut methods = Vec::new();
    if identity.token_auth.is_some() {
        methods.push("token-auth");
    }
    if identity.universal_auth.is_some() {
        methods.push("universal-auth");
    }
    methods
}

pub(super) fn metadata(identity: &Identity) -> Vec<Value> {
    identity.metadata.iter().map(|[id, key, value]| json!({"id": id, "key": key, "value": value})).collect()
}

/// An identity of the organization, as its own address answers after a change.
pub(super) fn org_identity(identity: &Identity) -> Value {
    json!({
        "id": identity.id, "name": identity.name, "authMethod": null, "createdAt": iso(identity.times.0),
        "updatedAt": iso(identity.times.1), "hasDeleteProtection": identity.protected, "orgId": identity.org,
        "projectId": identity.project,
    })
}

/// An identity of a project.
pub(super) fn project_identity(identity: &Identity) -> Value {
    json!({
        "id": identity.id, "name": identity.name, "orgId": identity.org, "projectId": identity.project,
        "createdAt": iso(identity.times.0), "updatedAt": iso(identity.times.1),
        "hasDeleteProtection": identity.protected,
    })
}

/// An identity's membership in the organization. `long`: with everything.
pub(super) fn org_membership(identity: &Identity, long: bool) -> Value {
    let (method, time) = seen(identity);
    let mut own = json!({
        "name": identity.name, "id": identity.id, "hasDeleteProtection": identity.protected,
        "authMethods": methods(identity),
    });
    if long {
        own = with(own, json!({"orgId": identity.org, "activeLockoutAuthMethods": []}));
    }
    json!({
        "id": identity.org_membership, "role": identity.org_role, "roleId": null, "orgId": identity.org,
        "createdAt": iso(identity.times.0), "updatedAt": iso(identity.times.1), "identityId": identity.id,
        "lastLoginAuthMethod": method, "lastLoginTime": time, "identity": own,
    })
}

fn seen(identity: &Identity) -> (Value, Value) {
    match identity.seen {
        Some((method, at)) => (method.into(), iso(at).into()),
        None => (Value::Null, Value::Null),
    }
}

/// A membership in a project.
pub(super) fn membership(world: &World, membership: &Membership, long: bool) -> Value {
    let made = iso(membership.made);
    let mut shown = json!({"id": membership.id});
    if !long {
        shown = with(shown, json!({"identityId": membership.identity}));
    }
    shown = with(shown, json!({"createdAt": made, "updatedAt": made, "roles": roles(membership, false)}));
    let Some(identity) = world.identity(&membership.identity) else { return shown };
    let mut own = json!({
        "name": identity.name, "id": identity.id, "orgId": identity.org, "projectId": identity.project,
        "authMethods": methods(identity),
    });
    if long {
        let (method, time) = seen(identity);
        shown = with(shown, json!({"lastLoginAuthMethod": method, "lastLoginTime": time}));
        own = with(own, json!({"metadata": metadata(identity)}));
    } else {
        own = with(own, json!({"activeLockoutAuthMethods": []}));
    }
    with(shown, json!({"identity": own}))
}

/// A privilege. `rules`: with what it grants.
pub(super) fn privilege(privilege: &Privilege, rules: bool) -> Value {
    let mut shown = json!({"id": privilege.id, "slug": privilege.slug, "isTemporary": privilege.temporary.is_some()});
    let (mode, range, begin, end) = match &privilege.temporary {
        Some((range, begin, end)) => ("relative".into(), range.clone().into(), iso(*begin).into(), iso(*end).into()),
        None => (Value::Null, Value::Null, Value::Null, Value::Null),
    };
    shown = with(
        shown,
        json!({
            "temporaryMode": mode, "temporaryRange": range, "temporaryAccessStartTime": begin,
            "temporaryAccessEndTime": end,
        }),
    );
    if rules {
        let rules: Vec<Value> = privilege.rules.iter().map(super::Rule::shown).collect();
        shown = with(shown, json!({"permissions": rules}));
    }
    with(shown, json!({"createdAt": iso(privilege.times.0), "updatedAt": iso(privilege.times.1)}))
}

/// A secret as a write answers.
pub(super) fn written(project: &str, secret: &Secret) -> Value {
    json!({
        "id": secret.id, "_id": secret.id, "workspace": project, "environment": secret.environment,
        "version": secret.version, "type": "shared", "secretKey": secret.key, "secretValue": secret.value,
        "secretComment": "", "secretReminderNote": null, "secretReminderRepeatDays": null,
        "skipMultilineEncoding": false, "createdAt": iso(secret.times.0), "updatedAt": iso(secret.times.1),
        "isRotatedSecret": false, "rotationId": null,
    })
}

/// A secret in a listing of imports: less is shown there, and its project not at all.
pub(super) fn imported(secret: &Secret, hidden: bool) -> Value {
    json!({
        "id": secret.id, "_id": secret.id, "workspace": "", "environment": secret.environment, "version": secret.version,
        "type": "shared", "secretKey": secret.key, "secretValue": if hidden { HIDDEN } else { &secret.value },
        "secretComment": "", "skipMultilineEncoding": false, "isRotatedSecret": false, "rotationId": null,
        "secretValueHidden": hidden, "secretMetadata": [],
    })
}

/// A secret as a read answers.
pub(super) fn secret(project: &str, secret: &Secret, hidden: bool) -> Value {
    let mut shown = with(
        written(project, secret),
        json!({"secretValueHidden": hidden, "secretPath": secret.path, "tags": [], "secretMetadata": []}),
    );
    if let Some(value) = shown.get_mut("secretValue").filter(|_| hidden) {
        *value = HIDDEN.into();
    }
    shown
}
