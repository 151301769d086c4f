//! Who is let in, who is told why not, and what two releases say to each other.

use tokio::io::AsyncWriteExt;

use super::super::frame::{ErrorBody, ErrorClass, FrameType};
use super::raw;
use super::*;

/// What a client is told that is refused.
async fn refused(links: &Links) -> String {
    let short = Duration::from_millis(500);
    let failed = links.request(SERVER, Lane::Control, ECHO, 0, Body::default(), short).await;
    let Err(LinkError::NotSent(why)) = failed else { panic!("not refused: {failed:?}") };
    why
}

fn refusals(local: &Local) -> u64 {
    local.counters.refused.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_and_told() {
    let server = Running::start(quick()).await;
    let stranger = Local::new(Identity { cluster_id: "elsewhere".to_owned(), ..identity(CLIENT) }, kinds());
    let links = links_of(stranger.clone(), quick(), None, server.address);
    let why = refused(&links).await;
    assert!(why.contains("elsewhere") && why.contains(CLUSTER) && why.contains("check the addresses"), "{why}");
    assert!(refusals(&stranger) > 0 && refusals(&server.local) > 0, "both know");
    let state = links.watch(SERVER).unwrap().borrow().clone();
    assert!(matches!(&state, PeerState::Down { refused: false, why, .. } if why.contains("elsewhere")), "{state:?}");

    stranger.set_cluster_id(CLUSTER);
    assert_eq!(echo(&links, Lane::Control, "now it fits").await.unwrap(), "now it fits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_cluster_is_let_in() {
    let server = Running::start(quick()).await;
    let new = Local::new(Identity { cluster_id: String::new(), ..identity(CLIENT) }, kinds());
    assert_eq!(echo(&links_of(new, quick(), None, server.address), Lane::Data, "new").await.unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_than_was_meant_is_noticed() {
    let server = Running::start(quick()).await;
    let links = Links::new(Local::new(identity(CLIENT), kinds()), None, everybody(), quick());
    links.set_peer(5, &server.address.to_string());
    let failed = links.link(5, Lane::Control, Duration::from_millis(500)).await.map(|_| ());
    let Err(LinkError::NotSent(why)) = failed else { panic!("{failed:?}") };
    assert!(why.contains("node 1's") && why.contains("node 5"), "{why}");
    assert!(refusals(&server.local) > 0);
    // The address is set right.
    let right = Running::with(Local::new(identity(5), kinds()), everybody(), quick(), None, "127.0.0.1:0").await;
    links.set_peer(5, &right.address.to_string());
    assert_eq!(links.link(5, Lane::Control, LONG).await.unwrap().peer().identity.node, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_data_directory_is_refused_by_either_side() {
    let known = |peer: &Identity| match peer.directory == identity(peer.node).directory {
        true => Ok(()),
        false => Err(Refusal::new(RefusalCode::WrongDirectory, "remove the node from the cluster first")),
    };
    let admission: Arc<dyn Admission> = Arc::new(known);
    let exchanged = |node| Local::new(Identity { directory: Uuid::from_u128(99), ..identity(node) }, kinds());
    let local = Local::new(identity(SERVER), kinds());
    let server = Running::with(local, admission.clone(), quick(), None, "127.0.0.1:0").await;
    let why = refused(&links_of(exchanged(CLIENT), quick(), None, server.address)).await;
    assert!(why.contains("remove the node"), "{why}");
    assert_eq!(echo(&links_to(server.address, quick()), Lane::Data, "known").await.unwrap(), "known");

    let other = Running::with(exchanged(SERVER), everybody(), quick(), None, "127.0.0.1:0").await;
    let client = Local::new(identity(CLIENT), kinds());
    let links = Links::new(client.clone(), None, admission, quick());
    links.set_peer(SERVER, &other.address.to_string());
    let why = refused(&links).await;
    assert!(why.contains("remove the node"), "{why}");
    assert!(refusals(&client) > 0);
    let told = "the other side said goodbye: remove the node from the cluster first";
    eventually("the server is told, and tells it once", || {
        other.local.reports.admit(&format!("{CLIENT} 127.0.0.1 {told}")).is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_releases_speak_the_newest_version_that_both_understand() {
    for (theirs, chosen) in [((0, 1), Some(1)), ((2, 9), Some(3)), ((3, 3), Some(3)), ((4, 9), None)] {
        let server = Local::new(identity(SERVER), Kinds::new([(ECHO, theirs.0, theirs.1)]));
        let server = Running::with(server, everybody(), quick(), None, "127.0.0.1:0").await;
        let links = links_to(server.address, quick());
        let encode = |version: u16| Body::from(Bytes::copy_from_slice(&version.to_be_bytes()));
        let answer = links.call(SERVER, Lane::Control, ECHO, encode, LONG).await;
        match chosen {
            Some(version) => assert_eq!(answer.unwrap(), (version, encode(version).head)),
            None => assert!(matches!(answer, Err(LinkError::Unsupported { kind: ECHO, .. })), "{answer:?}"),
        }
        let unknown = links.call(SERVER, Lane::Control, GATED, encode, LONG).await;
        assert!(matches!(unknown, Err(LinkError::Unsupported { kind: GATED, .. })), "{unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_release_is_understood_as_far_as_it_speaks_ours() {
    let server = Running::start(quick()).await;
    let mut later = raw::hello();
    later.protocol_max = 9;
    // What a later release adds stands at the end.
    let mut message = later.encode().to_vec();
    message.extend_from_slice(b"and more");
    let length = (message.len() - 8) as u32;
    message[4..8].copy_from_slice(&length.to_be_bytes());
    let (mut stream, welcome) = raw::connect(server.address, &message).await;
    assert_eq!((welcome.refusal, welcome.protocol), (None, 1));
    assert_eq!((welcome.identity, welcome.kinds), (identity(SERVER), kinds()));

    for (kind, correlation) in [(NEWER, 11), (ECHO, 12)] {
        stream.write_all(&raw::frame(FrameType::Request, kind, correlation, b"hi")).await.unwrap();
    }
    let (header, body) = raw::read_frame(&mut stream).await.unwrap();
    assert_eq!((header.frame, header.kind, header.correlation), (FrameType::Error, NEWER, 11));
    assert_eq!(ErrorBody::decode(body).unwrap().class, ErrorClass::Unsupported);
    let (header, body) = raw::read_frame(&mut stream).await.unwrap();
    assert_eq!((header.frame, header.correlation, &body[..]), (FrameType::Response, 12, &b"hi"[..]));

    later.protocol_min = 2;
    let (stream, welcome) = raw::connect(server.address, &later.encode()).await;
    let refusal = welcome.refusal.unwrap();
    assert!(refusal.code == RefusalCode::Protocol && refusal.text.contains("upgrade"), "{refusal}");
    assert!(raw::is_closed(stream, LONG).await);

    let lane = super::super::hello::Hello { lane: 77, ..raw::hello() };
    let (_, welcome) = raw::connect(server.address, &lane.encode()).await;
    assert_eq!(welcome.refusal.unwrap().code, RefusalCode::Protocol, "a lane that is not here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_ends_when_either_side_learns_that_the_other_does_not_fit() {
    let newborn = |node| Local::new(Identity { cluster_id: String::new(), ..identity(node) }, kinds());
    let local = newborn(SERVER);
    let server = Running::with(local.clone(), everybody(), quick(), None, "127.0.0.1:0").await;
    let links = links_to(server.address, quick());
    assert_eq!(echo(&links, Lane::Data, "who knows").await.unwrap(), "who knows");
    local.set_cluster_id("elsewhere");
    let failed = links.request(SERVER, Lane::Data, ECHO, 0, Body::default(), Duration::from_millis(500)).await;
    assert!(matches!(&failed, Err(LinkError::NotSent(why)) if why.contains("elsewhere")), "{failed:?}");

    let server = Running::start(quick()).await;
    let local = newborn(CLIENT);
    let links = links_of(local.clone(), quick(), None, server.address);
    assert_eq!(echo(&links, Lane::Data, "who knows").await.unwrap(), "who knows");
    local.set_cluster_id("elsewhere");
    let failed = links.request(SERVER, Lane::Data, ECHO, 0, Body::default(), Duration::from_millis(500)).await;
    assert!(matches!(&failed, Err(LinkError::NotSent(why)) if why.contains("elsewhere")), "{failed:?}");
}
