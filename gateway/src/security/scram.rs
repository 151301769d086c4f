//! SCRAM (RFC 5802, RFC 7677): what is stored of a password, and what both sides compute from it.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;
use ring::{digest, hmac, pbkdf2};

/// The hash that a SCRAM mechanism is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScramMechanism {
    Sha256,
    Sha512,
}

impl ScramMechanism {
    pub const ALL: [ScramMechanism; 2] = [ScramMechanism::Sha256, ScramMechanism::Sha512];

    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ScramMechanism::Sha256 => "SCRAM-SHA-256",
            ScramMechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Its number in Kafka's protocol (KIP-554).
    #[must_use]
    pub fn code(self) -> i8 {
        match self {
            ScramMechanism::Sha256 => 1,
            ScramMechanism::Sha512 => 2,
        }
    }

    #[must_use]
    pub fn from_code(code: i8) -> Option<ScramMechanism> {
        Self::ALL.into_iter().find(|mechanism| mechanism.code() == code)
    }

    /// Bytes of a hash.
    #[must_use]
    pub fn size(self) -> usize {
        self.digest().output_len()
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            ScramMechanism::Sha256 => &digest::SHA256,
            ScramMechanism::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            ScramMechanism::Sha256 => hmac::HMAC_SHA256,
            ScramMechanism::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// `HMAC(key, text)`
    pub(super) fn mac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text).as_ref().to_vec()
    }

    /// `H(text)`
    pub(super) fn hash(self, text: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), text).as_ref().to_vec()
    }

    /// `Hi(password, salt, iterations)`, the salted password.
    pub(super) fn salt_password(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            ScramMechanism::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramMechanism::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.size()];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// What a server keeps of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    pub mechanism: ScramMechanism,
    pub salt: Bytes,
    pub iterations: NonZeroU32,
    pub stored_key: Bytes,
    pub server_key: Bytes,
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScramCredential { mechanism, iterations, .. } = self;
        f.debug_struct("ScramCredential").field("mechanism", mechanism).field("iterations", iterations).finish()
    }
}

impl ScramCredential {
    /// From the password itself. Takes milliseconds, as it is meant to.
    #[must_use]
    pub fn of_password(mechanism: ScramMechanism, password: &str, salt: Bytes, iterations: NonZeroU32) -> Self {
        let salted = mechanism.salt_password(password, &salt, iterations);
        ScramCredential::of_salted(mechanism, &salted, salt, iterations)
    }

    /// From the salted password, as AlterUserScramCredentials brings it.
    #[must_use]
    pub fn of_salted(mechanism: ScramMechanism, salted: &[u8], salt: Bytes, iterations: NonZeroU32) -> Self {
        let stored_key = mechanism.hash(&mechanism.mac(salted, CLIENT_KEY)).into();
        let server_key = mechanism.mac(salted, SERVER_KEY).into();
        ScramCredential { mechanism, salt, iterations, stored_key, server_key }
    }
}

pub(super) const CLIENT_KEY: &[u8] = b"Client Key";
pub(super) const SERVER_KEY: &[u8] = b"Server Key";

/// Why a SCRAM exchange goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("the SCRAM message has not the form of RFC 5802")]
    Malformed,
    #[error("channel binding is not supported")]
    ChannelBinding,
    #[error("delegation tokens are not supported")]
    Token,
    #[error("an authorization id other than the user's name")]
    AuthorizationId,
    #[error("the nonce is another one")]
    Nonce,
    #[error("the proof does not fit")]
    Proof,
    #[error("{0} iterations are more than anyone should ask for")]
    Iterations(u32),
}

/// Whether both are equal, in a time that does not tell where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compared in constant time");
    hmac::verify(&key, a, hmac::sign(&key, b).as_ref()).is_ok()
}

/// A user's name as it stands in a message: `,` and `=` are written as `=2C` and `=3D`.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

pub(super) fn unescape(text: &str) -> Result<Cow<'_, str>, ScramError> {
    if !text.contains('=') {
        return Ok(Cow::Borrowed(text));
    }
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        name.push(character);
        name.push_str(rest);
    }
    Ok(Cow::Owned(name))
}

/// The value of an attribute, `r=...`.
pub(super) fn attribute(part: Option<&str>, name: char) -> Result<&str, ScramError> {
    part.and_then(|part| part.strip_prefix(name)?.strip_prefix('=')).ok_or(ScramError::Malformed)
}

/// A nonce: printable ASCII without a comma, and not without end.
pub(super) fn is_nonce(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

pub(super) fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}
