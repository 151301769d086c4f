//! The handshake's two messages. A later protocol may only add to their ends, so that any release can tell any other
//! what it lacks.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::NodeId;
use super::error::{Refusal, RefusalCode, cut};
use super::identity::Identity;
use super::kinds::Kinds;
use super::limits::{MAGIC, MAX_CLUSTER_ID, MAX_HELLO_BYTES, MAX_TEXT, PROTOCOL_MAX, PROTOCOL_MIN};
use crate::codec::{Malformed, Reader, Writer};

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Garbage(String),
    #[error("no end of the handshake in time")]
    Timeout,
    #[error("{0}")]
    Refused(Refusal),
}

impl HandshakeError {
    /// What it is, without what the other side has sent: that could be another text each time.
    pub(super) fn kind(&self) -> String {
        match self {
            HandshakeError::Io(error) => format!("{:?}", error.kind()),
            HandshakeError::Garbage(_) => "garbage".to_owned(),
            HandshakeError::Timeout => "timeout".to_owned(),
            HandshakeError::Refused(refusal) => format!("{:?}", refusal.code),
        }
    }
}

impl From<Malformed> for HandshakeError {
    fn from(error: Malformed) -> Self {
        HandshakeError::Garbage(error.to_string())
    }
}

/// What the client begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol_min: u16,
    pub(super) protocol_max: u16,
    pub(super) identity: Identity,
    /// The node that the client wants to talk to.
    pub(super) meant: NodeId,
    pub(super) lane: u8,
    pub(super) kinds: Kinds,
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) refusal: Option<Refusal>,
    /// The version that is spoken from here on.
    pub(super) protocol: u16,
    pub(super) identity: Identity,
    pub(super) kinds: Kinds,
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u16(self.protocol_min).u16(self.protocol_max);
        write_identity(&self.identity, &mut writer);
        writer.i32(self.meant).u8(self.lane);
        self.kinds.write(&mut writer);
        wrap(writer)
    }

    pub(super) fn decode(message: Bytes) -> Result<Hello, Malformed> {
        let mut reader = Reader::new(message);
        Ok(Hello {
            protocol_min: reader.u16()?,
            protocol_max: reader.u16()?,
            identity: read_identity(&mut reader)?,
            meant: reader.i32()?,
            lane: reader.u8()?,
            kinds: Kinds::read(&mut reader)?,
        })
    }

    /// The newest protocol version that both sides speak.
    pub(super) fn protocol(&self) -> Result<u16, Refusal> {
        let newest = self.protocol_max.min(PROTOCOL_MAX);
        if newest >= self.protocol_min.max(PROTOCOL_MIN) {
            return Ok(newest);
        }
        let text = format!(
            "no protocol version in common: node {} speaks {} to {}, the other one {PROTOCOL_MIN} to {PROTOCOL_MAX}: \
             upgrade the older of the two, one release at a time",
            self.identity.node, self.protocol_min, self.protocol_max
        );
        Err(Refusal::new(RefusalCode::Protocol, text))
    }
}

impl Welcome {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u16(self.protocol);
        writer.option(self.refusal.as_ref(), |writer, refusal| {
            writer.u16(refusal.code.to_wire()).string(cut(&refusal.text));
        });
        write_identity(&self.identity, &mut writer);
        self.kinds.write(&mut writer);
        wrap(writer)
    }

    pub(super) fn decode(message: Bytes) -> Result<Welcome, Malformed> {
        let mut reader = Reader::new(message);
        let protocol = reader.u16()?;
        let refusal =
            reader.option(|r| Ok(Refusal { code: RefusalCode::from_wire(r.u16()?), text: r.string(MAX_TEXT)? }))?;
        Ok(Welcome { refusal, protocol, identity: read_identity(&mut reader)?, kinds: Kinds::read(&mut reader)? })
    }
}

fn write_identity(identity: &Identity, writer: &mut Writer) {
    writer.string(&identity.cluster_id).i32(identity.node).u64(identity.incarnation).uuid(identity.directory);
}

fn read_identity(reader: &mut Reader) -> Result<Identity, Malformed> {
    Ok(Identity {
        cluster_id: reader.string(MAX_CLUSTER_ID)?,
        node: reader.i32()?,
        incarnation: reader.u64()?,
        directory: reader.uuid()?,
    })
}

fn wrap(message: Writer) -> Bytes {
    let message = message.finish();
    let mut wrapped = Writer::with_capacity(message.len() + 8);
    wrapped.array(&MAGIC).bytes(&message);
    wrapped.finish()
}

/// Reads one of the two messages.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, HandshakeError> {
    let mut magic = [0; MAGIC.len()];
    io.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(HandshakeError::Garbage(guess(magic)));
    }
    let length = io.read_u32().await? as usize;
    if length > MAX_HELLO_BYTES {
        return Err(HandshakeError::Garbage(format!("a handshake of {length} bytes")));
    }
    let mut message = BytesMut::zeroed(length);
    io.read_exact(&mut message).await?;
    Ok(message.freeze())
}

pub(super) async fn write(io: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<(), HandshakeError> {
    io.write_all(message).await?;
    Ok(io.flush().await?)
}

fn guess(start: [u8; 4]) -> String {
    match start {
        [0x15 | 0x16, 3, ..] => "TLS, which is off at this end of the link: set it alike on all nodes".to_owned(),
        _ => format!("not a link between nodes: it begins with {:?}", String::from_utf8_lossy(&start)),
    }
}
