//! Listening sockets: bound before anything starts, one per core and address, so that a taken port ends the start
//! with a clear message and the kernel spreads connections over the cores (`SO_REUSEPORT`).

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for an accept, per core.
const BACKLOG: i32 = 1024;

/// Binds `copies` sockets to one address; port 0 takes a free one, the same for all.
///
/// Errors: the name has no address, or the address cannot be bound; the text names it.
pub fn bind(host: &str, port: u16, copies: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let resolved = (host, port).to_socket_addrs()?.next();
    let mut address = resolved.ok_or_else(|| io::Error::other(format!("{host} has no address")))?;
    let mut listeners = Vec::with_capacity(copies);
    for _ in 0..copies.max(1) {
        let listener =
            bind_one(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((address, listeners))
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
