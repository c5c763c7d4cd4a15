//! Accepting: at a bounded rate, within the caps, and through a file limit that is reached.

use std::{
    fs::File,
    io::{self, ErrorKind},
    net::SocketAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    time::Duration,
};

use futures_util::FutureExt;
use monoio::net::{TcpListener, TcpStream};

use crate::{clock, limits::ACCEPT_PAUSE, metrics::Count, protocol::handshake};

use super::{
    admission::{Admission, NotAdmitted},
    core::Core,
    opening::{Fallback, Opening},
    rate::Bucket,
    service::Service,
    socket::Socket,
};

/// Accepts on `listener` for ever.
pub async fn accept<S: Service>(
    core: Rc<Core>,
    service: Rc<S>,
    listener: TcpListener,
    admission: Admission,
    fallback: Option<Fallback>,
) {
    let per_second = core.limits().opening.accepts_per_second;
    let mut bucket = Bucket::new(per_second, per_second, clock::now());
    // Given up for a moment when no descriptor is left, so that a waiting peer can be told by a close.
    let mut reserve = File::open("/dev/null").ok();
    let mut generation = core.generation();
    loop {
        if std::mem::replace(&mut generation, core.generation()) != core.generation() {
            let per_second = core.limits().opening.accepts_per_second;
            bucket.set_rate(per_second, per_second);
        }
        let wait = bucket.take(1, clock::now());
        if !wait.is_zero() {
            monoio::time::sleep(wait).await;
        }
        match listener.accept().await {
            Ok((stream, address)) => admit(&core, &service, stream, address, &admission, fallback.clone()),
            // That peer is gone; the next one may be there.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => pause(&core, &error, &listener, &mut reserve).await,
        }
    }
}

fn admit<S: Service>(
    core: &Rc<Core>,
    service: &Rc<S>,
    stream: TcpStream,
    address: SocketAddr,
    admission: &Admission,
    fallback: Option<Fallback>,
) {
    let address = address.ip().to_canonical();
    let Ok(socket) = Socket::new(stream, address, &core.limits().writing) else { return };
    // Whom a trusted proxy speaks for is known when its head has come.
    let is_proxy = admission.is_trusted_proxy(address);
    let barred = !is_proxy && admission.is_barred(address, clock::now());
    let permits = admission.connection().and_then(|permit| {
        let of_address = if is_proxy { None } else { Some(admission.address(address)?) };
        Ok((permit, of_address))
    });
    let permits = match permits {
        Ok(permits) if !barred => permits,
        refused => return turn_away(core, &socket, refused.err()),
    };
    let opening = Opening { core: core.clone(), service: service.clone(), socket, permits, fallback };
    let core = core.clone();
    monoio::spawn(async move {
        if AssertUnwindSafe(opening.run()).catch_unwind().await.is_err() {
            core.counters().inc(Count::Panics);
            tracing::error!("a handshake ended by a panic");
        }
    });
}

/// A plain answer in one write, before anything is read.
fn turn_away(core: &Core, socket: &Socket, reason: Option<NotAdmitted>) {
    core.counters().inc(Count::HandshakesOverCap);
    let (status, err, message) = match reason {
        Some(NotAdmitted::Node) => (503, "overloaded", "the node has as many connections as it may; try another"),
        Some(_) => (429, "too_many_connections", "too many connections from this address"),
        None => (429, "too_many_failures", "too many failed credentials from this address; wait a minute"),
    };
    let body = format!(r#"{{"code":0,"err":"{err}","msg":"{message}"}}"#);
    let answer = handshake::error_response(status, &[("Retry-After", "60")], &body);
    // The peer's request is unread: FIN first, so that the answer is not lost to the reset that closing causes.
    let _ = socket.send(&[io::IoSlice::new(&answer)]);
    socket.end_write();
}

async fn pause(core: &Core, error: &io::Error, listener: &TcpListener, reserve: &mut Option<File>) {
    let no_files = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    if no_files && reserve.take().is_some() {
        // One waiting peer is accepted and closed at once, so that it does not wait in vain.
        let _ = monoio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        *reserve = File::open("/dev/null").ok();
    }
    core.counters().inc(Count::AcceptsPaused);
    tracing::warn!(%error, "accepting rests for a moment");
    monoio::time::sleep(ACCEPT_PAUSE).await;
}
