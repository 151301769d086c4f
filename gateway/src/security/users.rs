//! The users of `[users]` in the configuration, and what an unknown user's credential looks like.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ring::hmac;

use super::limits::ITERATIONS;
use super::scram::{ScramCredential, ScramMechanism, same};
use crate::config::UserConfig;

/// Bytes of a salt that is made here.
const SALT_BYTES: usize = 16;

/// A key that only this node knows, kept so that what is derived from it stays the same over restarts.
#[derive(Clone)]
pub(super) struct Secret(hmac::Key);

impl Secret {
    pub(super) fn new(bytes: &[u8; 32]) -> Secret {
        Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn mac(&self, what: &str, mechanism: &str, text: &str) -> Bytes {
        let sign = [what, "\0", mechanism, "\0", text].concat();
        Bytes::copy_from_slice(hmac::sign(&self.0, sign.as_bytes()).as_ref())
    }

    /// The same for a user of `[users]` and for one who does not exist, so that nobody learns from it which it is.
    fn salt(&self, mechanism: ScramMechanism, user: &str) -> Bytes {
        self.mac("salt", mechanism.name(), user).slice(..SALT_BYTES)
    }

    /// A credential for a user who has none: of no password, always the same, and like any other.
    pub(super) fn fake(&self, mechanism: ScramMechanism, user: &str) -> ScramCredential {
        let key = |what| self.mac(what, mechanism.name(), user).repeat(2).into();
        let cut = |bytes: Bytes| bytes.slice(..mechanism.size());
        ScramCredential {
            mechanism,
            salt: self.salt(mechanism, user),
            iterations: ITERATIONS,
            stored_key: cut(key("stored key")),
            server_key: cut(key("server key")),
        }
    }
}

/// What is held of one user.
struct FileUser {
    /// Of the password, under the node's secret.
    mac: Bytes,
    scram: Vec<ScramCredential>,
}

/// The users of `[users]`, ready to be asked for. No password is held here.
#[derive(Default)]
pub(super) struct FileUsers {
    users: HashMap<String, FileUser>,
}

impl FileUsers {
    /// Derives the keys: milliseconds for each user and mechanism.
    pub(super) fn derive(
        users: &BTreeMap<String, UserConfig>,
        mechanisms: &[ScramMechanism],
        secret: &Secret,
    ) -> FileUsers {
        let derive = |(name, user): (&String, &UserConfig)| {
            let scram = mechanisms.iter().map(|mechanism| {
                let salt = secret.salt(*mechanism, name);
                ScramCredential::of_password(*mechanism, &user.password, salt, ITERATIONS)
            });
            (name.clone(), FileUser { mac: secret.mac("password", "PLAIN", &user.password), scram: scram.collect() })
        };
        FileUsers { users: users.iter().map(derive).collect() }
    }

    pub(super) fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether this is the user's password. Takes as long when there is no such user.
    pub(super) fn check(&self, secret: &Secret, user: &str, password: &str) -> bool {
        let given = secret.mac("password", "PLAIN", password);
        let nobody = secret.mac("nobody's password", "PLAIN", user);
        let known = self.users.get(user);
        let fits = same(&given, known.map_or(&nobody, |user| &user.mac));
        fits && known.is_some()
    }

    pub(super) fn scram(&self, mechanism: ScramMechanism, user: &str) -> Option<&ScramCredential> {
        self.users.get(user)?.scram.iter().find(|credential| credential.mechanism == mechanism)
    }

    pub(super) fn all_scram(&self, user: &str) -> Option<&[ScramCredential]> {
        self.users.get(user).map(|user| user.scram.as_slice())
    }
}
