//! The nodes a test runs on, and the matrix of queues and drivers that every behaviour is tested under.

use std::time::Duration;

use super::{
    Config, Node, Redis,
    node::{Driver, Queue},
    proxy::Proxy,
    redis::Persistence,
};

/// A column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How many nodes: one has the embedded queue, more share a Redis.
    pub nodes: u16,
    /// How their cores talk to the kernel.
    pub driver: Driver,
}

impl Setup {
    /// One node with the embedded queue.
    pub const ONE: Self = Self { nodes: 1, driver: Driver::Auto };
    /// Two nodes over Redis.
    pub const TWO: Self = Self { nodes: 2, driver: Driver::Auto };
    /// One node with the embedded queue on epoll.
    pub const ONE_EPOLL: Self = Self { nodes: 1, driver: Driver::Epoll };
    /// Two nodes over Redis on epoll.
    pub const TWO_EPOLL: Self = Self { nodes: 2, driver: Driver::Epoll };
}

/// Running nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; they end before the queue does.
    pub nodes: Vec<Node>,
    /// Their queue, if it is Redis.
    pub redis: Option<Redis>,
    /// Where it is, if it is somebody else's.
    pub url: Option<String>,
    /// The link to it, if it goes through one that can be broken.
    pub proxy: Option<Proxy>,
    /// What they were started with.
    pub config: Config,
    setup: Setup,
}

impl Cluster {
    /// Starts the nodes of a column and waits until all are ready.
    pub async fn start(setup: Setup, config: Config) -> Self {
        let redis = if setup.nodes > 1 { Some(Redis::start(Persistence::None).await) } else { None };
        Self { nodes: Vec::new(), redis, url: None, proxy: None, config, setup }.filled().await
    }

    /// Starts nodes over this Redis.
    pub async fn over(redis: Redis, nodes: u16, config: Config) -> Self {
        let setup = Setup { nodes, ..Setup::TWO };
        Self { nodes: Vec::new(), redis: Some(redis), url: None, proxy: None, config, setup }.filled().await
    }

    /// Starts nodes over the Redis that this URL leads to.
    pub async fn at(url: String, nodes: u16, config: Config) -> Self {
        let setup = Setup { nodes, ..Setup::TWO };
        Self { nodes: Vec::new(), redis: None, url: Some(url), proxy: None, config, setup }.filled().await
    }

    /// Starts nodes over this Redis, the last of them (or all) through a proxy.
    pub async fn through_proxy(redis: Redis, nodes: u16, all: bool, config: Config) -> Self {
        let proxy = Proxy::before(redis.address()).await;
        let (url, setup) = (proxy.url(), Setup { nodes, ..Setup::TWO });
        let mut cluster = Self { nodes: Vec::new(), redis: Some(redis), url: None, proxy: Some(proxy), config, setup };
        for number in 0..nodes {
            let queue = if all || number + 1 == nodes { Queue::RedisAt(&url) } else { cluster.queue() };
            let node = Node::start(200 + number, queue, Driver::Auto, &cluster.config).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    async fn filled(mut self) -> Self {
        for _ in 0..self.setup.nodes {
            let node = self.another_node().await;
            self.nodes.push(node);
        }
        self
    }

    /// Starts a further node of the same kind.
    pub async fn another_node(&self) -> Node {
        let id = 200 + u16::try_from(self.nodes.len()).expect("a few nodes");
        Node::start(id, self.queue(), self.setup.driver, &self.config).await
    }

    /// What the nodes share.
    pub fn queue(&self) -> Queue<'_> {
        match (&self.redis, &self.url) {
            (Some(redis), _) => Queue::Redis(redis),
            (None, Some(url)) => Queue::RedisAt(url),
            (None, None) => Queue::Memory,
        }
    }

    /// One node.
    pub fn a(&self) -> &Node {
        &self.nodes[0]
    }

    /// Another node if there is one, else the same.
    pub fn b(&self) -> &Node {
        self.nodes.last().expect("a node")
    }
}

/// Runs a behaviour on the nodes of a column.
pub fn run(setup: Setup, test: impl AsyncFnOnce(Cluster)) {
    run_with(setup, Config::new(), test);
}

/// The same with another configuration.
pub fn run_with(setup: Setup, config: Config, test: impl AsyncFnOnce(Cluster)) {
    bounded(async { test(Cluster::start(setup, config).await).await });
}

/// Runs to the end, or panics after a minute and a half.
pub fn bounded(test: impl Future<Output = ()>) {
    bounded_by(Duration::from_secs(90), test);
}

/// Runs to the end, or panics after this long.
pub fn bounded_by(bound: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ended = tokio::time::timeout(bound, test).await;
        assert!(ended.is_ok(), "the test did not end in {bound:?}");
    });
}
