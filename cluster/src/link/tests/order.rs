//! Requests that must be begun in the order in which they were sent.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_begun_in_order_and_answered_side_by_side() {
    let server = Running::start(quick()).await;
    let links = links_to(server.address, quick());
    let link = links.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..200 {
        pending.push(link.submit(ORDERED, 0, numbered(n, 4), LONG).await.unwrap());
    }
    // None is answered before the last is begun: a begun request holds up no other.
    server.recorder.wait_begun(200).await;
    assert_eq!(server.recorder.begun(), (0..200).collect::<Vec<_>>());
    server.recorder.open();
    for pending in pending.into_iter().rev() {
        pending.answer().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_behind_many_slow_requests_is_not_missed() {
    let server = Running::start(quick()).await;
    let links = links_to(server.address, quick());
    let link = links.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let mut pending = Vec::new();
    // Each is begun faster than pings come, all together slower than a silent link lives.
    for n in 0..50 {
        pending.push(link.submit(ORDERED, 0, numbered(n, 54), LONG).await.unwrap());
    }
    server.recorder.wait_begun(50).await;
    server.recorder.open();
    for pending in pending {
        pending.answer().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_takes_no_other_with_it() {
    let server = Running::start(quick()).await;
    let links = links_to(server.address, quick());
    let link = links.link(SERVER, Lane::Forward, LONG).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..50 {
        let request = link.submit(ORDERED, 0, numbered(n, 4), LONG).await.unwrap();
        if n % 3 > 0 {
            pending.push((n, request));
        }
    }
    server.recorder.open();
    for (n, pending) in pending {
        assert_eq!(pending.answer().await.unwrap(), n.to_be_bytes().as_slice());
    }
    assert!(server.recorder.begun().is_sorted(), "{:?}", server.recorder.begun());
}
