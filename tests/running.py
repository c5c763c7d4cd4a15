"""What the Python tests share: a real node, a process that ends with its block, a report that ends with the totals.

Knows nothing of the server's code.
"""

import hashlib
import hmac
import json
import re
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

PATIENCE = 20
DEMO_PID, DEMO_SECRET = "1", "demo-secret-known-to-everyone"


@contextmanager
def process(command, log, **more):
    """Runs a program for as long as the block takes; what it prints goes to the file `log`."""
    with open(log, "wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until(what, condition, patience=PATIENCE, pause=0.05):
    """Waits for a condition to hold; its value."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {patience} s")
        time.sleep(pause)


@contextmanager
def node(binary, folder, *flags, log="node.log", pprof="off"):
    """A node on ports of its own: its addresses by the names that it prints (`ws`, `http`, `metrics`, and `pprof` where that is "0"). It
    must stop in good order."""
    log = Path(folder, log)
    command = [str(Path(binary).resolve()), "--ws_host", "127.0.0.1", "--http_host", "127.0.0.1"]
    command += ["--ws_port", "0", "--http_port", "0", "--metrics_port", "0", "--pprof_port", pprof, "--swagger_port", "off"]
    with process(command + list(flags), log, cwd=folder) as running:

        def addresses():
            printed = log.read_text()
            assert running.poll() is None, f"the node ended:\n{printed}"
            return re.search(r"^ready\b", printed, re.M) and dict(re.findall(r"^listening (\w+) (\S+)$", printed, re.M))

        yield until("the node is ready", addresses)
    assert running.returncode == 0, f"the node ended with {running.returncode}:\n{log.read_text()}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def sign(secret, params):
    canonical = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in sorted(params.items()))
    return hmac.new(secret.encode(), canonical.encode(), hashlib.sha256).hexdigest()


def signed_query(secret, **params):
    """The parameters of a call or a connect with their sign."""
    params |= {"exp": int(time.time()) + 60}
    return urlencode(params | {"sign": sign(secret, params)}, quote_via=quote)


def get(url, method="GET"):
    """Status and text of an answer, whatever its status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get_json(url):
    status, text = get(url)
    assert status == 200, (url, status, text)
    return json.loads(text)


class Report:
    """Runs checks one after another and counts them."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, 0

    @contextmanager
    def check(self, what):
        try:
            yield
            self.passed += 1
            print(f"{what}: ok", flush=True)
        except Exception:
            self.failed += 1
            print(f"{what}: FAILED", flush=True)
            traceback.print_exc(file=sys.stdout)

    def end(self):
        print(f"{self.name}: {self.passed} passed, {self.failed} failed")
        sys.exit(self.failed != 0)
