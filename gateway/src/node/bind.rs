//! Binds every listener before anything else happens, so that a taken address is known at once.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::config::Config;

use super::Addresses;

/// Connections that may wait to be accepted: a fleet that reconnects all at once.
const BACKLOG: i32 = 4096;
/// Socket buffers of the QUIC listener, bytes; the kernel may grant less.
const UDP_BUFFER: usize = 4 << 20;

/// The bound listeners; those that are off are `None`.
pub(super) struct Bound {
    pub mqtt: Option<TcpListener>,
    pub mqtts: Option<TcpListener>,
    pub quic: Option<UdpSocket>,
    pub kafka: Option<TcpListener>,
    pub cluster: Option<TcpListener>,
    pub http: Option<TcpListener>,
}

impl Bound {
    /// Binds all listeners of the configuration.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Bound> {
        let listeners = &config.listeners;
        Ok(Bound {
            mqtt: tcp("mqtt", listeners.mqtt)?,
            mqtts: tcp("mqtts", listeners.mqtts)?,
            quic: udp("quic", listeners.quic)?,
            kafka: tcp("kafka", listeners.kafka)?,
            cluster: tcp("cluster", config.cluster.listen)?,
            http: tcp("http", listeners.http)?,
        })
    }

    /// Where they are bound: port 0 has become a real one.
    pub(super) fn addresses(&self) -> Addresses {
        let of = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        Addresses {
            mqtt: of(&self.mqtt),
            mqtts: of(&self.mqtts),
            ws: None,
            wss: None,
            quic: self.quic.as_ref().and_then(|socket| socket.local_addr().ok()),
            kafka: of(&self.kafka),
            cluster: of(&self.cluster),
            http: of(&self.http),
        }
    }
}

fn tcp(name: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map(Some).map_err(|error| refused(name, address, &error))
}

fn udp(name: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<UdpSocket>> {
    let Some(address) = address else { return Ok(None) };
    let bind = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Larger buffers only help; without them it works as well.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map(Some).map_err(|error| refused(name, address, &error))
}

fn refused(name: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the address is in use by another program, perhaps another forebay; stop that one or choose another \
             address with --set listeners.{name}=IP:PORT"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege; choose another with --set listeners.{name}=IP:PORT")
        }
        io::ErrorKind::AddrNotAvailable => format!("no network interface of this machine has that address ({error})"),
        _ => error.to_string(),
    };
    anyhow!(why).context(format!("listeners.{name}: cannot listen on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_names_the_listener_and_the_way_out() {
        let first = tcp("mqtt", "127.0.0.1:0".parse().ok()).unwrap().unwrap();
        let error = tcp("kafka", first.local_addr().ok()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("listeners.kafka") && text.contains("in use") && text.contains("--set"), "{text}");
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_port() {
        let bound = Bound {
            mqtt: tcp("mqtt", "127.0.0.1:0".parse().ok()).unwrap(),
            mqtts: None,
            quic: udp("quic", "127.0.0.1:0".parse().ok()).unwrap(),
            kafka: None,
            cluster: None,
            http: None,
        };
        let addresses = bound.addresses();
        assert!(addresses.mqtt.is_some_and(|a| a.port() != 0) && addresses.quic.is_some_and(|a| a.port() != 0));
        assert_eq!(addresses.kafka, None);
    }
}
