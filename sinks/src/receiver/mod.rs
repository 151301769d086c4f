//! The receivers at the edge of the program that speak HTTP, and the pauses between their attempts.

mod alertmanager;
mod backoff;
mod webhook;

pub use alertmanager::Alertmanager;
pub use backoff::Backoff;
pub use webhook::{Webhook, signature};

/// Why a delivery did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Down, slow, failing, or kept by something in front of it: worth another attempt, after the pause it asked for if it did.
    #[error("{what}")]
    Unavailable { what: String, retry_after: Option<std::time::Duration> },
    /// It answered that it does not want this one.
    #[error("{what}")]
    Refused { what: String },
}

/// What an HTTP answer means: 2xx is done; 400, 413 and 422 are about this transition, which is refused. All else may pass,
/// once whoever looks after proxies, tokens and addresses has seen to it.
fn judge(response: &reqwest::Response) -> Result<(), DeliveryError> {
    let status = response.status().as_u16();
    match status {
        200..=299 => Ok(()),
        400 | 413 | 422 => Err(DeliveryError::Refused { what: format!("refused with status {status}") }),
        _ => {
            let header = response.headers().get(reqwest::header::RETRY_AFTER);
            let seconds = header.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse::<u64>().ok());
            Err(DeliveryError::Unavailable {
                what: format!("answered with status {status}"),
                retry_after: seconds.map(std::time::Duration::from_secs),
            })
        }
    }
}

fn unreachable(error: &reqwest::Error) -> DeliveryError {
    // The chain ends in the reason, such as "Connection refused".
    let mut what = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(next) = cause {
        what = next.to_string();
        cause = next.source();
    }
    if error.is_timeout() {
        what = "no answer in time".into();
    }
    DeliveryError::Unavailable { what, retry_after: None }
}

/// A client for one receiver. Redirects are not followed: a POST would become a GET.
fn client(timeout_ms: i64) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(std::time::Duration::from_millis(timeout_ms.unsigned_abs()))
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .build()
}
