//! The server's side of the handshake: who comes in, and who does not and why.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::dial::{BoxRead, BoxWrite, Dialled};
use super::error::{Refusal, RefusalCode};
use super::hello::{self, HandshakeError, Hello, Welcome};
use super::identity::{Identity, Lane, Peer, meant_node, same_cluster};
use super::limits::PROTOCOL_MAX;
use super::server::Server;
use super::socket;

/// Longest wait for the end of a connection that was refused, so that the refusal is not lost with it.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Most bytes that such a connection is listened to.
const LINGER_BYTES: u64 = 1 << 20;

/// Makes a link of a connection; `None` when it was refused or came to nothing, which was told.
pub(super) async fn greet(server: &Arc<Server>, stream: TcpStream, address: SocketAddr) -> Option<Dialled> {
    let result = match socket::prepare(&stream) {
        Ok(()) => connect(server, stream, address).await,
        Err(error) => Err(error.into()),
    };
    result.map_err(|error| tell(server, address, &error)).ok()
}

async fn connect(server: &Arc<Server>, stream: TcpStream, address: SocketAddr) -> Result<Dialled, HandshakeError> {
    let patience = server.options.handshake_timeout;
    let (mut reader, mut writer): (BoxRead, BoxWrite) = match &server.tls {
        Some(tls) => {
            let accepting = TlsAcceptor::from(tls.load_full()).accept(stream).into_fallible();
            match timeout(patience, accepting).await.map_err(|_| HandshakeError::Timeout)? {
                Ok(stream) => {
                    let (reader, writer) = tokio::io::split(stream);
                    (Box::new(reader), Box::new(writer))
                }
                Err((error, mut stream)) => {
                    let (mut reader, mut writer) = stream.split();
                    linger(&mut reader, &mut writer).await;
                    return Err(HandshakeError::Io(io::Error::new(error.kind(), format!("TLS: {error}"))));
                }
            }
        }
        None => {
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        }
    };
    let greeting = exchange(server, address, &mut reader, &mut writer);
    let greeted = timeout(patience, greeting).await.unwrap_or(Err(HandshakeError::Timeout));
    if matches!(greeted, Err(HandshakeError::Refused(_))) {
        linger(&mut reader, &mut writer).await;
    }
    Ok(Dialled { peer: greeted?, reader, writer })
}

async fn exchange(
    server: &Arc<Server>,
    address: SocketAddr,
    reader: &mut BoxRead,
    writer: &mut BoxWrite,
) -> Result<Peer, HandshakeError> {
    let hello = Hello::decode(hello::read(reader).await?)?;
    let ours = server.local.identity();
    let judged = judge(server, &ours, &hello);
    let (protocol, refusal) = match &judged {
        Ok((protocol, _)) => (*protocol, None),
        Err(refusal) => (PROTOCOL_MAX, Some(refusal.clone())),
    };
    let identity = Identity::clone(&ours);
    let welcome = Welcome { refusal, protocol, identity, kinds: server.local.kinds.clone() };
    hello::write(writer, &welcome.encode()).await?;
    let (_, lane) = judged.map_err(HandshakeError::Refused)?;
    Ok(Peer { identity: hello.identity, kinds: hello.kinds, lane, address })
}

fn judge(server: &Server, ours: &Identity, hello: &Hello) -> Result<(u16, Lane), Refusal> {
    let protocol = hello.protocol()?;
    same_cluster(ours, &hello.identity)?;
    meant_node(hello.meant, ours.node)?;
    let lane = Lane::from_wire(hello.lane).ok_or_else(|| {
        let text = format!("node {} asks for a lane that node {} does not have", hello.identity.node, ours.node);
        Refusal::new(RefusalCode::Protocol, text)
    })?;
    server.admission.admit(&hello.identity)?;
    Ok((protocol, lane))
}

/// Lets the other side read what was written before the connection is reset.
async fn linger(reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin)) {
    let end = async {
        let _ = writer.shutdown().await;
        let _ = tokio::io::copy(&mut reader.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    };
    let _ = timeout(LINGER, end).await;
}

fn tell(server: &Server, address: SocketAddr, error: &HandshakeError) {
    let counters = &server.local.counters;
    let (counter, what) = match error {
        HandshakeError::Refused(_) => (&counters.refused, "refused a link"),
        _ => (&counters.failed_handshakes, "a connection did not become a link"),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    // Without the port, which is another one at each attempt.
    let from = address.ip();
    if let Some(suppressed) = server.local.reports.admit(&format!("{from} {}", error.kind())) {
        warn!(%from, suppressed, "{what}: {error}");
    }
}
