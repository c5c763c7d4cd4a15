#!/usr/bin/env python3
"""How long a node takes from its start to ready, and how large it is then.

    cargo build --release --bin ws-cluster
    sudo chrt -f 10 perf/start/run.py [--rounds 11] [--redis redis-server]

From the moment before the process is spawned to the first 200 of /ready, asked every millisecond at a port that was free just before:
over the embedded queue and, where a redis-server is found, over one that this script starts for the run. Resident size is that of the
process at that moment; the binary's is as built and as `strip` leaves a copy. The median of the rounds, the least and the most. All of
it is on the loopback and ends with the script.
"""
import argparse
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = os.environ.get("NODE", ROOT / "target/release/ws-cluster")
PATIENCE_S = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asked:
            asked.sendall(b"GET /ready HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            return asked.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def until(what, process):
    end = time.monotonic() + PATIENCE_S
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("a process ended or is not ready")
        time.sleep(0.001)


def start(queue):
    """Milliseconds to ready, and resident KiB."""
    port = free_port()
    command = ["taskset", "-c", "0", NODE, "--node", "1", "--env", "dev", "--cores", "1", "--ws_host", "127.0.0.1", "--http_host", "127.0.0.1",
               "--ws_port", "0", "--http_port", str(port), "--metrics_port", "off", "--pprof_port", "off", "--swagger_port", "off",
               "--log_level", "warn", "--demo", "false", *queue]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: is_ready(port), process)
            took = 1000 * (time.monotonic() - began)
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            resident = int(status.split("VmRSS:")[1].split()[0])
            return took, resident
        finally:
            process.terminate()


def tell(name, rounds, queue):
    took, resident = zip(*(start(queue()) for _ in range(rounds)))
    each = " ".join(f"{ms:.0f}" for ms in took)
    print(f"{name}: {statistics.median(took):.0f} ms to ready ({min(took):.0f} to {max(took):.0f}: {each}), "
          f"{statistics.median(resident) / 1024:.1f} MiB resident", flush=True)


def tell_redis(server, rounds, folder):
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            def answers():
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    return True
                except OSError:
                    return False
            until(answers, process)
            keys = iter(range(rounds))
            # A prefix for each round: none has to wait for the lease of the one before.
            tell("redis", rounds, lambda: ["--queue", "redis", "--redis_url", f"redis://127.0.0.1:{port}/0",
                                           "--key_prefix", f"start-{next(keys)}"])
        finally:
            process.terminate()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--redis", default="redis-server")
    given = arguments.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder:
        built = pathlib.Path(NODE).stat().st_size
        stripped = pathlib.Path(folder) / "stripped"
        if shutil.which("strip"):
            subprocess.run(["strip", "-o", stripped, NODE], check=True)
            print(f"binary: {built / 2**20:.1f} MiB as built, {stripped.stat().st_size / 2**20:.1f} MiB stripped")
        tell("embedded queue", given.rounds, lambda: ["--queue", "memory"])
        if shutil.which(given.redis):
            tell_redis(given.redis, given.rounds, folder)
        else:
            print(f"no {given.redis}: not measured over Redis")


if __name__ == "__main__":
    main()
