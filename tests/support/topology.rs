//! Redis as exchanges run it: a master with its replica and sentinels, and a cluster. Small, on private ports, quick to
//! fail over.

use super::{
    Redis, eventually,
    redis::{Persistence, arguments, free_port},
};

/// After so long a server that does not answer is taken for dead, in milliseconds.
const DEAD_AFTER_MS: &str = "1000";
const SENTINELS: usize = 3;

/// A master, its replica, and the sentinels that watch them.
#[derive(Debug)]
pub struct Sentinels {
    /// The first master.
    pub master: Redis,
    /// Its replica.
    pub replica: Redis,
    /// Who promotes it.
    pub sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts all, and waits until the replica is one and a fail-over is possible.
    pub async fn start() -> Self {
        let quick = ["--repl-diskless-sync-delay", "0"];
        let master = Redis::start_with(Persistence::None, &quick).await;
        let port = master.port().to_string();
        let replica = Redis::start_with(Persistence::None, &["--replicaof", "127.0.0.1", &port]).await;
        let mut set = Self { master, replica, sentinels: Vec::new() };
        set.start_sentinels().await;
        eventually("the replica follows", async || {
            set.replica.command(&["INFO", "replication"]).await.contains("master_link_status:up")
        })
        .await;
        for sentinel in &set.sentinels {
            eventually("a fail-over is possible", async || {
                let known = sentinel.command(&["SENTINEL", "REPLICAS", "mymaster"]).await;
                let quorum = sentinel.command(&["SENTINEL", "CKQUORUM", "mymaster"]).await;
                known.contains("slave-repl-offset") && !known.contains("disconnected") && quorum.starts_with("+OK")
            })
            .await;
        }
        set
    }

    async fn start_sentinels(&mut self) {
        // A port that is lost to somebody else is a start from the beginning: all of them name each other.
        for _ in 0..5 {
            let ports: Vec<u16> = (0..SENTINELS).map(|_| free_port()).collect();
            let (mut sentinels, mut all) = (Vec::new(), true);
            for at in 0..SENTINELS {
                let mut sentinel = Redis::prepared(ports[at]);
                let file = sentinel.file("sentinel.conf", &self.sentinel_file(&ports, at));
                sentinel.give(&[&file, "--sentinel"]);
                all = all && sentinel.launch().await;
                sentinels.push(sentinel);
            }
            if all {
                self.sentinels = sentinels;
                return;
            }
        }
        panic!("the sentinels do not start");
    }

    fn sentinel_file(&self, ports: &[u16], own: usize) -> String {
        let id = |port: u16| format!("{port:040x}");
        let (master, replica) = (self.master.port(), self.replica.port());
        let mut text = format!(
            "sentinel myid {}\nsentinel monitor mymaster 127.0.0.1 {master} 2\nsentinel failover-timeout mymaster 4000\n\
             sentinel down-after-milliseconds mymaster {DEAD_AFTER_MS}\nsentinel known-replica mymaster 127.0.0.1 {replica}\n",
            id(ports[own])
        );
        for port in ports.iter().filter(|port| **port != ports[own]) {
            text += &format!("sentinel known-sentinel mymaster 127.0.0.1 {port} {}\n", id(*port));
        }
        text
    }

    /// `redis-sentinel://…`, with all sentinels.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis-sentinel://{}/0", hosts.join(","))
    }
}

/// Three masters with a third of the slots each; the second has a replica.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters.
    pub masters: Vec<Redis>,
    /// The replica of `masters[1]`.
    pub replica: Redis,
}

impl RedisCluster {
    /// Starts all, and waits until they serve.
    pub async fn start() -> Self {
        for _ in 0..5 {
            // The members know each other from the start: their files say what gossip would bring them to.
            let ports: Vec<(u16, u16)> = (0..4).map(|_| (free_port(), free_port())).collect();
            let mut members = Vec::new();
            for at in 0..ports.len() {
                let mut member = Redis::prepared(ports[at].0);
                member.file("nodes.conf", &members_file(&ports, at));
                member.give(&arguments(Persistence::None));
                member.give(&["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
                member.give(&["--cluster-node-timeout", DEAD_AFTER_MS, "--repl-diskless-sync-delay", "0"]);
                member.give(&["--cluster-port", &ports[at].1.to_string(), "--cluster-replica-validity-factor", "0"]);
                if member.launch().await {
                    members.push(member);
                }
            }
            if members.len() == ports.len() {
                let replica = members.pop().expect("four members");
                let cluster = Self { masters: members, replica };
                cluster.wait_until_it_serves().await;
                return cluster;
            }
        }
        panic!("the members of the cluster do not start");
    }

    async fn wait_until_it_serves(&self) {
        for member in self.masters.iter().chain([&self.replica]) {
            eventually("the cluster serves", async || {
                member.command(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
            })
            .await;
        }
        eventually("the replica follows", async || {
            self.replica.command(&["INFO", "replication"]).await.contains("master_link_status:up")
        })
        .await;
    }

    /// `redis-cluster://…`, with two seeds.
    pub fn url(&self) -> String {
        format!("redis-cluster://{},{}", self.masters[0].address(), self.masters[1].address())
    }

    /// Moves a slot as redis-cli does, but key by key and with a pause between, so that it is torn for a while.
    pub async fn migrate(&self, slot: u16, from: &Redis, to: &Redis, pause: std::time::Duration) {
        let slot = slot.to_string();
        let (from_id, to_id) = (id(from.port()), id(to.port()));
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        let port = to.port().to_string();
        loop {
            let answer = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await;
            let Some(key) = answer.split("\r\n").nth(2) else { break };
            let moved = from.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
            assert!(moved.starts_with("+OK"), "{key}: {moved}");
            tokio::time::sleep(pause).await;
        }
        for member in [to, from] {
            let done = member.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
            assert!(done.starts_with("+OK"), "{done}");
        }
    }
}

fn id(port: u16) -> String {
    format!("{port:040x}")
}

fn members_file(ports: &[(u16, u16)], own: usize) -> String {
    const SLOTS: [&str; 3] = ["0-5460", "5461-10922", "10923-16383"];
    let mut text = String::new();
    for (at, (port, bus)) in ports.iter().enumerate() {
        let myself = if at == own { "myself," } else { "" };
        let (role, epoch, slots) = match SLOTS.get(at) {
            Some(slots) => ("master -".to_owned(), at + 1, format!(" {slots}")),
            None => (format!("slave {}", id(ports[1].0)), 2, String::new()),
        };
        text += &format!("{} 127.0.0.1:{port}@{bus} {myself}{role} 0 0 {epoch} connected{slots}\n", id(*port));
    }
    text + "vars currentEpoch 3 lastVoteEpoch 0\n"
}
