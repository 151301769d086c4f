//! A plain HTTP/1.1 client over one socket: enough to ask a node, and nothing shared with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// An answer: status code and body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends one request and reads the whole answer.
pub fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<Answer> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body)? } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

/// GET; any status.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(address, "GET", path, "")
}

/// GET of a JSON document; the status must be 200.
pub fn get_json(address: SocketAddr, path: &str) -> Result<serde_json::Value> {
    let answer = get(address, path)?;
    anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            break;
        }
        body.push_str(tail.get(..size).context("short chunk")?);
        rest = tail.get(size + 2..).context("short chunk")?;
    }
    Ok(body)
}
