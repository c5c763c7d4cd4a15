"""A real Prometheus scrapes a real node, and answers the queries of the README, of the dashboard and of the alert rules.

Method: Prometheus runs with the scrape configuration that is shipped, in which only the target's port is another; while
clients are connected and pushes go through, the queries are put to its HTTP API. What those of the README say is compared with what
was done; those of the dashboard have data, and what they and the rules name is on the node's page. Run by `make test`:
    target/venv/bin/python tests/prometheus.py target/debug/ws-cluster
The last line is `prometheus: N passed, N failed`.
"""

import asyncio
import json
import re
import sys
import tempfile
import threading

import yaml
from websockets.asyncio.client import connect

from monitoring import ALERTS, ROOT, SHIPPED, missing_tools, prometheus, promtool
from running import DEMO_PID, DEMO_SECRET, Report, get, node, signed_query, until

DASHBOARD = ROOT / "deploy/grafana/ws-cluster.json"
USERS, BACKENDS = 3, 2
# Long enough to be compressed.
PADDING = "." * 300


def queries(readme):
    """The lines of a README's blocks in PromQL."""
    blocks = re.findall(r"^```promql\n(.*?)^```", (ROOT / readme).read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


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
                query = signed_query(DEMO_SECRET, pid=DEMO_PID, tags="watched", data=f"{self.pushed} {PADDING}")
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


def dashboard():
    """The queries of the dashboard's panels, with the variables' values in their place."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    values = {"$job": "ws-cluster", "$instance": ".*", "$__rate_interval": "15s"}
    for name, value in values.items():
        texts = [text.replace(name, value) for text in texts]
    assert len(texts) > 40 and not any("$" in text for text in texts), texts
    return texts


def named(texts):
    """The node's metrics that queries name."""
    names = set(re.findall(r"\b((?:ws|request)_\w+)\{", "\n".join(texts)))
    return {re.sub(r"^(ws_stage_latency_seconds|ws_queue_round_trip_seconds|request_duration)_(bucket|count|sum)$", r"\1", name) for name in names}


def rules():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def check_names(addresses):
    """Nothing is asked for that no node has."""
    known = set(re.findall(r"^# TYPE (\w+) ", metrics(addresses), re.M))
    unknown = named(dashboard() + rules()) - known
    assert not unknown, f"no node has {sorted(unknown)}"


def check_dashboard(query):
    """Every panel has something to show."""
    empty = set(dashboard())

    def all_have():
        empty.difference_update([text for text in empty if any(value == value for _, value in query(text))])
        return not empty

    try:
        until("data", all_have, patience=60, pause=0.5)
    except AssertionError:
        raise AssertionError("no data: " + "\n".join(sorted(empty))) from None


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
        with report.check("every query of the dashboard has data"):
            check_dashboard(query)
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
    missing_tools(report)
    with report.check("promtool: the shipped configuration is a good one"):
        status, told = promtool("check", "config", str(SHIPPED))
        assert status == 0, told
    with report.check("both READMEs show the same queries"):
        assert queries("README.md") == queries("README.zh.md") and len(queries("README.md")) >= 6
    with tempfile.TemporaryDirectory() as folder, node(sys.argv[1], folder, "--env", "test") as addresses:
        with prometheus(folder, addresses) as query:
            ask(report, addresses, query)
        with report.check("the dashboard and the alert rules name metrics that are there"):
            check_names(addresses)
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
