//! A TCP proxy before Redis that behaves as bad links do: stalls, cuts, and swallows replies.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the link does to what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    Good,
    /// Nothing passes, nothing is lost: it waits.
    Stalled,
    /// What is sent to Redis arrives; what Redis answers is lost with the connection.
    Deaf,
    /// Every connection is cut, and new ones are cut at once.
    Cut,
}

/// A running proxy; it ends with the runtime.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    swallowed: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one before `redis`.
    pub async fn before(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (link, state) = watch::channel(Link::Good);
        let swallowed = Arc::<AtomicUsize>::default();
        let count = swallowed.clone();
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                tokio::spawn(carry(node, redis, state.clone(), count.clone()));
            }
        });
        Self { address, link, swallowed }
    }

    /// `redis://127.0.0.1:port/0`
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Reads of Redis's answers that were swallowed.
    pub fn swallowed(&self) -> usize {
        self.swallowed.load(Ordering::Relaxed)
    }

    /// From now on the link is like this.
    pub fn turn(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn carry(node: TcpStream, redis: SocketAddr, state: watch::Receiver<Link>, swallowed: Arc<AtomicUsize>) {
    let Ok(redis) = TcpStream::connect(redis).await else { return };
    let _ = (node.set_nodelay(true), redis.set_nodelay(true));
    let (from_node, to_node) = node.into_split();
    let (from_redis, to_redis) = redis.into_split();
    let mut cut = state.clone();
    // Whichever side ends first ends the connection.
    tokio::select! {
        () = pump(from_node, to_redis, state.clone(), None) => {}
        () = pump(from_redis, to_node, state, Some(swallowed)) => {}
        _ = cut.wait_for(|link| *link == Link::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<Link>,
    // Counts what is swallowed, where these are answers.
    answers: Option<Arc<AtomicUsize>>,
) {
    let mut buffer = vec![0; 64 << 10];
    // Once a reply is lost, the rest of the stream would be out of step: this connection never answers again.
    let mut deaf = false;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|link| *link != Link::Stalled).await.is_err() {
            return;
        }
        if let Some(swallowed) = &answers {
            deaf |= *state.borrow() == Link::Deaf;
            swallowed.fetch_add(usize::from(deaf), Ordering::Relaxed);
        }
        if !deaf && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
