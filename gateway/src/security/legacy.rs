//! What the topic `_security` held before there were clusters: ACLs in its keys, SCRAM credentials in its values, which begin with a
//! version.

use std::num::NonZeroU32;

use bytes::{Buf, Bytes};

use super::acl::{Acl, Operation, PatternType, Permission, ResourceType};
use super::records;
use super::scram::{ScramCredential, ScramMechanism};
use crate::settings::Legacy;

/// The one version there is.
const VERSION: u8 = 0;
/// What keys begin with.
const ACL: u8 = b'a';
const SCRAM: u8 = b's';
/// The key of the node's own secret.
const SECRET_KEY: &[u8] = b"secret-of-the-node";

/// The topic. Clients may not read it.
pub const TOPIC: &str = "_security";

/// The setting that a record becomes; `None` when it is none of ours.
pub(crate) fn setting(key: &Bytes, value: &Bytes) -> Option<Legacy> {
    if key == SECRET_KEY {
        let secret = read_secret(value.clone())?;
        return Some((records::SECRETS, (records::SECRET.to_owned(), Some(records::secret(&secret)))));
    }
    match read(key.clone(), value.clone())? {
        Stored::Acl(acl) => Some((records::ACLS, (records::acl_key(&acl), Some(records::acl(&acl))))),
        Stored::Credential(user, credential) => {
            let key = records::credential_key(&user, credential.mechanism);
            Some((records::USERS, (key, Some(records::credential(&user, &credential)))))
        }
    }
}

/// One record, read.
#[derive(Debug, PartialEq, Eq)]
enum Stored {
    Acl(Acl),
    Credential(String, ScramCredential),
}

fn read_secret(mut value: Bytes) -> Option<[u8; 32]> {
    version(&mut value)?;
    value.as_ref().try_into().ok()
}

/// Reads a record; `None` when it is none of ours.
fn read(mut key: Bytes, mut value: Bytes) -> Option<Stored> {
    version(&mut value)?;
    match key.try_get_u8().ok()? {
        ACL => {
            let mut code = || key.try_get_i8().ok();
            let resource_type = ResourceType::from_code(code()?)?;
            let pattern = PatternType::from_code(code()?)?;
            let operation = Operation::from_code(code()?)?;
            let permission = Permission::from_code(code()?)?;
            let mut text = || String::from_utf8(take(&mut key)?.to_vec()).ok();
            let (name, principal, host) = (text()?, text()?, text()?);
            Some(Stored::Acl(Acl { resource_type, name, pattern, principal, host, operation, permission }))
        }
        SCRAM => {
            let mechanism = ScramMechanism::from_code(key.try_get_i8().ok()?)?;
            let user = String::from_utf8(key.to_vec()).ok()?;
            let iterations = NonZeroU32::new(value.try_get_u32().ok()?)?;
            let (salt, stored_key, server_key) = (take(&mut value)?, take(&mut value)?, take(&mut value)?);
            Some(Stored::Credential(user, ScramCredential { mechanism, salt, iterations, stored_key, server_key }))
        }
        _ => None,
    }
}

fn version(value: &mut Bytes) -> Option<()> {
    (value.try_get_u8().ok()? == VERSION).then_some(())
}

fn take(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(from.try_get_u16().ok()?);
    (length <= from.len()).then(|| from.split_to(length))
}

/// What nodes wrote then.
#[cfg(test)]
pub(crate) mod written {
    use bytes::{BufMut, BytesMut};

    use super::*;

    pub(crate) fn acl_key(acl: &Acl) -> Bytes {
        let mut key = BytesMut::new();
        key.put_u8(ACL);
        for code in [acl.resource_type.code(), acl.pattern.code(), acl.operation.code(), acl.permission.code()] {
            key.put_i8(code);
        }
        for text in [&acl.name, &acl.principal, &acl.host] {
            put(&mut key, text.as_bytes());
        }
        key.freeze()
    }

    pub(crate) fn acl_value() -> Bytes {
        Bytes::from_static(&[VERSION])
    }

    pub(crate) fn credential_key(user: &str, mechanism: ScramMechanism) -> Bytes {
        let mut key = BytesMut::new();
        key.put_u8(SCRAM);
        key.put_i8(mechanism.code());
        key.put_slice(user.as_bytes());
        key.freeze()
    }

    pub(crate) fn credential_value(credential: &ScramCredential) -> Bytes {
        let mut value = BytesMut::new();
        value.put_u8(VERSION);
        value.put_u32(credential.iterations.get());
        for bytes in [&credential.salt, &credential.stored_key, &credential.server_key] {
            put(&mut value, bytes);
        }
        value.freeze()
    }

    pub(crate) fn secret_value(secret: &[u8; 32]) -> Bytes {
        let mut value = BytesMut::new();
        value.put_u8(VERSION);
        value.put_slice(secret);
        value.freeze()
    }

    /// What is stored is at most a few kilobytes long: limits see to that.
    fn put(out: &mut BytesMut, bytes: &[u8]) {
        out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        out.put_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::made::{any_acl, any_credential};
    use super::written::*;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(acl in any_acl(), (user, credential) in any_credential()) {
            prop_assert_eq!(read(acl_key(&acl), acl_value()), Some(Stored::Acl(acl)));
            let stored = read(credential_key(&user, credential.mechanism), credential_value(&credential));
            prop_assert_eq!(stored, Some(Stored::Credential(user, credential)));
        }

        #[test]
        fn no_bytes_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = read(key.clone().into(), value.into());
            let _ = read(key.into(), acl_value());
        }
    }
}
