"""A real node for the tests of the API's pages and description, and a signer of their own."""

import hashlib
import hmac
import re
import subprocess
import time
from pathlib import Path
from urllib.parse import quote, urlencode

PATIENCE = 20


def canonical(params):
    return "&".join(f"{name}={quote(str(value), safe='')}" for name, value in sorted(params))


def sign(secret, params):
    return hmac.new(secret.encode(), canonical(params).encode(), hashlib.sha256).hexdigest()


def connect_url(address, pid, secret, uid, **more):
    params = {"pid": pid, "uid": uid, "type": 1, "exp": int(time.time()) + 60}
    params["sign"] = sign(secret, params.items())
    return f"ws://{address}/ws/connect?" + urlencode(params | more, quote_via=quote)


class Node:
    """Runs from `with` to its end; `self.ws`, `self.http`, `self.swagger` are where it listens."""

    def __init__(self, binary, folder, *flags, host="127.0.0.1", config=""):
        self.binary, self.folder = str(Path(binary).resolve()), Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "node.toml").write_text(config)
        self.flags = ["--config", "node.toml", "--ws_host", "127.0.0.1", "--http_host", host, "--operator_host", host]
        self.flags += ["--ws_port", "0", "--http_port", "0", "--swagger_port", "0"]
        self.flags += ["--metrics_port", "off", "--pprof_port", "off", "--cores", "1", *flags]

    def printed(self):
        return (self.folder / "log").read_text()

    def __enter__(self):
        with open(self.folder / "log", "w") as log:
            command = [self.binary, *self.flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            found = dict(re.findall(r"^listening (\w+) (\S+)$", self.printed(), re.M))
            if re.search(r"^ready\b", self.printed(), re.M):
                self.ws, self.http, self.swagger = found["ws"], found["http"], found.get("swagger")
                return self
            time.sleep(0.02)
        self.process.kill()
        raise SystemExit(f"the node did not become ready:\n{self.printed()}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
