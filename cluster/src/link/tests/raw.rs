//! The protocol by hand, for peers that misbehave.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::frame::{FrameType, Header};
use super::super::hello::{self, Hello, Welcome};
use super::super::limits::FRAME_HEADER_BYTES;
use super::*;

pub(super) fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        identity: identity(CLIENT),
        meant: SERVER,
        lane: Lane::Control as u8,
        kinds: kinds(),
    }
}

pub(super) async fn connect(address: SocketAddr, hello: &[u8]) -> (TcpStream, Welcome) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(hello).await.unwrap();
    let welcome = Welcome::decode(timeout(LONG, hello::read(&mut stream)).await.unwrap().unwrap()).unwrap();
    (stream, welcome)
}

/// Takes one connection and greets it, as a server that then does what the test does.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    hello::read(&mut stream).await.unwrap();
    let welcome = Welcome { refusal: None, protocol: 1, identity: identity(SERVER), kinds: kinds() };
    stream.write_all(&welcome.encode()).await.unwrap();
    stream
}

pub(super) fn frame(frame: FrameType, kind: u16, correlation: u64, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    Header { frame, kind, version: 0, correlation }.write(body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

pub(super) async fn read_frame(stream: &mut TcpStream) -> Option<(Header, Bytes)> {
    let mut header = [0; FRAME_HEADER_BYTES];
    timeout(LONG, stream.read_exact(&mut header)).await.unwrap().ok()?;
    let (header, length) = Header::read(&header, usize::MAX).unwrap();
    let mut body = BytesMut::zeroed(length);
    stream.read_exact(&mut body).await.ok()?;
    Some((header, body.freeze()))
}

/// Whether the other side ends the connection, in however many bytes.
pub(super) async fn is_closed(mut stream: TcpStream, within: Duration) -> bool {
    let end = async {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    timeout(within, end).await.is_ok()
}
