//! Bytes that no node of ours would send: nothing panics, and the next one is served.

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::frame::{ErrorBody, ErrorClass, FrameType, Header};
use super::super::hello::{Hello, Welcome};
use super::super::limits::FRAME_HEADER_BYTES;
use super::raw;
use super::*;

fn any_identity() -> impl Strategy<Value = Identity> {
    (".{0,20}", any::<i32>(), any::<u64>(), any::<u128>()).prop_map(|(cluster_id, node, incarnation, id)| Identity {
        cluster_id,
        node,
        incarnation,
        directory: Uuid::from_u128(id),
    })
}

fn any_kinds() -> impl Strategy<Value = Kinds> {
    vec(any::<(u16, u16, u16)>(), 0..20).prop_map(Kinds::new)
}

fn any_hello() -> impl Strategy<Value = Hello> {
    (any::<(u16, u16, i32, u8)>(), any_identity(), any_kinds()).prop_map(
        |((min, max, meant, lane), identity, kinds)| Hello {
            protocol_min: min,
            protocol_max: max,
            identity,
            meant,
            lane,
            kinds,
        },
    )
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    (any::<u16>(), ".{0,40}").prop_map(|(code, text)| Refusal::new(RefusalCode::from_wire(code), text))
}

/// What stands behind magic and length.
fn unwrapped(message: &Bytes) -> Bytes {
    message.slice(8..)
}

fn mutate(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: prop::sample::Index) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes.truncate(cut.index(bytes.len() + 1));
    bytes
}

proptest! {
    #[test]
    fn handshakes_are_read_as_they_were_written(
        hello in any_hello(),
        (refusal, protocol) in (prop::option::of(any_refusal()), any::<u16>()),
        (identity, kinds) in (any_identity(), any_kinds()),
    ) {
        prop_assert_eq!(Hello::decode(unwrapped(&hello.encode())), Ok(hello));
        let welcome = Welcome { refusal, protocol, identity, kinds };
        prop_assert_eq!(Welcome::decode(unwrapped(&welcome.encode())), Ok(welcome));
    }

    #[test]
    fn headers_and_errors_are_read_as_they_were_written(
        (kind, version, correlation, length) in (any::<u16>(), any::<u16>(), any::<u64>(), lengths()),
        (frame, class) in (0_usize..7, 0_usize..4),
        (code, text) in (any::<u16>(), ".{0,40}"),
    ) {
        use FrameType::{Error, Goodbye, OneWay, Ping, Pong, Request, Response};
        let frame = [Request, OneWay, Response, Error, Ping, Pong, Goodbye][frame];
        let header = Header { frame, kind, version, correlation };
        let mut bytes = bytes::BytesMut::new();
        header.write(length, &mut bytes);
        let read = Header::read(bytes.first_chunk().unwrap(), limits::MAX_FRAME_BYTES);
        let most = match frame {
            Ping | Pong => 0,
            Goodbye => limits::MAX_GOODBYE_BYTES,
            _ => limits::MAX_FRAME_BYTES + 4 - FRAME_HEADER_BYTES,
        };
        match length <= most {
            true => prop_assert_eq!(read, Ok((header, length))),
            false => prop_assert!(read.is_err()),
        }
        let class = [ErrorClass::Service, ErrorClass::Unsupported, ErrorClass::NotBegun, ErrorClass::Failed][class];
        let error = ErrorBody::new(class, code, text);
        prop_assert_eq!(ErrorBody::decode(error.encode()), Ok(error));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in vec(any::<u8>(), 0..300),
        hello in any_hello(),
        changes in vec(any::<(prop::sample::Index, u8)>(), 0..6),
        cut in any::<prop::sample::Index>(),
        header in any::<[u8; FRAME_HEADER_BYTES]>(),
    ) {
        let mutated = mutate(unwrapped(&hello.encode()).to_vec(), &changes, cut);
        for bytes in [bytes, mutated] {
            let bytes = Bytes::from(bytes);
            let _ = (Hello::decode(bytes.clone()), Welcome::decode(bytes.clone()), ErrorBody::decode(bytes));
        }
        let _ = Header::read(&header, limits::MAX_FRAME_BYTES);
    }
}

/// Of bodies: none, small, and any.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 0_usize..4096, 0_usize..1 << 27]
}

