//! MQTT over QUIC with a plain quinn client: control and data streams, address change, and what misuse gets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forebay_tests::kafka;
use forebay_tests::mqtt::packet;
use forebay_tests::process::Node;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Accepts the self-signed certificate that a node without configuration makes.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn endpoint(alpn: &[u8]) -> Result<quinn::Endpoint> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    Ok(endpoint)
}

/// A bidirectional stream read packet by packet.
struct Stream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Stream {
    async fn open(connection: &quinn::Connection) -> Result<Stream> {
        let (send, receive) = connection.open_bi().await?;
        Ok(Stream { send, receive })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.send.write_all(bytes).await?)
    }

    /// The next packet, whose remaining length is one byte in all that these tests receive.
    async fn packet(&mut self) -> Result<(u8, Vec<u8>)> {
        let read = async {
            let mut head = [0u8; 2];
            self.receive.read_exact(&mut head).await?;
            ensure!(head[1] < 128, "a long packet");
            let mut body = vec![0u8; usize::from(head[1])];
            self.receive.read_exact(&mut body).await?;
            Ok((head[0], body))
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.context("no packet within 20 s")?
    }

    async fn connect(&mut self, client_id: &str) -> Result<()> {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, client_id.len() as u8];
        body.extend(client_id.as_bytes());
        self.send(&packet(0x10, &body)).await?;
        let (first, body) = self.packet().await?;
        ensure!(first == 0x20 && body == [0, 0], "CONNACK {first:#x} {body:?}");
        Ok(())
    }

    async fn publish(&mut self, id: u16, payload: &str) -> Result<()> {
        let mut body = vec![0, 7];
        body.extend(b"plant/q");
        body.extend(id.to_be_bytes());
        body.extend(payload.as_bytes());
        self.send(&packet(0x32, &body)).await
    }

    async fn acked(&mut self, id: u16) -> Result<()> {
        let (first, body) = self.packet().await?;
        ensure!(first == 0x40 && body[..2] == id.to_be_bytes(), "expected PUBACK {id}, got {first:#x} {body:?}");
        Ok(())
    }
}

async fn dial(node: &Node) -> Result<(quinn::Endpoint, quinn::Connection)> {
    let endpoint = endpoint(b"mqtt")?;
    let connection = endpoint.connect(node.address("quic"), "localhost")?.await?;
    Ok((endpoint, connection))
}

fn log(node: &Node) -> Result<Vec<String>> {
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let mut values = Vec::new();
    for partition in 0..client.topics()?["mqtt"] {
        for record in client.read_all("mqtt", partition as i32)? {
            values.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
        }
    }
    Ok(values)
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_on_control_and_data_streams_are_acked_where_they_came() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (_endpoint, connection) = dial(&node).await?;
    let mut control = Stream::open(&connection).await?;
    control.connect("q1").await?;
    let mut first = Stream::open(&connection).await?;
    let mut second = Stream::open(&connection).await?;
    // The same packet id on three streams: in flight is keyed by stream and id.
    for (name, stream) in [("control", &mut control), ("first", &mut first), ("second", &mut second)] {
        stream.publish(9, name).await?;
    }
    for stream in [&mut control, &mut first, &mut second] {
        stream.acked(9).await?;
    }
    let mut values = log(&node)?;
    values.sort();
    assert_eq!(values, ["control", "first", "second"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_keeps_its_connection_when_its_address_changes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (endpoint, connection) = dial(&node).await?;
    let mut control = Stream::open(&connection).await?;
    control.connect("roaming").await?;
    for id in 1..=200u16 {
        control.publish(id, &id.to_string()).await?;
        if id % 50 == 0 {
            // A new UDP socket: to the gateway the meter comes from another port now.
            endpoint.rebind(UdpSocket::bind("127.0.0.1:0")?)?;
        }
    }
    for id in 1..=200u16 {
        control.acked(id).await?;
    }
    let values = log(&node)?;
    assert_eq!(values, (1..=200).map(|id| id.to_string()).collect::<Vec<_>>(), "once each, in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn misuse_closes_that_connection_only() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (_keep, bystander) = dial(&node).await?;
    let mut control = Stream::open(&bystander).await?;
    control.connect("bystander").await?;

    ensure!(endpoint(b"h3")?.connect(node.address("quic"), "localhost")?.await.is_err(), "ALPN must be mqtt");

    let (_endpoint, connection) = dial(&node).await?;
    let mut stream = Stream::open(&connection).await?;
    stream.send(b"GET / HTTP/1.1\r\n\r\n").await?;
    tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.context("malformed bytes")?;

    let (_endpoint, connection) = dial(&node).await?;
    let mut stream = Stream::open(&connection).await?;
    stream.connect("control").await?;
    let mut data = Stream::open(&connection).await?;
    data.send(&packet(0xc0, &[])).await?;
    let wrong = async {
        tokio::select! {
            closed = connection.closed() => drop(closed),
            ended = data.packet() => assert!(ended.is_err(), "PINGREQ has no place on a data stream"),
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wrong).await.context("PINGREQ on a data stream")?;

    let (_endpoint, connection) = dial(&node).await?;
    let mut stream = Stream::open(&connection).await?;
    stream.connect("gone").await?;
    stream.send.finish()?;
    let closed = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.context("control lost")?;
    match closed {
        quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(u64::from(close.error_code), 1),
        other => anyhow::bail!("losing control: {other}"),
    }

    control.publish(1, "still here").await?;
    control.acked(1).await
}
