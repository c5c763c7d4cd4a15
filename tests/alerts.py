"""A queue that is killed turns `/ready`, and a real Prometheus with the shipped rules raises the alert, and ends it.

Method: a node over a real Redis, scraped by Prometheus with the shipped configuration and rules, whose pauses alone are shortened to a
second. Redis is killed: the node refuses a push, says so on `/ready`, and the alerts fire; Redis comes back empty: the node takes
pushes, and what said that it does not is over. Run by `make test`:
    target/venv/bin/python tests/alerts.py target/debug/ws-cluster
The last line is `alerts: N passed, N failed`.
"""

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from monitoring import missing_tools, prometheus
from running import DEMO_PID, DEMO_SECRET, Report, free_port, get, get_json, node, process, signed_query, until

# A slow machine may need long for what takes seconds here.
PATIENCE = 60
AWAY = {"WsClusterNotReady", "WsClusterNoNodeReady"}


class Redis:
    """A real one on a port of its own, that can be killed and started again, empty."""

    def __init__(self, folder):
        self.folder, self.port, self.stack = folder, free_port(), ExitStack()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        self.process = self.stack.enter_context(process(command, Path(self.folder, "redis.log")))

    def kill(self):
        self.process.kill()
        self.stack.close()


def push(addresses):
    query = signed_query(DEMO_SECRET, pid=DEMO_PID, tags="a", data="1")
    status, text = get(f"http://{addresses['http']}/ws/push?{query}", "POST")
    return status, json.loads(text).get("err")


def ready(addresses):
    status, text = get(f"http://{addresses['http']}/ready")
    return status, json.loads(text).get("err")


def firing(query):
    """The alerts that fire, as Prometheus tells them."""
    found = get_json(f"http://{query.address}/api/v1/alerts")["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert for alert in found if alert["state"] == "firing"}


def run(report, addresses, redis, query):
    with report.check("a node that is well takes pushes, and nothing fires"):
        until("the node was scraped for a while", lambda: query('sum_over_time(ws_ready{job="ws-cluster"}[1m]) >= 4'), PATIENCE, 0.2)
        assert push(addresses)[0] == 200
        fires = firing(query)
        assert not fires.keys() - {"WsClusterEpoll"}, fires
    redis.kill()
    with report.check("Redis is killed: pushes are refused, and /ready says why"):
        until("/ready turns", lambda: ready(addresses) == (503, "queue_unavailable"), PATIENCE)
        assert push(addresses) == (503, "queue_unavailable"), push(addresses)
        assert get(f"http://{addresses['http']}/live")[0] == 200
    with report.check("and the alerts fire, each with where it is written what to do"):
        until(f"{AWAY} fire", lambda: AWAY <= firing(query).keys(), PATIENCE, 0.2)
        for name in AWAY:
            alert = firing(query)[name]
            assert alert["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}", alert
            assert alert["labels"]["severity"] == "critical", alert
    redis.start()
    with report.check("Redis is back: the node takes pushes, and the alerts are over"):
        until("/ready turns back", lambda: ready(addresses)[0] == 200, PATIENCE)
        assert push(addresses)[0] == 200
        until("the alerts end", lambda: not AWAY & firing(query).keys(), PATIENCE, 0.2)
    with report.check("that the queue began anew is told as well"):
        until("the alert fires", lambda: "WsClusterNewEpoch" in firing(query), PATIENCE, 0.2)


def main():
    report = Report("alerts")
    missing_tools(report)
    if not shutil.which("redis-server"):
        print("redis-server is not installed: .ci/setup installs it")
        report.failed += 1
        report.end()
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        redis.start()
        flags = ["--env", "test", "--queue", "redis", "--redis_url", redis.url]
        try:
            with node(sys.argv[1], folder, *flags) as addresses, prometheus(folder, addresses, is_quick=True) as query:
                run(report, addresses, redis, query)
        finally:
            redis.kill()
    report.end()


main()
