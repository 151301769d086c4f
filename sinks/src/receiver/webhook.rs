//! A webhook: each transition as one POST of its JSON, with an idempotency key and, if configured, a signature.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{DeliveryError, client, judge, unreachable};
use crate::rules::Secret;
use crate::transition::hex;

/// POSTs to one address.
#[derive(Debug)]
pub struct Webhook {
    client: reqwest::Client,
    url: String,
    secret: Option<Secret>,
}

/// `sha256=` and the HMAC-SHA256 (RFC 2104) of the body in hexadecimal, as WebSub and GitHub sign webhooks.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

impl Webhook {
    /// # Errors
    /// The TLS roots of the system cannot be used.
    pub fn new(url: &str, secret: Option<Secret>, timeout_ms: i64) -> Result<Webhook, reqwest::Error> {
        Ok(Webhook { client: client(timeout_ms)?, url: url.to_owned(), secret })
    }

    /// Posts one transition; done when the receiver answers 2xx.
    ///
    /// # Errors
    /// Whether to try again or to give up.
    pub async fn deliver(&self, id: &str, json: Vec<u8>) -> Result<(), DeliveryError> {
        let signed = match &self.secret {
            None => None,
            Some(Secret::Known(secret)) => Some(signature(secret, &json)),
            Some(Secret::Missing(why)) => {
                return Err(DeliveryError::Unavailable { what: why.clone(), retry_after: None });
            }
        };
        let mut request = self
            .client
            .post(&self.url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", id);
        if let Some(signed) = signed {
            request = request.header("X-Hub-Signature-256", signed);
        }
        let response = request.body(json).send().await.map_err(|error| unreachable(&error))?;
        judge(&response)
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
