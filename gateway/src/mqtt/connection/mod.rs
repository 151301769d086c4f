//! The connection loop that TCP, TLS and QUIC share: bytes in, session machine, appends, acks and deliveries out.

mod appends;
mod driver;
mod effects;
mod feed;
mod input;
mod opening;
mod output;
mod parting;
mod streams;
mod timing;

use std::sync::Arc;

use forebay_log::AppendError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use streams::{SessionHandle, run_data_stream};

use super::Broker;
use super::reason;
use super::registry::Live;
use crate::log_limit::LogLimit;
use driver::End;
use opening::Opening;

/// Log lines a second about peers, for each kind of line.
const LOG_LINES: u32 = 10;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// "tcp", "tls", "ws", "wss" or "quic"
    pub transport: &'static str,
    pub address: String,
}

/// How a connection ended, for a transport that has codes of its own (QUIC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Normal,
    /// Refused because the node has as many connections as it may have.
    Overloaded,
}

/// Runs one connection from CONNECT to its end. `accepted` learns the session once CONNECT is accepted (dropped if it is not).
pub async fn run<R, W>(
    broker: Arc<Broker>,
    peer: Peer,
    mut reader: R,
    mut writer: W,
    shutdown: CancellationToken,
    accepted: Option<oneshot::Sender<SessionHandle>>,
) -> Ended
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    // Boxed, so that a connection at rest does not carry the memory of its opening and parting.
    let opened = Box::pin(opening::open(&broker, &peer, &mut reader, &mut writer, &shutdown, accepted)).await;
    let mut driver = match opened {
        Opening::Accepted(driver) => driver,
        Opening::Refused(ended) => return ended,
    };
    driver.decode();
    let end = driver.run(&mut reader, &mut writer, &shutdown).await;
    log_end(&peer, &driver.live, &end);
    Box::pin(parting::part(driver, end, &mut writer)).await;
    Ended::Normal
}

/// Rate-limited: peers cause it.
fn log_end(peer: &Peer, live: &Live, end: &End) {
    static LIMIT: LogLimit = LogLimit::new(LOG_LINES);
    let client = live.client_id.as_str();
    let (code, what) = match end {
        End::Malformed { reason, what } => (*reason, what.as_str()),
        End::Closing(code) if *code != reason::SUCCESS => (*code, reason::text(*code)),
        End::TakenOver => return debug!(client, address = peer.address, "session taken over"),
        End::Closing(_) | End::Lost | End::Shutdown => {
            return debug!(client, address = peer.address, ?end, "disconnected");
        }
    };
    if let Some(suppressed) = LIMIT.admit() {
        warn!(
            client,
            transport = peer.transport,
            address = peer.address,
            code = format!("0x{code:02x}"),
            suppressed,
            "connection closed: {what}"
        );
    }
}

/// Rate-limited: a full disk refuses every publish.
fn log_refused(live: &Live, error: &AppendError) {
    static LIMIT: LogLimit = LogLimit::new(LOG_LINES);
    if let Some(suppressed) = LIMIT.admit() {
        warn!(client = live.client_id.as_str(), address = live.address, %error, suppressed, "publish not stored");
    }
}
