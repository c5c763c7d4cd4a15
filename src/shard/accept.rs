//! Accepting: at a bounded rate, within the caps, and through a file limit that is reached.

use std::{
    fs::File,
    io::{self, ErrorKind},
    net::IpAddr,
    os::fd::OwnedFd,
    rc::Rc,
    time::Duration,
};

use monoio::net::TcpListener;

use crate::{
    clock,
    limits::{ACCEPT_PAUSE, OPENINGS_PER_TURN},
    metrics::Count,
    protocol::handshake,
};

use super::{
    admission::{Admission, NotAdmitted, Permit},
    connections::Connections,
    core::Core,
    opening::Fallback,
    rate::Bucket,
    service::Service,
    socket::{self, Socket},
};

/// Accepts on `listener` for ever, and serves what it has accepted.
pub async fn accept<S: Service>(
    core: Rc<Core>,
    service: Rc<S>,
    listener: TcpListener,
    admission: Admission,
    fallback: Option<Fallback>,
) {
    let connections = match Connections::new(core.clone(), service, admission, fallback) {
        Ok(connections) => connections,
        // What a core cannot begin without ends it, and with it the node.
        Err(error) => panic!("the core's sockets cannot be watched: {error}"),
    };
    monoio::spawn(connections.clone().watch());
    monoio::spawn(connections.clone().expire());
    let per_second = core.limits().opening.accepts_per_second;
    let mut bucket = Bucket::new(per_second, per_second, clock::now());
    set_options(&core, &listener);
    // Given up for a moment when no descriptor is left, so that a waiting peer can be told by a close.
    let mut reserve = File::open("/dev/null").ok();
    let (mut generation, mut in_turn) = (core.generation(), 0);
    loop {
        if std::mem::replace(&mut generation, core.generation()) != core.generation() {
            let per_second = core.limits().opening.accepts_per_second;
            bucket.set_rate(per_second, per_second);
            set_options(&core, &listener);
        }
        let wait = bucket.take(1, clock::now());
        if !wait.is_zero() {
            monoio::time::sleep(wait).await;
        }
        // Those that wait already are taken one after another; the rest waits in the kernel for its turn.
        in_turn += 1;
        if in_turn > OPENINGS_PER_TURN {
            in_turn = 1;
            core.pass().await;
        }
        let accepted = match socket::accept_waiting(&listener) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                in_turn = 0;
                socket::accept(&listener).await
            }
            accepted => accepted,
        };
        match accepted {
            Ok((descriptor, address)) => admit(&connections, descriptor, address),
            // That peer is gone; the next one may be there.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => pause(&core, &error, &listener, &mut reserve).await,
        }
    }
}

fn set_options(core: &Core, listener: &TcpListener) {
    if let Err(error) = socket::set_options(listener, &core.limits().writing) {
        tracing::warn!(%error, "a listener's options could not be set");
    }
}

fn admit<S: Service>(connections: &Connections<S>, descriptor: OwnedFd, address: IpAddr) {
    let Connections { core, admission, .. } = connections;
    match permit(admission, address) {
        // What fails is a peer that is gone, or a kernel without memory for it.
        Ok(permit) => drop(connections.enter(descriptor, address, permit)),
        Err(refusal) => {
            if let Ok(socket) = Socket::new(descriptor, &core.limits().writing) {
                turn_away(core, &socket, refusal);
            }
        }
    }
}

/// Places of the node and of the address; without a reason it is barred.
fn permit(admission: &Admission, address: IpAddr) -> Result<Permit, Option<NotAdmitted>> {
    // Whom a trusted proxy speaks for is known when its head has come.
    let is_proxy = admission.is_trusted_proxy(address);
    let mut permit = admission.connection()?;
    if !is_proxy {
        permit.take_address(address)?;
        if admission.is_barred(address, clock::now()) {
            return Err(None);
        }
    }
    Ok(permit)
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
        let _ = monoio::time::timeout(Duration::from_millis(1), socket::accept(listener)).await;
        *reserve = File::open("/dev/null").ok();
    }
    core.counters().inc(Count::AcceptsPaused);
    tracing::warn!(%error, "accepting rests for a moment");
    monoio::time::sleep(ACCEPT_PAUSE).await;
}
