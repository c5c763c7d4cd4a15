"""A real Prometheus with the configuration that is shipped: what tests/prometheus.py and tests/alerts.py share."""

import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from running import free_port, get, get_json, process, until

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "deploy/prometheus/prometheus.yml"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"


def missing_tools(report):
    """Ends the report as failed if there is no Prometheus."""
    for tool in ("prometheus", "promtool"):
        if not shutil.which(tool):
            print(f"{tool} is not installed: .ci/setup installs it (Debian package prometheus)")
            report.failed += 1
            report.end()


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def config(folder, addresses, is_quick):
    """The shipped files with the node's port in them; quick: with every pause at one second, and nothing else changed."""
    text, rules = SHIPPED.read_text(), ALERTS.read_text()
    assert text.count("127.0.0.1:9091") == 1, text
    if is_quick:
        text = re.sub(r"^(  (?:scrape_interval|scrape_timeout|evaluation_interval):) \d+s$", r"\1 1s", text, flags=re.M)
        rules = re.sub(r"^(        for:) \w+$", r"\1 1s", rules, flags=re.M)
    Path(folder, ALERTS.name).write_text(rules)
    file = Path(folder, "prometheus.yml")
    file.write_text(text.replace("127.0.0.1:9091", addresses["metrics"]))
    return file


@contextmanager
def prometheus(folder, addresses, is_quick=False):
    """A running Prometheus; a function that puts a query to it, and whose `address` it is."""
    address, log = f"127.0.0.1:{free_port()}", Path(folder, "prometheus.log")
    command = ["prometheus", f"--config.file={config(folder, addresses, is_quick)}", f"--web.listen-address={address}"]
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
        query.address = address
        yield query
