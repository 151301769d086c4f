//! MQTT by hand on a blocking socket: the tests decide each byte and each resend themselves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A connected client; `V5` adds empty property lists where 5.0 wants them.
pub struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    v5: bool,
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    pub client_id: &'a str,
    pub v5: bool,
    pub clean: bool,
    /// seconds; the session expiry of a v5 session that is not clean is one hour
    pub keep_alive: u16,
    pub will: Option<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    pub fn v4(client_id: &'a str) -> Options<'a> {
        Options { client_id, v5: false, clean: true, keep_alive: 60, will: None }
    }
    pub fn v5(client_id: &'a str) -> Options<'a> {
        Options { v5: true, ..Options::v4(client_id) }
    }
    #[must_use]
    pub fn persistent(self) -> Options<'a> {
        Options { clean: false, ..self }
    }
}

/// A packet from the server: first byte of the fixed header and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Packet {
    /// Control packet type, 1 to 15.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }
    /// The packet id of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
    /// The v5 reason code of an ack; 0 where it is left out.
    pub fn reason(&self) -> u8 {
        self.body.get(2).copied().unwrap_or(0)
    }
    /// Topic, packet id (0 with QoS 0) and payload of a PUBLISH.
    pub fn publish(&self, v5: bool) -> (String, u16, Vec<u8>) {
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let topic = String::from_utf8_lossy(&self.body[2..2 + length]).into_owned();
        let mut at = 2 + length;
        let mut id = 0;
        if self.first & 6 != 0 {
            id = u16::from_be_bytes([self.body[at], self.body[at + 1]]);
            at += 2;
        }
        if v5 {
            at += 1 + usize::from(self.body[at]);
        }
        (topic, id, self.body[at..].to_vec())
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

/// Encodes a whole packet.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

impl Client {
    /// Connects a socket only.
    pub fn open(address: SocketAddr, v5: bool) -> Result<Client> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Client { socket, buffer: Vec::new(), v5 })
    }

    /// Connects and waits for CONNACK; returns whether the session was present.
    pub fn connect(address: SocketAddr, options: Options<'_>) -> Result<(Client, bool)> {
        let mut client = Client::open(address, options.v5)?;
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(if options.v5 { 5 } else { 4 });
        body.push(if options.clean { 2 } else { 0 } | if options.will.is_some() { 0x0c } else { 0 });
        body.extend(options.keep_alive.to_be_bytes());
        if options.v5 && !options.clean {
            body.extend([5, 0x11, 0, 0, 0x0e, 0x10]);
        } else if options.v5 {
            body.push(0);
        }
        text(&mut body, options.client_id.as_bytes());
        if let Some((topic, payload)) = options.will {
            if options.v5 {
                body.push(0);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload.as_bytes());
        }
        client.send(&packet(0x10, &body))?;
        let answer = client.receive()?;
        anyhow::ensure!(answer.kind() == 2, "expected CONNACK, got {answer:?}");
        anyhow::ensure!(answer.body[1] == 0, "refused with {:#04x}", answer.body[1]);
        Ok((client, answer.body[0] & 1 == 1))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// Encodes a PUBLISH.
    pub fn publish_bytes(&self, topic: &str, qos: u8, id: u16, dup: bool, retain: bool, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(payload.len() + topic.len() + 8);
        text(&mut body, topic.as_bytes());
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if self.v5 {
            body.push(0);
        }
        body.extend(payload);
        packet(0x30 | (u8::from(dup) << 3) | (qos << 1) | u8::from(retain), &body)
    }

    /// Publishes and waits for the end of the QoS exchange; returns the last reason code.
    pub fn publish(&mut self, topic: &str, qos: u8, id: u16, payload: &[u8]) -> Result<u8> {
        let bytes = self.publish_bytes(topic, qos, id, false, false, payload);
        self.send(&bytes)?;
        match qos {
            0 => Ok(0),
            1 => Ok(self.expect(4, id)?.reason()),
            _ => {
                let received = self.expect(5, id)?;
                if received.reason() >= 0x80 {
                    return Ok(received.reason());
                }
                self.ack(0x62, id)?;
                Ok(self.expect(7, id)?.reason())
            }
        }
    }

    /// Sends PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70).
    pub fn ack(&mut self, first: u8, id: u16) -> Result<()> {
        self.send(&packet(first, &id.to_be_bytes()))
    }

    /// Subscribes and returns the granted code.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<u8> {
        let mut body = vec![0, 77];
        if self.v5 {
            body.push(0);
        }
        text(&mut body, filter.as_bytes());
        body.push(qos);
        self.send(&packet(0x82, &body))?;
        let answer = self.expect(9, 77)?;
        answer.body.last().copied().context("empty SUBACK")
    }

    pub fn ping(&mut self) -> Result<()> {
        self.send(&packet(0xc0, &[]))?;
        let answer = self.receive()?;
        anyhow::ensure!(answer.kind() == 13, "expected PINGRESP, got {answer:?}");
        Ok(())
    }

    pub fn disconnect(mut self) -> Result<()> {
        self.send(&packet(0xe0, &[]))
    }

    fn expect(&mut self, kind: u8, id: u16) -> Result<Packet> {
        let answer = self.receive()?;
        if answer.kind() != kind || answer.id() != id {
            bail!("expected packet type {kind} with id {id}, got {answer:?}");
        }
        Ok(answer)
    }

    /// The next packet; waits up to the socket's read timeout.
    pub fn receive(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = self.take() {
                return Ok(packet);
            }
            self.fill()?;
        }
    }

    /// A packet that arrives within `wait`.
    pub fn receive_within(&mut self, wait: Duration) -> Result<Option<Packet>> {
        self.socket.set_read_timeout(Some(wait))?;
        let got = self.receive();
        self.socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        match got {
            Ok(packet) => Ok(Some(packet)),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
                _ => Err(error),
            },
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0u8; 16384];
        let read = self.socket.read(&mut chunk)?;
        if read == 0 {
            bail!("the server closed the connection");
        }
        self.buffer.extend(&chunk[..read]);
        Ok(())
    }

    fn take(&mut self) -> Option<Packet> {
        let mut length = 0usize;
        for (index, byte) in self.buffer.iter().skip(1).take(4).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let start = index + 2;
                if self.buffer.len() < start + length {
                    return None;
                }
                let first = self.buffer[0];
                let body = self.buffer[start..start + length].to_vec();
                self.buffer.drain(..start + length);
                return Some(Packet { first, body });
            }
        }
        None
    }
}
