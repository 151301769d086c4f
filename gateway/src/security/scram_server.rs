//! The server's side of SCRAM (RFC 5802) as a machine without IO: two messages in, two out, or an error.
//!
//! An unknown user gets a credential that nobody has the password of, and goes the same steps as a known one.

use bytes::Bytes;

use super::scram::{ScramCredential, ScramError, attribute, is_nonce, same, unescape, xor};
use crate::base64;

/// The client's first message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub user: String,
    nonce: String,
    /// `n,,` or the like: comes again, encoded, in the last message.
    gs2_header: String,
    /// What follows it.
    bare: String,
}

impl ClientFirst {
    /// Reads `n,,n=user,r=nonce`.
    ///
    /// # Errors
    /// What is not SCRAM, or a part of it that is not supported here.
    pub(crate) fn parse(message: &[u8]) -> Result<ClientFirst, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        match parts.next() {
            // `y`: the client would bind to the channel, but has seen that the server cannot.
            Some("n" | "y") => {}
            Some(binding) if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let authorization = parts.next().ok_or(ScramError::Malformed)?;
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        let gs2_header = text[..text.len() - bare.len()].to_owned();
        let mut attributes = bare.split(',');
        let user = unescape(attribute(attributes.next(), 'n')?)?.into_owned();
        let nonce = attribute(attributes.next(), 'r')?;
        if user.is_empty() || !is_nonce(nonce) {
            return Err(ScramError::Malformed);
        }
        if attributes.any(|extension| extension.eq_ignore_ascii_case("tokenauth=true")) {
            return Err(ScramError::Token);
        }
        if !authorization.is_empty() && unescape(attribute(Some(authorization), 'a')?)? != user {
            return Err(ScramError::AuthorizationId);
        }
        Ok(ClientFirst { user, nonce: nonce.to_owned(), gs2_header, bare: bare.to_owned() })
    }
}

/// Waits for the client's last message.
#[derive(Debug)]
pub(crate) struct ScramServer {
    pub user: String,
    credential: ScramCredential,
    nonce: String,
    /// The channel binding that the client has to repeat.
    binding: String,
    /// The first two messages, as they are authenticated.
    messages: String,
}

impl ScramServer {
    /// The machine, and the answer to the client's first message. `nonce`: printable, and new each time.
    #[must_use]
    pub(crate) fn begin(first: ClientFirst, credential: ScramCredential, nonce: &str) -> (ScramServer, Bytes) {
        let nonce = first.nonce + nonce;
        let answer = format!("r={nonce},s={},i={}", base64::encode(&credential.salt), credential.iterations);
        let messages = format!("{},{answer}", first.bare);
        let binding = base64::encode(first.gs2_header.as_bytes());
        (ScramServer { user: first.user, credential, nonce, binding, messages }, answer.into())
    }

    /// Checks the client's last message; the answer proves to the client that the server knows it.
    ///
    /// # Errors
    /// Whatever is wrong; the client must not learn what.
    pub(crate) fn finish(self, message: &[u8]) -> Result<Bytes, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        if attribute(attributes.next(), 'c')? != self.binding {
            return Err(ScramError::ChannelBinding);
        }
        // Up to 2.10 librdkafka puts its own nonce before it once more; Kafka, too, looks at the end only.
        if !attribute(attributes.next(), 'r')?.ends_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let ScramCredential { mechanism, stored_key, server_key, .. } = &self.credential;
        let proof = base64::decode(proof).filter(|proof| proof.len() == mechanism.size());
        let proof = proof.ok_or(ScramError::Malformed)?;
        let messages = format!("{},{without_proof}", self.messages);
        let client_key = xor(&proof, &mechanism.mac(stored_key, messages.as_bytes()));
        if !same(&mechanism.hash(&client_key), stored_key) {
            return Err(ScramError::Proof);
        }
        let signature = mechanism.mac(server_key, messages.as_bytes());
        Ok(format!("v={}", base64::encode(&signature)).into())
    }
}
