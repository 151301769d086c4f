//! Makes a link to another node: TCP, TLS, hello.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::{Refusal, RefusalCode};
use super::frame::{ErrorBody, ErrorClass, FrameType, Header};
use super::hello::{self, HandshakeError, Hello, Welcome};
use super::identity::{Admission, Identity, Lane, Local, NodeId, Peer, meant_node, same_cluster};
use super::limits::{Options, PROTOCOL_MAX, PROTOCOL_MIN};
use super::socket;

pub(super) type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// What links are made with.
pub(super) struct Dialler {
    pub(super) local: Arc<Local>,
    pub(super) tls: Option<Arc<ArcSwap<rustls::ClientConfig>>>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) options: Options,
}

/// A connection whose handshake is done.
pub(super) struct Dialled {
    pub(super) reader: BoxRead,
    pub(super) writer: BoxWrite,
    pub(super) peer: Peer,
}

/// Why there is no link.
#[derive(Debug)]
pub(super) struct DialError {
    /// Nobody listens there.
    pub(super) nobody: bool,
    /// One of the two nodes does not want it.
    pub(super) refusal: Option<RefusalCode>,
    pub(super) why: String,
}

impl DialError {
    fn new(why: impl Into<String>) -> DialError {
        DialError { nobody: false, refusal: None, why: why.into() }
    }
}

impl From<HandshakeError> for DialError {
    fn from(error: HandshakeError) -> DialError {
        match error {
            HandshakeError::Refused(refusal) => {
                DialError { refusal: Some(refusal.code), ..DialError::new(refusal.text) }
            }
            HandshakeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                DialError::new("the other side closed the connection during the handshake; its log tells why")
            }
            HandshakeError::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                DialError::new(format!("TLS: {error}"))
            }
            error => DialError::new(format!("handshake: {error}")),
        }
    }
}

impl Dialler {
    /// Connects to `address`, where `node` should be.
    pub(super) async fn dial(&self, node: NodeId, lane: Lane, address: &str) -> Result<Dialled, DialError> {
        let stream = match timeout(self.options.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let nobody = error.kind() == io::ErrorKind::ConnectionRefused;
                return Err(DialError { nobody, ..DialError::new(error.to_string()) });
            }
            Err(_) => return Err(DialError::new("no connection in time")),
        };
        let io = |error: io::Error| DialError::from(HandshakeError::Io(error));
        socket::prepare(&stream).map_err(io)?;
        let remote = stream.peer_addr().map_err(io)?;
        let (mut reader, mut writer): (BoxRead, BoxWrite) = match &self.tls {
            Some(tls) => {
                let connector = TlsConnector::from(tls.load_full());
                let connected = timeout(self.options.handshake_timeout, connector.connect(host(address)?, stream));
                let (reader, writer) =
                    tokio::io::split(connected.await.map_err(|_| HandshakeError::Timeout)?.map_err(io)?);
                (Box::new(reader), Box::new(writer))
            }
            None => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
        };
        let greeting = self.greet(node, lane, remote, &mut reader, &mut writer);
        let greeted = timeout(self.options.handshake_timeout, greeting).await.unwrap_or(Err(HandshakeError::Timeout));
        if matches!(greeted, Err(HandshakeError::Refused(_))) {
            self.local.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Dialled { peer: greeted?, reader, writer })
    }

    async fn greet(
        &self,
        node: NodeId,
        lane: Lane,
        address: SocketAddr,
        reader: &mut BoxRead,
        writer: &mut BoxWrite,
    ) -> Result<Peer, HandshakeError> {
        let ours = self.local.identity();
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            identity: Identity::clone(&ours),
            meant: node,
            lane: lane.to_wire(),
            kinds: self.local.kinds.clone(),
        };
        hello::write(writer, &hello.encode()).await?;
        let welcome = Welcome::decode(hello::read(reader).await?)?;
        if let Some(refusal) = welcome.refusal {
            return Err(HandshakeError::Refused(refusal));
        }
        let judged = judge(&ours, node, &welcome).and_then(|()| self.admission.admit(&welcome.identity));
        if let Err(refusal) = judged {
            tell(writer, &refusal).await?;
            return Err(HandshakeError::Refused(refusal));
        }
        Ok(Peer { identity: welcome.identity, kinds: welcome.kinds, lane, address })
    }
}

fn judge(ours: &Identity, meant: NodeId, welcome: &Welcome) -> Result<(), Refusal> {
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
        let text = format!("node {} chose protocol {}, which was not offered", welcome.identity.node, welcome.protocol);
        return Err(Refusal::new(RefusalCode::Protocol, text));
    }
    same_cluster(ours, &welcome.identity)?;
    meant_node(meant, welcome.identity.node)
}

/// Tells the server, which has accepted, that it is not wanted.
async fn tell(writer: &mut BoxWrite, refusal: &Refusal) -> Result<(), HandshakeError> {
    let body = ErrorBody::new(ErrorClass::NotBegun, refusal.code.to_wire(), refusal.text.clone()).encode();
    let mut frame = BytesMut::new();
    Header::bare(FrameType::Goodbye, 0).write(body.len(), &mut frame);
    frame.extend_from_slice(&body);
    hello::write(writer, &frame).await?;
    Ok(writer.shutdown().await?)
}

/// The name that the server's certificate must have.
fn host(address: &str) -> Result<ServerName<'static>, DialError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| DialError::new(format!("no certificate can be for {host:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_the_host_of_the_address() {
        for (address, name) in [("b.example:9094", "b.example"), ("10.0.0.2:1", "10.0.0.2"), ("[::1]:9094", "::1")] {
            assert_eq!(host(address).unwrap().to_str(), name);
        }
        assert!(host("no name:1").is_err());
    }
}
