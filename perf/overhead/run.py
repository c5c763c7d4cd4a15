#!/usr/bin/env python3
"""What being seen costs a node: CPU time a delivery with everything on, against everything off, in one run.

    cargo build --release --workspace --bins
    sudo chrt -f 10 perf/overhead/run.py [--rounds 5]

Two nodes of one core each on CPU 0 take turns under the same open-loop load from CPU 1: 100,000 deliveries a second (1,000
publications to 100 of 1,000 subscribers each). One has its stage latencies, traces (one push in 1,000, to a collector in this process),
a rotated log file with compression, an error endpoint and a scrape every five seconds; the other has none of it. The time
is that of the whole process: cores, exporters, writers, everything. All traffic is on the loopback; everything ends with the script.
"""
import argparse
import http.server
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = os.environ.get("NODE", ROOT / "target/release/ws-cluster")
LOADTEST = os.environ.get("LOADTEST", ROOT / "target/release/loadtest")
SECRET = "for-as-long-as-the-measurement-takes"
CONFIG = f"""
[limits]
connections_per_address = 0
[[projects]]
pid = "load"
secrets = ["{SECRET}"]
[[tags]]
match = "slow.*"
class = "lossless"
"""
DELIVERIES_PER_PUBLICATION = 100
RATE = 1000


class Sink(http.server.BaseHTTPRequestHandler):
    """Takes whatever comes, as a collector or an error endpoint would."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Node:
    """A running node."""

    def __init__(self, number, folder, flags):
        folder.mkdir()
        (folder / "node.toml").write_text(CONFIG)
        flags = ["--node", str(number), "--env", "test", "--cores", "1", "--config", str(folder / "node.toml"),
                 "--ws_host", "127.0.0.1", "--http_host", "127.0.0.1", "--ws_port", "0", "--http_port", "0",
                 "--metrics_port", "0", "--pprof_port", "off", "--swagger_port", "off", *flags]
        self.process = subprocess.Popen(["taskset", "-c", "0", NODE, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.listening = {}
        self.loads = 0
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == ["listening"]:
                self.listening[words[1]] = words[2]
            if words == ["ready"]:
                break

    def cpu(self):
        """Seconds of CPU time of the whole process."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, seconds):
        """Microseconds of CPU time a delivery, and the load's own report."""
        before = self.cpu()
        # Tags of its own for every load: each begins with a tag's first publication.
        self.loads += 1
        command = [LOADTEST, "slow", "--json", "--cpu", "1", "--ws", f"ws://{self.listening['ws']}",
                   "--metrics", f"http://{self.listening['metrics']}", "--node-pid", str(self.process.pid),
                   "--pid", "load", "--secret", SECRET, "--stalled", "0", "--live", "1000", "--tags", "10",
                   "--rate", str(RATE), "--class", "lossless", "--prefix", f"slow.{self.loads}.", "--warmup", "1", "--settle", "0", "--tail", "1",
                   "--resume-over", "1", "--seconds", str(seconds)]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        deliveries = report["feed"]["sent"] * DELIVERIES_PER_PUBLICATION
        return 1e6 * (self.cpu() - before) / deliveries, report

    def end(self):
        self.process.terminate()
        self.process.wait(40)


def scrape(node, stop):
    while not stop.wait(5):
        urllib.request.urlopen(f"http://{node.listening['metrics']}/metrics").read()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4, help="of each of the two phases of a round")
    given = arguments.parse_args()
    os.sched_setaffinity(0, {1})
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    at = f"127.0.0.1:{sink.server_address[1]}"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        on = Node(1, folder / "on", ["--otlp_endpoint", f"http://{at}/v1/traces", "--trace_one_in", "1000",
                                     "--log_level", "info", "--log_file", str(folder / "on.log"),
                                     "--sentry_dsn", f"http://public@{at}/1"])
        off = Node(2, folder / "off", ["--stage_latency", "false", "--log_level", "off"])
        stop = threading.Event()
        threading.Thread(target=scrape, args=(on, stop), daemon=True).start()
        try:
            rounds = []
            for number in range(given.rounds):
                pair = [(off, "off"), (on, "on")]
                if number % 2:
                    pair.reverse()
                took = {name: node.load(given.seconds)[0] for node, name in pair}
                rounds.append(took)
                print(f"round {number + 1}: {took['off']:.3f} us a delivery off, {took['on']:.3f} on, ratio {took['on'] / took['off']:.3f}", flush=True)
            ratios = sorted(took["on"] / took["off"] for took in rounds)
            print(f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), {given.rounds} rounds")
        finally:
            stop.set()
            on.end()
            off.end()
            time.sleep(0.1)


if __name__ == "__main__":
    main()
