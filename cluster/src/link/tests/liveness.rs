//! Whether a peer is there: restarts, deaths, silence, and a server that is only busy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::super::frame::{ErrorBody, ErrorClass, FrameType};
use super::raw;
use super::*;

fn is_refused(state: &PeerState) -> bool {
    matches!(state, PeerState::Down { refused: true, .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_killed_is_seen_as_gone_and_back_when_it_is_back() {
    // A runtime of its own: dropping it closes its sockets without a word, as the system does for a process that was
    // killed.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = process.spawn(Running::start(quick())).await.unwrap();
    let links = links_to(server.address, quick());
    let mut state = links.watch(SERVER).unwrap();
    assert_eq!(wait_for(&mut state, PeerState::is_up).await, PeerState::Up { incarnation: 70 });
    let waiting = links.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let waiting = waiting.submit(GATED, 0, numbered(1, 4), LONG).await.unwrap();
    server.recorder.wait_begun(1).await;

    process.shutdown_background();
    wait_for(&mut state, is_refused).await;
    assert!(matches!(waiting.answer().await, Err(LinkError::Unknown(_))), "it was begun");

    let again = Local::new(Identity { incarnation: 71, ..identity(SERVER) }, kinds());
    let _again = Running::with(again, everybody(), quick(), None, &server.address.to_string()).await;
    assert_eq!(wait_for(&mut state, PeerState::is_up).await, PeerState::Up { incarnation: 71 });
    assert_eq!(echo(&links, Lane::Forward, "again").await.unwrap(), "again");
    links.remove_peer(SERVER);
    assert!(timeout(LONG, state.changed()).await.unwrap().is_err(), "a peer no longer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answers_what_it_has_begun_and_nothing_else() {
    let mut server = Running::start(quick()).await;
    let links = Arc::new(links_to(server.address, quick()));
    let mut state = links.watch(SERVER).unwrap();
    let link = links.link(SERVER, Lane::Control, LONG).await.unwrap();
    let begun = link.submit(GATED, 0, numbered(1, 4), LONG).await.unwrap();
    server.recorder.wait_begun(1).await;
    server.shutdown.cancel();
    timeout(LONG, link.ended()).await.unwrap();
    let late = link.submit(ECHO, 0, Body::default(), LONG).await.map(|_| ());
    assert!(matches!(late, Err(LinkError::NotSent(_))), "{late:?}");
    wait_for(&mut state, is_refused).await;
    let next = tokio::spawn({
        let links = links.clone();
        async move { echo(&links, Lane::Control, "next").await }
    });
    server.recorder.open();
    assert_eq!(begun.answer().await.unwrap(), 1_u32.to_be_bytes().as_slice());
    timeout(LONG, &mut server.task).await.expect("it ends when all is answered").unwrap();
    let local = Local::new(identity(SERVER), kinds());
    let _next = Running::with(local, everybody(), quick(), None, &server.address.to_string()).await;
    assert_eq!(next.await.unwrap().unwrap(), "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_crosses_the_goodbye_is_surely_not_begun() {
    let server = Running::start(quick()).await;
    let (mut stream, _) = raw::connect(server.address, &raw::hello().encode()).await;
    stream.write_all(&raw::frame(FrameType::Request, GATED, 1, b"1234")).await.unwrap();
    server.recorder.wait_begun(1).await;
    server.shutdown.cancel();
    let (header, _) = raw::read_frame(&mut stream).await.unwrap();
    assert_eq!(header.frame, FrameType::Goodbye);
    stream.write_all(&raw::frame(FrameType::Request, ECHO, 2, b"late")).await.unwrap();
    let (header, body) = raw::read_frame(&mut stream).await.unwrap();
    assert_eq!((header.frame, header.correlation), (FrameType::Error, 2));
    assert_eq!(ErrorBody::decode(body).unwrap().class, ErrorClass::NotBegun);
    server.recorder.open();
    let (header, _) = raw::read_frame(&mut stream).await.unwrap();
    assert_eq!((header.frame, header.correlation), (FrameType::Response, 1), "what was begun is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_down_and_not_taken_for_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let links = links_to(listener.local_addr().unwrap(), quick());
    let mut state = links.watch(SERVER).unwrap();
    let _silent = raw::accept(&listener).await;
    wait_for(&mut state, PeerState::is_up).await;
    let lost = echo(&links, Lane::Control, "anybody?").await;
    assert!(matches!(&lost, Err(LinkError::Unknown(why)) if why.contains("nothing heard")), "{lost:?}");
    let down = wait_for(&mut state, |state| !state.is_up()).await;
    assert!(matches!(&down, PeerState::Down { refused: false, why, .. } if why.contains("nothing heard")), "{down:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lets_go_of_a_silent_client() {
    let server = Running::start(quick()).await;
    let (silent, _) = raw::connect(server.address, &raw::hello().encode()).await;
    let counted = server.local.counters.peer(CLIENT);
    eventually("connected", || counted.connections.load(Ordering::Relaxed) == 1).await;
    assert!(raw::is_closed(silent, LONG).await);
    eventually("let go", || counted.connections.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_stays() {
    let options = Options { dead_after: Duration::from_millis(400), ..quick() };
    let server = Running::start(options.clone()).await;
    let links = links_to(server.address, options);
    links.link(SERVER, Lane::Control, LONG).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(echo(&links, Lane::Control, "still").await.unwrap(), "still");
    assert_eq!(links.local().counters.peer(SERVER).connects.load(Ordering::Relaxed), 1);
}

/// Sends `count` gated requests, waits until no more of them are begun, for longer than a silent link would live.
async fn held_back(server: &Running, links: &Links, count: u32, length: usize, begun: usize) {
    let link = links.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..count {
        pending.push(link.submit(GATED, 0, numbered(n, length), LONG).await.unwrap());
    }
    server.recorder.wait_begun(begun).await;
    tokio::time::sleep(quick().dead_after + Duration::from_millis(500)).await;
    assert_eq!(server.recorder.begun().len(), begun, "no more than the limit are handled");
    assert!(!link.is_ended(), "busy is not dead: {}", link.why());
    assert_eq!(echo(links, Lane::Control, "and control").await.unwrap(), "and control");
    server.recorder.open();
    for (n, pending) in pending.into_iter().enumerate() {
        let answer = pending.answer().await.unwrap();
        assert_eq!(answer[..4], (n as u32).to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_more_requests_than_are_handled_is_held_back() {
    let server = Running::start(Options { in_flight: 3, ..quick() }).await;
    held_back(&server, &links_to(server.address, quick()), 100, 4, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_more_bytes_than_are_handled_is_held_back() {
    let server = Running::start(Options { connection_bytes: 100_000, ..quick() }).await;
    held_back(&server, &links_to(server.address, quick()), 60, 40_000, 2).await;
    assert!(server.recorder.busiest.load(Ordering::SeqCst) <= 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_together_are_held_back_by_the_lanes_bytes() {
    let server = Running::start(Options { lane_bytes: 100_000, ..quick() }).await;
    let other = Local::new(identity(3), kinds());
    let (one, two) = (links_to(server.address, quick()), links_of(other, quick(), None, server.address));
    let link = two.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let first = link.submit(GATED, 0, numbered(0, 40_000), LONG).await.unwrap();
    server.recorder.wait_begun(1).await;
    held_back(&server, &one, 3, 40_000, 2).await;
    assert_eq!(first.answer().await.unwrap().len(), 40_000);
    // One that is larger than all there is goes alone.
    held_back(&server, &one, 1, 300_000, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_a_large_body_slowly_is_not_dead() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let links = Arc::new(links_to(listener.local_addr().unwrap(), quick()));
    let _control = raw::accept(&listener).await;
    let large = tokio::spawn({
        let links = links.clone();
        let body = Body::from(Bytes::from(vec![1; 24 << 20]));
        async move { links.request(SERVER, Lane::Data, ECHO, 0, body, LONG).await }
    });
    let mut slow = raw::accept(&listener).await;
    let mut left = (24 << 20) + limits::FRAME_HEADER_BYTES;
    let mut buffer = vec![0; 256 << 10];
    // Pings may come before it.
    while left > 0 {
        let wanted = left.min(buffer.len());
        let read = slow.read(&mut buffer[..wanted]).await.unwrap();
        assert!(read > 0, "the link was given up with {left} bytes left");
        left -= read;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow.write_all(&raw::frame(FrameType::Response, ECHO, 1, b"taken")).await.unwrap();
    assert_eq!(large.await.unwrap().unwrap(), "taken");
}
