"""A headless Chromium, driven by its DevTools protocol over the library `websockets`."""

import asyncio
import base64
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request

from websockets.asyncio.client import connect

PATIENCE = 20
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--no-default-browser-check", "--no-proxy-server", "--remote-debugging-port=0", "--window-size=1280,1600",
]  # fmt: skip


def find():
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page. `events` keeps everything that the page reported."""

    def __init__(self, folder, *flags):
        self.folder, self.flags = folder, flags
        self.events, self.waiting, self.calls = [], {}, 0
        self.credentials = None

    async def __aenter__(self):
        self.log = open(self.folder / "chromium.log", "w+")
        command = [find(), *FLAGS, *self.flags, f"--user-data-dir={self.folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)
        try:
            port = await self.port()
            targets = await asyncio.to_thread(self.get, f"http://127.0.0.1:{port}/json/list")
            page = next(target for target in targets if target["type"] == "page")
            self.socket = await connect(page["webSocketDebuggerUrl"], max_size=2**26, compression=None)
        except BaseException:
            self.end()
            raise
        self.reader = asyncio.create_task(self.read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *_):
        self.reader.cancel()
        await self.socket.close()
        await asyncio.to_thread(self.end)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    @staticmethod
    def get(url):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=PATIENCE) as answer:
            return json.load(answer)

    async def port(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            self.log.seek(0)
            if found := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", self.log.read()):
                return int(found[1])
            await asyncio.sleep(0.02)
        raise SystemExit(f"chromium did not start:\n{(self.folder / 'chromium.log').read_text()}")

    async def read(self):
        async for message in self.socket:
            message = json.loads(message)
            if "id" in message:
                self.waiting.pop(message["id"]).set_result(message)
            else:
                self.events.append(message)
                if message["method"].startswith("Fetch."):
                    asyncio.create_task(self.authenticate(message))

    async def call(self, method, **params):
        self.calls += 1
        answer = self.waiting[self.calls] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        message = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in message, (method, message)
        return message["result"]

    async def log_in_with(self, user, password):
        """Answers the browser's question for credentials as somebody at the keyboard would."""
        self.credentials = {"response": "ProvideCredentials", "username": user, "password": password}
        await self.call("Fetch.enable", handleAuthRequests=True)

    async def authenticate(self, event):
        request = event["params"]["requestId"]
        if event["method"] == "Fetch.authRequired":
            await self.call("Fetch.continueWithAuth", requestId=request, authChallengeResponse=self.credentials)
        else:
            await self.call("Fetch.continueRequest", requestId=request)

    async def open(self, url):
        await self.call("Page.navigate", url=url)

    async def run(self, script):
        """The value of an expression in the page, awaited if it is a promise."""
        params = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = await self.call("Runtime.evaluate", **params)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    async def wait_for(self, script):
        """Waits until an expression is true in the page; its value."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if value := await self.run(script):
                return value
            await asyncio.sleep(0.02)
        raise AssertionError(f"never in the page: {script}")

    async def screenshot(self, path):
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def of(self, *methods):
        return [event["params"] for event in self.events if event["method"] in methods]
