//! The nodes as their clients know them: addresses that a resolver would give, and the router of whichever answers.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::support::{Api, Client, Connect, Node, config::PID, config::secret_of, http};

/// How long a client tries before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Town {
    /// WebSocket and HTTP listeners; some may be gone.
    listeners: Rc<RefCell<Vec<(SocketAddr, SocketAddr)>>>,
}

impl Town {
    pub fn new(nodes: &[Node]) -> Self {
        let town = Self::default();
        nodes.iter().for_each(|node| town.came(node));
        town
    }

    pub fn came(&self, node: &Node) {
        self.listeners.borrow_mut().push((node.ws, node.http));
    }

    pub fn went(&self, node: &Node) {
        self.listeners.borrow_mut().retain(|(ws, _)| *ws != node.ws);
    }

    /// Connects where the router says, in as many tries as it takes, and takes the greeting.
    pub async fn connect(&self, who: &Connect<'_>) -> Client {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = self.try_connect(who).await {
                return client;
            }
            assert!(Instant::now() < until, "{}: no node takes it", who.uid);
            sleep(PAUSE).await;
        }
    }

    async fn try_connect(&self, who: &Connect<'_>) -> Option<Client> {
        let mut client = who.try_upgrade(self.route().await?).await.ok()?;
        let greeting = client.next_or_close().await.ok()?;
        assert!(greeting.contains("client_id"), "{greeting}");
        Some(client)
    }

    /// What any of the nodes answers.
    async fn route(&self) -> Option<SocketAddr> {
        let (asked, _) = self.any()?;
        let request = format!("GET /ws/route HTTP/1.1\r\nHost: {asked}\r\n\r\n");
        let answer = http::try_raw(asked, request.as_bytes()).await.ok().filter(|answer| answer.status == 200)?;
        Some(answer.payload()["addr"].as_str()?.parse().expect("an address"))
    }

    /// The API of any of the nodes.
    pub fn api(&self) -> Option<Api> {
        self.any().map(|(_, http)| Api::new(http, PID, secret_of(PID)))
    }

    fn any(&self) -> Option<(SocketAddr, SocketAddr)> {
        let listeners = self.listeners.borrow();
        (!listeners.is_empty()).then(|| listeners[fastrand::usize(..listeners.len())])
    }
}
