//! A webhook is posted with its id and signature, and answers are judged as they should be.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use super::*;

/// Answers one request after the other with the given statuses; sends back what it was asked.
fn server(statuses: Vec<&'static str>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            asked.send(String::from_utf8(request).unwrap()).unwrap();
        }
    });
    (url, requests)
}

fn deliver(webhook: &Webhook) -> Result<(), DeliveryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(webhook.deliver("id-1", b"{\"id\":\"id-1\"}".to_vec()))
}

#[test]
fn the_signature_is_the_hmac_of_the_body() {
    // RFC 4231, test case 2.
    assert_eq!(
        signature(b"Jefe", b"what do ya want for nothing?"),
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn a_post_carries_body_id_and_signature() {
    let (url, requests) = server(vec!["204 No Content"]);
    let webhook = Webhook::new(&url, Some(Secret::Known(b"key".to_vec())), 5000).unwrap();
    assert_eq!(deliver(&webhook), Ok(()));
    let request = requests.recv().unwrap().to_lowercase();
    assert!(request.starts_with("post /hook http/1.1\r\n"), "{request}");
    assert!(request.contains("idempotency-key: id-1\r\n"), "{request}");
    assert!(request.contains(&format!("x-hub-signature-256: {}\r\n", signature(b"key", b"{\"id\":\"id-1\"}"))));
    assert!(request.ends_with("{\"id\":\"id-1\"}"));
}

#[test]
fn only_an_answer_about_the_transition_itself_refuses_it() {
    let passing = [
        "503 Busy\r\nretry-after: 7",
        "429 Slow\r\nretry-after: 7",
        "401 Token expired",
        "403 Forbidden",
        "404 Not yet there",
        "405 Proxy",
        "407 Proxy",
        "410 Gone",
        "302 Else",
    ];
    let refused = ["400 Bad Request", "413 Too Large", "422 Unprocessable"];
    let (url, _requests) = server(passing.into_iter().chain(refused).chain(["200 OK"]).collect());
    let webhook = Webhook::new(&url, None, 5000).unwrap();
    for status in passing {
        let asked = status.contains("retry-after").then_some(std::time::Duration::from_secs(7));
        let answer = deliver(&webhook);
        assert!(
            matches!(answer, Err(DeliveryError::Unavailable { retry_after, .. }) if retry_after == asked),
            "{status}: {answer:?}"
        );
    }
    for status in refused {
        let what = format!("refused with status {}", &status[..3]);
        assert_eq!(deliver(&webhook), Err(DeliveryError::Refused { what }));
    }
    assert_eq!(deliver(&webhook), Ok(()));
}

#[test]
fn an_address_where_nobody_listens_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = Webhook::new(&format!("http://{free}/"), None, 5000).unwrap();
    let error = deliver(&webhook).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
