//! Users and ACLs as the cluster's settings hold them: JSON, what is not text in base64.

use std::num::NonZeroU32;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::acl::{Acl, Operation, PatternType, Permission, ResourceType};
use super::scram::{ScramCredential, ScramMechanism};
use crate::base64;
use crate::settings::key_of;

/// The namespace of ACLs.
pub(super) const ACLS: &str = "acls";
/// The namespace of users' credentials.
pub(super) const USERS: &str = "users";
/// The namespace of [`SECRET`].
pub(super) const SECRETS: &str = "secrets";
/// The key of the secret from which salts and the credentials of users that do not exist are made.
pub(super) const SECRET: &str = "users";

#[derive(Serialize, Deserialize)]
struct StoredAcl {
    resource_type: String,
    name: String,
    pattern: String,
    principal: String,
    host: String,
    operation: String,
    permission: String,
}

#[derive(Serialize, Deserialize)]
struct StoredCredential {
    user: String,
    mechanism: String,
    iterations: u32,
    salt: String,
    stored_key: String,
    server_key: String,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    secret: String,
}

fn text(value: &impl Serialize) -> String {
    // Strings and numbers in a struct always can be written.
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn acl_key(acl: &Acl) -> String {
    let Acl { resource_type, name, pattern, principal, host, operation, permission } = acl;
    key_of(&[resource_type.name(), name, pattern.name(), principal, host, operation.name(), permission.name()])
}

pub(super) fn acl(acl: &Acl) -> String {
    text(&StoredAcl {
        resource_type: acl.resource_type.name().to_owned(),
        name: acl.name.clone(),
        pattern: acl.pattern.name().to_owned(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.name().to_owned(),
        permission: acl.permission.name().to_owned(),
    })
}

/// `None` for what a later release may have written.
pub(super) fn read_acl(value: &str) -> Option<Acl> {
    let stored: StoredAcl = serde_json::from_str(value).ok()?;
    Some(Acl {
        resource_type: ResourceType::named(&stored.resource_type)?,
        name: stored.name,
        pattern: PatternType::named(&stored.pattern)?,
        principal: stored.principal,
        host: stored.host,
        operation: Operation::named(&stored.operation)?,
        permission: Permission::named(&stored.permission)?,
    })
}

pub(super) fn credential_key(user: &str, mechanism: ScramMechanism) -> String {
    key_of(&[mechanism.name(), user])
}

pub(super) fn credential(user: &str, credential: &ScramCredential) -> String {
    text(&StoredCredential {
        user: user.to_owned(),
        mechanism: credential.mechanism.name().to_owned(),
        iterations: credential.iterations.get(),
        salt: base64::encode(&credential.salt),
        stored_key: base64::encode(&credential.stored_key),
        server_key: base64::encode(&credential.server_key),
    })
}

/// As [`read_acl`].
pub(super) fn read_credential(value: &str) -> Option<(String, ScramCredential)> {
    let stored: StoredCredential = serde_json::from_str(value).ok()?;
    let mechanism = ScramMechanism::ALL.into_iter().find(|mechanism| mechanism.name() == stored.mechanism)?;
    let bytes = |text: &str| base64::decode(text).map(Bytes::from);
    let (salt, stored_key) = (bytes(&stored.salt)?, bytes(&stored.stored_key)?);
    let (server_key, iterations) = (bytes(&stored.server_key)?, NonZeroU32::new(stored.iterations)?);
    Some((stored.user, ScramCredential { mechanism, salt, iterations, stored_key, server_key }))
}

pub(super) fn secret(secret: &[u8; 32]) -> String {
    text(&StoredSecret { secret: base64::encode(secret) })
}

/// As [`read_acl`].
pub(super) fn read_secret(value: &str) -> Option<[u8; 32]> {
    let stored: StoredSecret = serde_json::from_str(value).ok()?;
    base64::decode(&stored.secret)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::made::{any_acl, any_credential};
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(rule in any_acl(), named in any_credential(), bytes: [u8; 32]) {
            prop_assert_eq!(read_acl(&acl(&rule)), Some(rule));
            prop_assert_eq!(read_credential(&credential(&named.0, &named.1)), Some(named));
            prop_assert_eq!(read_secret(&secret(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            prop_assert!(read_acl(&text).is_none() && read_credential(&text).is_none() && read_secret(&text).is_none());
        }
    }
}
