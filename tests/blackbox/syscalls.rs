//! What a node asks of the kernel under a fan-out: with io_uring, its ring and not epoll.
//! Method: `strace -c -f` on the running node while it delivers.

use std::collections::HashMap;

use crate::support::{Client, Cluster, Setup, json, run, trace::Trace};

/// Calls by name while `work` runs; none where the machine forbids tracing.
async fn counted(cluster: &Cluster, work: impl Future<Output = ()>) -> Option<HashMap<String, u64>> {
    let trace = Trace::of(cluster.a(), &["-c", "-f"]).await?;
    work.await;
    Some(trace.counts().await)
}

async fn fan_out(cluster: &Cluster) {
    let mut clients = Vec::new();
    for number in 0..50 {
        let mut client = Client::user(cluster.a(), &format!("u{number}")).await;
        client.subscribe(&["wide"]).await;
        clients.push(client);
    }
    for number in 0..50 {
        cluster.a().api().publish("wide", json!(number)).await;
        for client in &mut clients {
            assert_eq!(client.next().await["payload"], number);
        }
    }
}

#[test]
fn a_node_on_io_uring_waits_in_its_ring() {
    run(Setup::ONE, async |cluster: Cluster| {
        let Some(calls) = counted(&cluster, fan_out(&cluster)).await else { return };
        let of = |name: &str| calls.get(name).copied().unwrap_or(0);
        assert!(of("io_uring_enter") >= 50, "{calls:?}");
        // The node's own thread is tokio's and waits by epoll; the cores must not.
        assert!(of("io_uring_enter") > of("epoll_wait") + of("epoll_pwait") + of("epoll_pwait2"), "{calls:?}");
    });
}

#[test]
fn a_node_on_epoll_never_enters_a_ring() {
    run(Setup::ONE_EPOLL, async |cluster: Cluster| {
        let Some(calls) = counted(&cluster, fan_out(&cluster)).await else { return };
        assert_eq!(calls.get("io_uring_enter"), None, "{calls:?}");
        assert!(calls.keys().any(|name| name.starts_with("epoll_")), "{calls:?}");
    });
}
