//! The client's side of SCRAM (RFC 5802) as a machine without IO.

use std::num::NonZeroU32;

use super::scram::{CLIENT_KEY, SERVER_KEY, ScramError, ScramMechanism, attribute, escape, is_nonce, same, xor};
use crate::base64;

/// Most iterations that a client does for a server that asks for them: about a second.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Has sent the first message.
#[derive(Debug)]
pub(crate) struct ScramClient {
    mechanism: ScramMechanism,
    nonce: String,
    bare: String,
}

/// Has sent the proof, and waits for the server's.
pub(crate) struct ScramProven {
    mechanism: ScramMechanism,
    signature: Vec<u8>,
}

impl ScramClient {
    /// The machine and its first message. `nonce`: printable, and new each time.
    #[must_use]
    pub(crate) fn begin(mechanism: ScramMechanism, user: &str, nonce: &str) -> (ScramClient, String) {
        let bare = format!("n={},r={nonce}", escape(user));
        let message = format!("n,,{bare}");
        (ScramClient { mechanism, nonce: nonce.to_owned(), bare }, message)
    }

    /// Answers the server's first message with the proof that the password is known.
    ///
    /// # Errors
    /// The message is none, or asks for too much.
    pub(crate) fn prove(self, password: &str, server_first: &[u8]) -> Result<(ScramProven, String), ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut attributes = text.split(',');
        let nonce = attribute(attributes.next(), 'r')?;
        if !is_nonce(nonce) || !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = base64::decode(attribute(attributes.next(), 's')?).ok_or(ScramError::Malformed)?;
        let iterations: NonZeroU32 = attribute(attributes.next(), 'i')?.parse().map_err(|_| ScramError::Malformed)?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(ScramError::Iterations(iterations.get()));
        }
        let mechanism = self.mechanism;
        let salted = mechanism.salt_password(password, &salt, iterations);
        let client_key = mechanism.mac(&salted, CLIENT_KEY);
        let without_proof = format!("c=biws,r={nonce}");
        let messages = format!("{},{text},{without_proof}", self.bare);
        let proof = xor(&client_key, &mechanism.mac(&mechanism.hash(&client_key), messages.as_bytes()));
        let signature = mechanism.mac(&mechanism.mac(&salted, SERVER_KEY), messages.as_bytes());
        Ok((ScramProven { mechanism, signature }, format!("{without_proof},p={}", base64::encode(&proof))))
    }
}

impl ScramProven {
    /// Checks that the server knows the password's keys, too.
    ///
    /// # Errors
    /// It does not: someone else answers in its place.
    pub(crate) fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed)?;
        let signature = base64::decode(attribute(text.split(',').next(), 'v')?).ok_or(ScramError::Malformed)?;
        let fits = signature.len() == self.mechanism.size() && same(&signature, &self.signature);
        if fits { Ok(()) } else { Err(ScramError::Proof) }
    }
}
