//! A server for tests: accepts every CONNECT, acknowledges every publish and remembers what it received.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::mqtt::codec::Codec;
use crate::mqtt::packet::*;

const LIMIT: usize = 1 << 20;

#[derive(Clone, Default)]
pub(crate) struct TestServer {
    received: Arc<Mutex<Vec<(u64, String)>>>,
}

impl TestServer {
    /// Stream and payload of every publish, as they arrived.
    pub(crate) fn received(&self) -> Vec<(u64, String)> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.received().into_iter().map(|(_, payload)| payload).collect()
    }

    /// Serves a control stream; `connected` learns the version.
    pub(crate) async fn control(
        &self,
        reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Unpin,
        connected: impl FnOnce(Version),
    ) {
        self.serve(0, Codec::new(LIMIT), reader, writer, Some(connected)).await;
    }

    /// Serves a data stream.
    pub(crate) async fn data(
        &self,
        stream: u64,
        version: Version,
        reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Unpin,
    ) {
        self.serve(stream, Codec::for_data_stream(version, LIMIT), reader, writer, None::<fn(Version)>).await;
    }

    async fn serve(
        &self,
        stream: u64,
        mut codec: Codec,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        mut connected: Option<impl FnOnce(Version)>,
    ) {
        let (mut inbox, mut outbox) = (BytesMut::new(), BytesMut::new());
        loop {
            let packet = match codec.decode(&mut inbox) {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    if writer.write_all_buf(&mut outbox).await.is_err() || writer.flush().await.is_err() {
                        return;
                    }
                    match reader.read_buf(&mut inbox).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => continue,
                    }
                }
                Err(error) => {
                    let reason_string = Some(error.text().to_owned());
                    codec.encode(&Outgoing::Disconnect { reason: error.reason_code(), reason_string }, &mut outbox);
                    let _ = writer.write_all_buf(&mut outbox).await;
                    return;
                }
            };
            match packet {
                Incoming::Connect(connect) => {
                    let refused = connect.client_id.as_str() == "refused";
                    if let Some(connected) = connected.take().filter(|_| !refused) {
                        connected(connect.version);
                    }
                    let reason = if refused { 0x87 } else { 0 };
                    let properties = ConnAckProperties { receive_maximum: Some(8), ..ConnAckProperties::default() };
                    codec.encode(&Outgoing::ConnAck { session_present: false, reason, properties }, &mut outbox);
                }
                Incoming::Publish(publish) => {
                    let payload = String::from_utf8_lossy(&publish.message.payload).into_owned();
                    self.received.lock().unwrap_or_else(PoisonError::into_inner).push((stream, payload));
                    let ack = Ack { packet_id: publish.packet_id, reason: 0 };
                    match publish.message.qos {
                        Qos::AtMostOnce => {}
                        Qos::AtLeastOnce => codec.encode(&Outgoing::PubAck(ack), &mut outbox),
                        Qos::ExactlyOnce => codec.encode(&Outgoing::PubRec(ack), &mut outbox),
                    }
                }
                Incoming::PubRel(ack) => codec.encode(&Outgoing::PubComp(ack), &mut outbox),
                Incoming::Subscribe { packet_id, filters, .. } => {
                    let reasons = filters.iter().map(|filter| filter.qos as u8).collect();
                    codec.encode(&Outgoing::SubAck { packet_id, reasons }, &mut outbox);
                    for (at, filter) in filters.into_iter().enumerate() {
                        let properties = MessageProperties::default();
                        let payload = bytes::Bytes::from_static(b"welcome");
                        let message =
                            Message { topic: filter.filter, payload, qos: filter.qos, retain: false, properties };
                        let packet_id = if message.qos == Qos::AtMostOnce { 0 } else { at as u16 + 1 };
                        let publish = Publish { dup: false, packet_id, topic_alias: None, message };
                        codec.encode(&Outgoing::Publish(publish), &mut outbox);
                    }
                }
                Incoming::Unsubscribe { packet_id, filters } => {
                    codec.encode(&Outgoing::UnsubAck { packet_id, reasons: vec![0; filters.len()] }, &mut outbox);
                }
                Incoming::PingReq => codec.encode(&Outgoing::PingResp, &mut outbox),
                Incoming::PubRec(ack) => codec.encode(&Outgoing::PubRel(ack), &mut outbox),
                Incoming::Disconnect { .. } => return,
                Incoming::PubAck(_) | Incoming::PubComp(_) | Incoming::Auth { .. } => {}
            }
        }
    }
}