/// What a connection may begin with: anything, a damaged handshake, or a good one and then damaged frames.
fn any_connection() -> impl Strategy<Value = Vec<u8>> {
    let garbage = vec(any::<u8>(), 0..2000);
    let changes = || (vec(any::<(prop::sample::Index, u8)>(), 1..4), any::<prop::sample::Index>());
    let damaged = changes().prop_map(|(changes, cut)| mutate(raw::hello().encode().to_vec(), &changes, cut));
    let frames = (vec((1_usize..8, any::<u16>(), vec(any::<u8>(), 0..200)), 1..10), changes(), any::<bool>());
    let frames = frames.prop_map(|(frames, (changes, cut), damage)| {
        let mut bytes = Vec::new();
        for (n, (frame, kind, body)) in frames.into_iter().enumerate() {
            use FrameType::{Error, Goodbye, OneWay, Ping, Pong, Request, Response};
            let frame = [Request, OneWay, Response, Error, Ping, Pong, Goodbye][frame - 1];
            bytes.extend_from_slice(&raw::frame(frame, kind % 8, n as u64, &body));
        }
        if damage {
            bytes = mutate(bytes, &changes, cut);
        }
        bytes
    });
    let frames = frames.prop_map(|frames| [raw::hello().encode().to_vec(), frames].concat());
    prop_oneof![garbage, damaged, frames]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_server_survives_whatever_connects() {
    let runtime = runtime();
    let options = Options { handshake_timeout: Duration::from_millis(200), ..quick() };
    let server = runtime.block_on(Running::start(options));
    let connections = server.local.counters.peer(CLIENT);
    proptest!(ProptestConfig::with_cases(200), |(bytes in any_connection())| {
        runtime.block_on(async {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            assert!(raw::is_closed(stream, LONG).await, "still open");
        });
    });
    runtime.block_on(async {
        assert_eq!(echo(&links_to(server.address, quick()), Lane::Control, "fine").await.unwrap(), "fine");
        eventually("connections closed", || connections.connections.load(Ordering::Relaxed) == 0).await;
    });
    assert!(server.local.counters.failed_handshakes.load(Ordering::Relaxed) > 20);
}

#[test]
fn a_client_survives_whatever_answers() {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    proptest!(ProptestConfig::with_cases(60), |(bytes in vec(any::<u8>(), 1..400), greeted in any::<bool>())| {
        runtime.block_on(async {
            let links = links_to(listener.local_addr().unwrap(), quick());
            let garbage = async {
                let mut stream = match greeted {
                    true => raw::accept(&listener).await,
                    false => listener.accept().await.unwrap().0,
                };
                let _ = stream.write_all(&bytes).await;
            };
            let wait = Duration::from_millis(20);
            let request = links.request(SERVER, Lane::Control, ECHO, 0, Body::default(), wait);
            let (answer, ()) = tokio::join!(request, garbage);
            assert!(answer.is_err());
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_too_long_closes_the_link_before_it_is_read() {
    let server = Running::start(Options { max_frame: 1000, ..quick() }).await;
    let (mut stream, _) = raw::connect(server.address, &raw::hello().encode()).await;
    stream.write_all(&raw::frame(FrameType::Request, ECHO, 1, &[0; 1001])).await.unwrap();
    assert!(raw::is_closed(stream, LONG).await);
    assert_eq!(server.local.counters.peer(CLIENT).requests_in.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_small_closes_the_link_when_it_is_not() {
    let server = Running::start(quick()).await;
    let large = vec![0; limits::MAX_CONTROL_FRAME_BYTES];
    let frames = [(FrameType::Request, &large[..]), (FrameType::Ping, &[0]), (FrameType::Goodbye, &large[..3000])];
    for (frame, body) in frames {
        let (mut stream, _) = raw::connect(server.address, &raw::hello().encode()).await;
        // It may be closed before all is written.
        let _ = stream.write_all(&raw::frame(frame, ECHO, 1, body)).await;
        assert!(raw::is_closed(stream, LONG).await, "{frame:?}");
    }
    assert_eq!(server.local.counters.peer(CLIENT).requests_in.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_is_closed() {
    let server = Running::start(Options { handshake_timeout: Duration::from_millis(100), ..quick() }).await;
    for begun in [0, 3, 7, 20] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&raw::hello().encode()[..begun]).await.unwrap();
        assert!(raw::is_closed(stream, LONG).await, "after {begun} bytes");
    }
    assert_eq!(server.local.counters.failed_handshakes.load(Ordering::Relaxed), 4);
}
