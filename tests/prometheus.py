"""A real Prometheus scrapes a real node, and answers the README's queries.

Method: Prometheus runs with the scrape configuration that is shipped, in which only the target's port is another; while
clients are connected and pushes go through, the queries of the README are put to its HTTP API, and what they say is
compared with what was done. Run by `make test`:
    target/venv/bin/python tests/prometheus.py target/debug/ws-cluster
The last line is `prometheus: N passed, N failed`.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from websockets.asyncio.client import connect

from running import DEMO_PID, DEMO_SECRET, Report, free_port, get, get_json, node, process, signed_query, until

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "deploy/prometheus/prometheus.yml"
USERS, BACKENDS = 3, 2


def queries(readme):
    """The lines of a README's blocks in PromQL."""
    blocks = re.findall(r"^```promql\n(.*?)^```", (ROOT / readme).read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def config(folder, addresses):
    """The shipped file with the node's port in it."""
    text = SHIPPED.read_text()
    assert text.count("127.0.0.1:9091") == 1, text
    file = Path(folder, "prometheus.yml")
    file.write_text(text.replace("127.0.0.1:9091", addresses["metrics"]))
    return file


@contextmanager
def prometheus(folder, addresses):
    """A running Prometheus; a function that puts a query to it."""
    address, log = f"127.0.0.1:{free_port()}", Path(folder, "prometheus.log")
    command = ["prometheus", f"--config.file={config(folder, addresses)}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder}/tsdb", "--storage.tsdb.retention.time=1h", "--log.level=warn"]

    def query(text):
        answer = get_json(f"http://{address}/api/v1/query?{urlencode({'query': text})}")
        assert answer["status"] == "success", answer
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def is_ready():
        assert running.poll() is None, log.read_text()
        try:
            return get(f"http://{address}/-/ready")[0] == 200
        except OSError:
            return False

    with process(command, log, cwd=folder) as running:
        until("prometheus is ready", is_ready)
        yield query


class Traffic:
    """Connections that stay, and pushes one after another, until told to end."""

    def __init__(self, addresses):
        self.addresses, self.pushed, self.failure = addresses, 0, None
        self.connected, self.over = threading.Event(), threading.Event()
        self.threads = [threading.Thread(target=self.push), threading.Thread(target=lambda: asyncio.run(self.hold()))]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        assert self.connected.wait(20), "the clients connect"
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def push(self):
        try:
            while not self.over.wait(0.02):
                query = signed_query(DEMO_SECRET, pid=DEMO_PID, tags="watched", data=self.pushed)
                status, text = get(f"http://{self.addresses['http']}/ws/push?{query}", "POST")
                assert status == 200, (status, text)
                self.pushed += 1
        except Exception as failure:  # told by the check that counts
            self.failure = failure

    def stop_pushing(self):
        self.over.set()
        self.threads[0].join()
        assert self.failure is None, self.failure
        return self.pushed

    async def hold(self):
        readers = []
        for kind, count in ((1, USERS), (2, BACKENDS)):
            for number in range(count):
                query = signed_query(DEMO_SECRET, pid=DEMO_PID, uid=f"{kind}.{number}", type=kind)
                client = await connect(f"ws://{self.addresses['ws']}/ws/connect?{query}&tags=watched")
                readers.append(asyncio.create_task(self.read(client)))
        self.connected.set()
        await asyncio.to_thread(self.over.wait)
        for reader in readers:
            reader.cancel()

    @staticmethod
    async def read(client):
        async for _ in client:
            pass


def label_values(page):
    return set(re.findall(r'([a-z_]+="[^"]*")', page))


def metrics(addresses):
    status, page = get(f"http://{addresses['metrics']}/metrics")
    assert status == 200
    return page


def strange_traffic(addresses, number):
    """What a peer would send that wanted to fill the metrics with names of its own."""
    for path in (f"/evil{number}", f"/v1/tags/evil{number}", f"/ws/push?evil{number}=1", f"/v1/online?uids=evil{number}"):
        for method in ("GET", "POST", f"EVIL{number}", "PUT"):
            get(f"http://{addresses['http']}{path}", method)
            get(f"http://{addresses['metrics']}{path}", method)
        get(f"http://{addresses['ws']}{path}")
    query = signed_query(DEMO_SECRET, pid=DEMO_PID, tags=f"evil{number}", uids=f"evil{number}", data=f"evil{number}")
    get(f"http://{addresses['http']}/ws/push?{query}", "POST")


def ask(report, addresses, query):
    median, tail, share, by_url, total, connections, *others = queries("README.md")
    numbers = lambda text: [value for _, value in query(text) if value == value]
    with report.check("the shares and quantiles of the README have values"), Traffic(addresses) as traffic:
        until("the ratio of rates has a value", lambda: numbers(share), pause=0.2)
        [(labels, value)] = query(share)
        assert labels == {"job": "ws-cluster"} and 0 < value <= 1, (labels, value)
        [(labels, half)], [(_, most)] = query(median), query(tail)
        assert labels == {} and 0 < half <= most <= 10, (half, most)
        with report.check("every other query of the README has a value too"):
            for text in others:
                until(text, lambda: [value for value in numbers(text) if value > 0], pause=0.2)
        with report.check("ws_connection has the open connections by type and core"):
            until("the connections were scraped", lambda: sum(value for _, value in query(connections)) == USERS + BACKENDS, pause=0.2)
            found = query(connections)
            assert all(labels["job"] == "ws-cluster" and {"core", "instance"} <= labels.keys() for labels, _ in found), found
            by_type = {kind: sum(value for labels, value in found if labels["type"] == kind) for kind in ("user", "backend")}
            assert by_type == {"user": USERS, "backend": BACKENDS}, by_type
        with report.check("request_url_total and request_total have what was done, to the last push"):
            pushed = traffic.stop_pushing()
            assert pushed > 10, pushed

            def counted():
                found = {labels["url"]: value for labels, value in query(by_url)}
                return found.get("/ws/push", 0) >= pushed and found

            found = until(f"{pushed} pushes were scraped", counted, pause=0.2)
            assert found["/ws/push"] == pushed, (found, pushed)
            [(labels, value)] = query(total)
            assert labels["job"] == "ws-cluster" and value >= sum(found.values()) > pushed, (value, found)


def main():
    report = Report("prometheus")
    for tool in ("prometheus", "promtool"):
        if not shutil.which(tool):
            print(f"{tool} is not installed: .ci/setup installs it (Debian package prometheus)")
            report.failed += 1
            report.end()
    with report.check("promtool: the shipped configuration is a good one"):
        status, told = promtool("check", "config", str(SHIPPED))
        assert status == 0, told
    with report.check("both READMEs show the same queries"):
        assert queries("README.md") == queries("README.zh.md") and len(queries("README.md")) >= 6
    with tempfile.TemporaryDirectory() as folder, node(sys.argv[1], folder, "--env", "test") as addresses:
        with prometheus(folder, addresses) as query:
            ask(report, addresses, query)
        with report.check("promtool: the names, types and help of all metrics are as they should be"):
            status, told = promtool("check", "metrics", text=metrics(addresses))
            assert status == 0 and not told.strip(), told
        with report.check("no peer brings a label value of its own"):
            strange_traffic(addresses, 1)
            before = label_values(metrics(addresses))
            for number in range(2, 6):
                strange_traffic(addresses, number)
            page = metrics(addresses)
            # An address that has failed too often is told so: that is a new value, and none of the peer's.
            new = label_values(page) - before - {'code="429"'}
            assert "evil" not in page.lower() and not new, new
    report.end()


main()
