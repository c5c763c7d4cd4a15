//! A TCP proxy before a Redis: cuts connections, swallows what the server answers, holds everything back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Default)]
struct State {
    server_port: AtomicU16,
    swallows: AtomicBool,
    stalls: AtomicBool,
    /// How often everything was cut. A count and not an event: whoever is busy just then sees it a moment later.
    cuts: watch::Sender<u64>,
}

pub struct Proxy {
    port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::<State>::default();
        state.server_port.store(server_port, Ordering::Relaxed);
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a client");
                let state = shared.clone();
                let mut cuts = state.cuts.subscribe();
                tokio::spawn(async move {
                    let server_port = state.server_port.load(Ordering::Relaxed);
                    let carrying = async {
                        if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await {
                            carry(client, server, state).await;
                        }
                    };
                    tokio::select! {
                        biased;
                        _ = cuts.changed() => {}
                        () = carrying => {}
                    }
                });
            }
        });
        Self { port, state, task }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on the server's answers are lost, or not any more.
    pub fn swallow_answers(&self, swallows: bool) {
        self.state.swallows.store(swallows, Ordering::Relaxed);
    }

    /// Nothing passes in either direction, without a word; or everything again.
    pub fn stall(&self, stalls: bool) {
        self.state.stalls.store(stalls, Ordering::Relaxed);
    }

    /// New connections go to another server.
    pub fn turn_to(&self, server_port: u16) {
        self.state.server_port.store(server_port, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        while state.stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 => if server.write_all(&up[..count]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count) if count > 0 => {
                    let swallows = state.swallows.load(Ordering::Relaxed);
                    if !swallows && client.write_all(&down[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
