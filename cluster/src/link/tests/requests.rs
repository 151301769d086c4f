//! Requests and answers: in any order, large and small, and what is known of those that failed.

use tokio::net::TcpListener;

use super::raw;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_does_not_wait_for_an_earlier_request() {
    let server = Running::start(quick()).await;
    let links = Arc::new(links_to(server.address, quick()));
    let link = links.link(SERVER, Lane::Data, LONG).await.unwrap();
    let slow = link.submit(GATED, 0, numbered(1, 4), LONG).await.unwrap();
    let fast = link.submit(ECHO, 0, Bytes::from_static(b"fast").into(), LONG).await.unwrap();
    assert_eq!(fast.answer().await.unwrap(), "fast");
    server.recorder.open();
    assert_eq!(slow.answer().await.unwrap(), 1_u32.to_be_bytes().as_slice());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_requests_gets_its_own_answer() {
    let server = Running::start(quick()).await;
    let links = Arc::new(links_to(server.address, quick()));
    let tasks: Vec<_> = (0..40_u32)
        .map(|task| {
            let links = links.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let number = task * 1000 + n;
                    let body = numbered(number, (number as usize * 37) % 70_000);
                    let lane = Lane::ALL[number as usize % 3];
                    let answer = links.request(SERVER, lane, ECHO, 2, body.clone(), LONG).await;
                    assert_eq!(answer.unwrap(), body.head, "request {number}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counted = links.local().counters.peer(SERVER);
    assert_eq!(counted.requests_out.load(Ordering::Relaxed), 2000);
    assert_eq!(counted.connections.load(Ordering::Relaxed), 3);
    let served = server.local.counters.peer(CLIENT);
    assert_eq!(served.requests_in.load(Ordering::Relaxed), 2000);
    assert!(served.bytes_in.load(Ordering::Relaxed) > 60_000_000, "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_go_both_ways_and_control_does_not_wait_for_them() {
    let server = Running::start(quick()).await;
    let links = Arc::new(links_to(server.address, quick()));
    let (head, megabyte) = (Bytes::from_static(b"\0\0\0\x09head"), Bytes::from(vec![5; 1 << 20]));
    let body = Body::new(head.clone(), vec![megabyte.clone(); 40]);
    let bulk = tokio::spawn({
        let links = links.clone();
        async move { links.request(SERVER, Lane::Forward, GATED, 0, body, LONG).await }
    });
    server.recorder.wait_begun(1).await;
    for _ in 0..20 {
        assert_eq!(echo(&links, Lane::Control, "small").await.unwrap(), "small");
    }
    server.recorder.open();
    let answer = bulk.await.unwrap().unwrap();
    assert_eq!((answer.len(), &answer[..8]), (8 + (40 << 20), &head[..]));
    assert!(answer[8..].iter().all(|byte| *byte == 5));

    let big = (60 << 20) + 17;
    let answer = links.request(SERVER, Lane::Data, BIG, 0, numbered(big, 4), LONG).await.unwrap();
    assert_eq!(answer.len(), big as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_apart_and_the_link_lives_on() {
    let server = Running::start(quick()).await;
    let mut spoken: Vec<_> = (ECHO..=PANICS).map(|kind| (kind, 0, 3)).collect();
    spoken.push((NEWER, 0, 0));
    let client = Local::new(identity(CLIENT), Kinds::new(spoken));
    let links = links_of(client, quick(), None, server.address);
    let send = |kind, version, body| links.request(SERVER, Lane::Control, kind, version, body, LONG);
    let refused = LinkError::Refused { code: 42, text: "not today".to_owned() };
    assert_eq!(send(FAILS, 0, Body::default()).await, Err(refused));
    let broken = LinkError::Unknown("the request's handling broke off".to_owned());
    assert_eq!(send(PANICS, 0, Body::default()).await, Err(broken));
    assert!(matches!(send(NEWER, 0, Body::default()).await, Err(LinkError::Unsupported { kind: NEWER, .. })));
    assert!(matches!(send(ECHO, 4, Body::default()).await, Err(LinkError::Unsupported { .. })));
    let huge = Body::from(Bytes::from(vec![0; limits::MAX_FRAME_BYTES]));
    assert!(matches!(send(ECHO, 0, huge).await, Err(LinkError::TooLarge { .. })));
    let huge = send(BIG, 0, numbered(limits::MAX_FRAME_BYTES as u32, 4)).await;
    assert!(matches!(huge, Err(LinkError::Unknown(_))), "an answer that no frame holds: {:?}", huge.map(|b| b.len()));
    let stranger = links.request(9, Lane::Control, ECHO, 0, Body::default(), LONG).await;
    assert!(matches!(stranger, Err(LinkError::NotSent(_))));
    links.send(SERVER, Lane::Control, ECHO, |_| Body::default(), LONG).await.unwrap();
    assert_eq!(echo(&links, Lane::Control, "and on").await.unwrap(), "and on");
    assert_eq!(server.recorder.one_way.load(Ordering::SeqCst), 1, "one-way requests arrive");
    let counted = links.local().counters.peer(SERVER);
    assert_eq!(counted.connects.load(Ordering::Relaxed), 1, "all on one connection");
    assert_eq!(counted.errors_out.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_the_link_and_then_says_that_it_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let links = Arc::new(links_to(address, quick()));
    let short = Duration::from_millis(200);
    let failed = links.request(SERVER, Lane::Data, ECHO, 0, Body::default(), short).await;
    let Err(LinkError::NotSent(why)) = failed else { panic!("{failed:?}") };
    assert!(why.contains("refused"), "{why}");
    let patient = tokio::spawn({
        let links = links.clone();
        async move { echo(&links, Lane::Data, "at last").await }
    });
    let local = Local::new(identity(SERVER), kinds());
    let _server = Running::with(local, everybody(), quick(), None, &address.to_string()).await;
    assert_eq!(patient.await.unwrap().unwrap(), "at last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_unknown_and_what_was_not_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let links = Arc::new(links_to(listener.local_addr().unwrap(), quick()));
    // Accepts each lane, and reads nothing: the sockets fill.
    let (_control, _data) = (raw::accept(&listener).await, {
        links.send(SERVER, Lane::Data, ECHO, |_| Body::default(), Duration::ZERO).await.unwrap_err();
        raw::accept(&listener).await
    });
    let link = links.link(SERVER, Lane::Data, LONG).await.unwrap();
    let stuck = link.submit(ECHO, 0, Bytes::from(vec![1; 60 << 20]).into(), LONG).await.unwrap();
    eventually("bytes written", || links.local().counters.peer(SERVER).bytes_out.load(Ordering::Relaxed) > 0).await;
    let behind = link.submit(ECHO, 0, Body::default(), LONG).await.unwrap();
    let given_up = link.submit(ECHO, 0, Body::default(), Duration::from_millis(1)).await.unwrap();
    assert!(matches!(given_up.answer().await, Err(LinkError::NotSent(_))), "its time was over in the queue");
    let (stuck, behind) = (stuck.answer().await, behind.answer().await);
    assert!(matches!(stuck, Err(LinkError::Unknown(_))), "{stuck:?}");
    assert!(matches!(behind, Err(LinkError::NotSent(_))), "{behind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_time_is_over_is_unknown_and_leaves_room() {
    let server = Running::start(quick()).await;
    let links = links_to(server.address, Options { in_flight: 2, ..quick() });
    for n in 0..5 {
        let lost = links.request(SERVER, Lane::Data, GATED, 0, numbered(n, 4), Duration::from_millis(30)).await;
        let sent = n == 0;
        // The link itself may take longer than that to come up the first time.
        assert!(matches!(lost, Err(LinkError::Unknown(_))) || sent, "{lost:?}");
    }
    server.recorder.open();
    assert_eq!(echo(&links, Lane::Data, "still room").await.unwrap(), "still room");
}
