//! What the kernel tells about a process and about TCP connections of this machine.
//!
//! Parsers apart from the reading, so that they can be tried by texts. Linux only.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};

/// Resident bytes of a process, counted page by page where the kernel offers that: the counters behind `statm` lag.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    if let Some(bytes) = exact.as_deref().and_then(|text| kib_line(text, "Rss:")) {
        return Ok(bytes);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the node's status")?;
    kib_line(&status, "VmRSS:").context("no VmRSS in the node's status")
}

/// Time on a CPU, in nanoseconds: of all threads of a process, and of those whose name begins with `core-`.
pub fn cpu_ns(pid: u32) -> Result<CpuTime> {
    let mut time = CpuTime::default();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the node's threads")?.flatten() {
        let Ok(schedstat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let ns = schedstat.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
        time.process += ns;
        if fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with("core-")) {
            time.cores += ns;
        }
    }
    Ok(time)
}

/// A process and those that it started, and so on.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(pid) = family.get(at).copied() {
        at += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    family
}

/// Bytes that the kernel holds for itself on this machine, for whatever: slabs, sockets' queues, tables, stacks.
pub fn kernel_bytes() -> Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo").context("the machine's memory")?;
    let parts = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let parts: u64 = parts.iter().filter_map(|part| kib_line(&memory, part)).sum();
    Ok(parts + socket_pages(&fs::read_to_string("/proc/net/sockstat").unwrap_or_default()) * 4096)
}

/// Pages in the queues of TCP sockets.
fn socket_pages(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    line.rsplit_once("mem ").and_then(|(_, pages)| pages.trim().parse().ok()).unwrap_or_default()
}

/// See [`cpu_ns`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of all threads.
    pub process: u64,
    /// Of the cores' threads.
    pub cores: u64,
}

/// What the kernel holds for the connections of this network namespace, by (local port, remote port).
#[derive(Debug, Default)]
pub struct TcpQueues(HashMap<(u16, u16), Queued>);

/// Bytes of one end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Written and not yet acknowledged by the peer's kernel.
    pub unacknowledged: u64,
    /// Received and not yet read.
    pub unread: u64,
}

impl TcpQueues {
    /// Reads the kernel's tables.
    pub fn read() -> Result<Self> {
        let mut queues = Self::default();
        queues.parse(&fs::read_to_string("/proc/net/tcp").context("the kernel's connections")?);
        // A machine without IPv6 has no such file.
        queues.parse(&fs::read_to_string("/proc/net/tcp6").unwrap_or_default());
        Ok(queues)
    }

    /// Bytes between the writer at `server_port` and the reader at `client_port`: not yet taken by the reader.
    pub fn backlog(&self, server_port: u16, client_port: u16) -> u64 {
        let of = |local, remote| self.0.get(&(local, remote)).copied().unwrap_or_default();
        of(server_port, client_port).unacknowledged + of(client_port, server_port).unread
    }

    fn parse(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().take(5).collect();
            let [_, local, remote, state, queues] = columns[..] else { continue };
            if state != ESTABLISHED {
                continue;
            }
            let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
            let bytes = |hex: &str| u64::from_str_radix(hex, 16).ok();
            let Some((sent, unread)) = queues.split_once(':') else { continue };
            if let (Some(local), Some(remote), Some(unacknowledged), Some(unread)) =
                (port(local), port(remote), bytes(sent), bytes(unread))
            {
                self.0.insert((local, remote), Queued { unacknowledged, unread });
            }
        }
    }
}

/// State of a connection in the kernel's table.
const ESTABLISHED: &str = "01";

fn kib_line(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    //! Method: lines as the kernel prints them.
    use super::*;

    #[test]
    fn both_ends_of_a_connection_make_its_backlog() {
        let mut queues = TcpQueues::default();
        queues.parse(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
             0: 0100007F:226C 0100007F:9C40 01 00001000:00000002 04:0000 00000000 0 0 1\n\
             1: 0100007F:9C40 0100007F:226C 01 00000003:00000100 00:0000 00000000 0 0 1\n\
             2: 00000000:226C 00000000:0000 0A 00000000:00000000 00:0000 00000000 0 0 1\n",
        );
        assert_eq!(queues.backlog(0x226C, 0x9C40), 0x1100);
        assert_eq!(queues.backlog(0x9C40, 0x226C), 5);
        assert_eq!(queues.backlog(1, 2), 0);
    }

    #[test]
    fn memory_comes_in_bytes() {
        assert_eq!(kib_line("Name:\tx\nVmRSS:\t    1024 kB\n", "VmRSS:"), Some(1 << 20));
        assert_eq!(kib_line("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn pages_of_sockets_stand_at_the_end_of_their_line() {
        assert_eq!(
            socket_pages("sockets: used 9\nTCP: inuse 4 orphan 0 tw 0 alloc 5 mem 17\nUDP: inuse 0 mem 3\n"),
            17
        );
        assert_eq!(socket_pages(""), 0);
        assert!(kernel_bytes().expect("memory") > 1 << 20);
    }

    #[test]
    fn a_started_process_belongs_to_the_family() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().expect("a process");
        let family = family(std::process::id());
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(family.contains(&child.id()), "{family:?}");
    }

    #[test]
    fn this_process_has_memory_and_has_used_the_cpu() {
        let own = std::process::id();
        assert!(resident_bytes(own).expect("resident bytes") > 4096);
        let time = cpu_ns(own).expect("time");
        assert!(time.process > 0 && time.cores == 0, "{time:?}");
    }
}
