//! What every socket of a link is set to.

use std::io;

use tokio::net::TcpStream;

use super::limits::UNSENT_BYTES;

/// Small frames leave at once, and the system keeps little that it has not sent: that bytes can be written shows then
/// that the other side has taken nearly all that came before them.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}
