//! What carries a client's bytes: TCP, TLS or QUIC, and which server certificates to trust.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ClientError;

/// QUIC keep-alive of the client, well under the idle timeout of either side.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);
const QUIC_IDLE_TIMEOUT_MS: u32 = 45_000;

/// Where a client connects and over what.
#[derive(Debug, Clone)]
pub enum Transport {
    /// `address`: host and port
    Tcp { address: String },
    /// `server_name`: the name in the server's certificate
    Tls { address: String, server_name: String, config: Arc<ClientConfig> },
    /// The first stream carries control and, with `messages_per_stream`, data streams carry that many publishes each. One
    /// endpoint (a UDP socket) serves any number of clients.
    Quic { endpoint: quinn::Endpoint, address: SocketAddr, server_name: String, messages_per_stream: Option<u32> },
}

/// Which server certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any, self-signed ones included: no protection against someone in between.
    Anything,
    /// Those signed by an authority of this PEM file (or listed there themselves).
    CaFile(PathBuf),
}

impl Trust {
    /// The TLS settings of a client that trusts so.
    pub fn tls(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        Ok(match self {
            Trust::Anything => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnything(provider)))
                .with_no_client_auth(),
            Trust::CaFile(path) => builder.with_root_certificates(authorities(path)?).with_no_client_auth(),
        })
    }

    /// A QUIC endpoint on a free UDP port for clients that trust so. Needs a tokio runtime.
    pub fn quic(&self) -> anyhow::Result<quinn::Endpoint> {
        let mut tls = self.tls()?;
        tls.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(0u32.into())
            .keep_alive_interval(Some(QUIC_KEEP_ALIVE))
            .max_idle_timeout(Some(quinn::VarInt::from_u32(QUIC_IDLE_TIMEOUT_MS).into()));
        config.transport_config(Arc::new(transport));
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
        endpoint.set_default_client_config(config);
        Ok(endpoint)
    }
}

fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    anyhow::ensure!(!roots.is_empty(), "no certificate in {}", path.display());
    Ok(roots)
}

/// The reading and writing half of one stream.
pub(super) type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// A connected transport: its first stream, and the connection that can open more.
pub(super) struct Connected {
    pub(super) control: Halves,
    pub(super) quic: Option<quinn::Connection>,
}

impl Transport {
    pub(super) async fn connect(&self) -> Result<Connected, ClientError> {
        match self {
            Transport::Tcp { address } => {
                let (reader, writer) = tcp(address).await?.into_split();
                Ok(Connected { control: (Box::new(reader), Box::new(writer)), quic: None })
            }
            Transport::Tls { address, server_name, config } => {
                let name = ServerName::try_from(server_name.clone())
                    .map_err(|_| ClientError::Transport(format!("{server_name:?} is no server name")))?;
                let stream = TlsConnector::from(config.clone()).connect(name, tcp(address).await?).await?;
                let (reader, writer) = tokio::io::split(stream);
                Ok(Connected { control: (Box::new(reader), Box::new(writer)), quic: None })
            }
            Transport::Quic { endpoint, address, server_name, .. } => {
                let connection = endpoint.connect(*address, server_name).map_err(ClientError::transport)?;
                let connection = connection.await.map_err(ClientError::transport)?;
                let control = open_stream(&connection).await?;
                Ok(Connected { control, quic: Some(connection) })
            }
        }
    }
}

/// Opens one more stream; waits while the server allows no more.
pub(super) async fn open_stream(connection: &quinn::Connection) -> Result<Halves, ClientError> {
    let (writer, reader) = connection.open_bi().await.map_err(ClientError::transport)?;
    Ok((Box::new(reader), Box::new(writer)))
}

async fn tcp(address: &str) -> Result<TcpStream, ClientError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Accepts every certificate but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
