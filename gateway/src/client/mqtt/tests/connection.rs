//! Connections over TCP and TLS.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::TestServer;
use crate::client::mqtt::{Client, ClientError, ConnectOptions, Event, Transport, Trust};
use crate::mqtt::packet::{Qos, Version};

async fn tcp_server() -> (TestServer, Transport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = TestServer::default();
    let serving = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = serving.clone();
            tokio::spawn(async move {
                let (reader, writer) = stream.into_split();
                serving.control(reader, writer, |_| ()).await;
            });
        }
    });
    (server, Transport::Tcp { address })
}

#[tokio::test]
async fn publishes_of_every_qos_are_acknowledged_with_their_tags() {
    let (server, transport) = tcp_server().await;
    for version in [Version::V4, Version::V5] {
        let mut options = ConnectOptions::new("meter");
        options.version = version;
        let mut client = Client::connect(&transport, &options).await.unwrap();
        client.publish("t", Bytes::from_static(b"0"), Qos::AtMostOnce, 1).await.unwrap();
        client.publish("t", Bytes::from_static(b"1"), Qos::AtLeastOnce, 2).await.unwrap();
        client.publish("t", Bytes::from_static(b"2"), Qos::ExactlyOnce, 3).await.unwrap();
        assert_eq!(client.unacked(), 2);
        assert_eq!(client.next().await.unwrap(), Event::Acked { tag: 2, reason: 0 });
        assert_eq!(client.next().await.unwrap(), Event::Acked { tag: 3, reason: 0 });
        client.disconnect().await.unwrap();
    }
    assert_eq!(server.payloads(), ["0", "1", "2", "0", "1", "2"]);
}

#[tokio::test]
async fn the_window_is_no_larger_than_the_server_allows() {
    let (server, transport) = tcp_server().await;
    let mut client = Client::connect(&transport, &ConnectOptions::new("meter")).await.unwrap();
    let mut acked = Vec::new();
    for tag in 0..100u64 {
        while !client.can_publish() {
            assert_eq!(client.unacked(), 8, "the server's Receive Maximum");
            if let Event::Acked { tag, .. } = client.next().await.unwrap() {
                acked.push(tag);
            }
        }
        client.publish("t", Bytes::from(tag.to_string()), Qos::AtLeastOnce, tag).await.unwrap();
    }
    while client.can_publish() {
        client.publish("t", Bytes::new(), Qos::AtLeastOnce, 100).await.unwrap();
    }
    let refused = client.publish("t", Bytes::new(), Qos::AtLeastOnce, 0).await;
    assert!(matches!(refused, Err(ClientError::WindowFull)));
    while client.unacked() > 0 {
        if let Event::Acked { tag, .. } = client.next().await.unwrap() {
            acked.push(tag);
        }
    }
    assert!(acked.iter().take(100).copied().eq(0..100));
    assert!(server.payloads().iter().take(100).cloned().eq((0..100).map(|tag| tag.to_string())));
}

#[tokio::test]
async fn subscriptions_bring_messages_and_pings_are_answered() {
    let (_, transport) = tcp_server().await;
    let mut client = Client::connect(&transport, &ConnectOptions::new("app")).await.unwrap();
    let reasons = client.subscribe(&[("a", Qos::AtMostOnce), ("b", Qos::AtLeastOnce), ("c", Qos::ExactlyOnce)]).await;
    assert_eq!(reasons.unwrap(), [0, 1, 2]);
    client.ping().await.unwrap();
    for topic in ["a", "b", "c"] {
        match client.next().await.unwrap() {
            Event::Message(publish) => assert_eq!(publish.message.topic.as_str(), topic),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.publish_and_wait("x", Bytes::new(), Qos::ExactlyOnce).await.unwrap(), 0);
    assert_eq!(client.unsubscribe(&["a"]).await.unwrap(), [0]);
}

#[tokio::test]
async fn a_refusal_tells_its_reason() {
    let (_, transport) = tcp_server().await;
    let refused = Client::connect(&transport, &ConnectOptions::new("refused")).await;
    assert!(matches!(refused, Err(ClientError::Refused { reason: 0x87, .. })));
    let refused = Client::connect(&transport, &ConnectOptions::new("refused").v4()).await;
    assert!(matches!(refused, Err(ClientError::Refused { reason: 0x87, .. })));
}

#[tokio::test]
async fn what_was_unacknowledged_is_published_again_on_a_new_connection() {
    let (server, transport) = tcp_server().await;
    let options = ConnectOptions::new("meter").persistent(60);
    let mut client = Client::connect(&transport, &options).await.unwrap();
    for tag in 0..3u64 {
        client.publish("t", Bytes::from(tag.to_string()), Qos::AtLeastOnce, tag).await.unwrap();
    }
    // Nothing has left yet: the connection is lost with all three queued.
    let unacked = client.into_unacked();
    let mut client = Client::resume(&transport, &options, unacked).await.unwrap();
    for tag in 0..3u64 {
        assert_eq!(client.next().await.unwrap(), Event::Acked { tag, reason: 0 });
    }
    assert_eq!(server.payloads(), ["0", "1", "2"]);
}

#[tokio::test]
async fn tls_carries_the_same_and_distrusts_unknown_certificates() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, issued.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = TestServer::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let (reader, writer) = tokio::io::split(stream);
                server.control(reader, writer, |_| ()).await;
            }
        }
    });
    let transport = |trust: Trust, name: &str| Transport::Tls {
        address: address.clone(),
        server_name: name.to_owned(),
        config: Arc::new(trust.tls().unwrap()),
    };
    let options = ConnectOptions::new("meter");
    for trust in [Trust::Anything, Trust::CaFile(ca.clone())] {
        let mut client = Client::connect(&transport(trust, "localhost"), &options).await.unwrap();
        assert_eq!(client.publish_and_wait("t", Bytes::from_static(b"x"), Qos::AtLeastOnce).await.unwrap(), 0);
        client.disconnect().await.unwrap();
    }
    assert!(Client::connect(&transport(Trust::CaFile(ca), "elsewhere"), &options).await.is_err());
}
