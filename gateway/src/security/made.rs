//! Rights and credentials for property tests.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::acl::{Acl, Operation, PatternType, Permission, ResourceType};
use super::scram::{ScramCredential, ScramMechanism};

pub(super) fn any_acl() -> impl Strategy<Value = Acl> {
    let texts = ("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}");
    let kinds = (prop::sample::select(ResourceType::ALL), prop::sample::select(Operation::ALL));
    (texts, kinds).prop_map(|((name, principal, host), (resource_type, operation))| {
        let (pattern, permission) = (PatternType::Prefixed, Permission::Deny);
        Acl { resource_type, name, pattern, principal, host, operation, permission }
    })
}

/// Of a user.
pub(super) fn any_credential() -> impl Strategy<Value = (String, ScramCredential)> {
    let salt = prop::collection::vec(any::<u8>(), 0..40);
    ("\\PC{0,20}", prop::sample::select(&ScramMechanism::ALL[..]), salt).prop_map(|(user, mechanism, salt)| {
        (user, ScramCredential::of_password(mechanism, "pencil", salt.into(), NonZeroU32::MIN))
    })
}
