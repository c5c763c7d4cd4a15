//! What a node asks of the kernel under a fan-out: with io_uring, its ring and not epoll.
//! Method: `strace -c -f` on the running node while it delivers.

use std::{collections::HashMap, process::Stdio};

use tokio::process::Command;

use crate::support::{Client, Cluster, Setup, json, node::signal, run};

/// Calls by name while `work` runs; none where the machine forbids tracing.
async fn counted(cluster: &Cluster, work: impl Future<Output = ()>) -> Option<HashMap<String, u64>> {
    let pid = cluster.a().pid().to_string();
    let spawned =
        Command::new("strace").args(["-c", "-f", "-p", &pid]).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut strace = spawned.expect("strace is not installed; `make test` installs it");
    let tracer = strace.id().expect("it runs");
    // It says so once it has attached, and dies at once where ptrace is forbidden.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    if let Ok(Some(status)) = strace.try_wait() {
        eprintln!("SKIPPED: ptrace is forbidden here (strace ended with {status})");
        return None;
    }
    work.await;
    signal(tracer, "INT");
    let output = strace.wait_with_output().await.expect("its table");
    let table = String::from_utf8_lossy(&output.stderr).into_owned();
    if table.contains("Operation not permitted") {
        eprintln!("SKIPPED: ptrace is forbidden here: {table}");
        return None;
    }
    // `% time, seconds, usecs/call, calls, [errors], syscall`
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
    };
    Some(table.lines().filter_map(row).collect())
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
