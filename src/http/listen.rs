//! Accepts connections for a server.
//!
//! Invariants: the loop ends only when the server stops; a full file table pauses it, and never spins it.

use std::{io::ErrorKind, pin::pin, rc::Rc};

use bytes::BytesMut;
use futures_util::future::{Either, select};
use monoio::net::TcpListener;

use super::server::{Handler, Server};
use crate::{limits::ACCEPT_PAUSE, metrics::Count};

/// Accepts until the server stops or the future is dropped.
pub async fn listen<H: Handler>(listener: TcpListener, server: Rc<Server<H>>) {
    loop {
        let accepted = match select(pin!(listener.accept()), pin!(server.stopped())).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // An answer is one write, so waiting for more to fill a segment would only delay it.
                let _ = stream.set_nodelay(true);
                server.accept(stream, peer.ip(), BytesMut::new());
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => {
                server.counters().inc(Count::AcceptsPaused);
                tracing::warn!(%error, "accepting an HTTP connection failed; pausing");
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
