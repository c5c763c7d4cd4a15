"""A real headless Chromium, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

Notes what a page asks for, what it complains of and what was kept from it. Needs the packages chromium and `websockets`.
"""

import asyncio
import base64
import json
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect

PATIENCE = 20
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-extensions --disable-default-apps
--no-default-browser-check --disable-client-side-phishing-detection --hide-scrollbars --remote-debugging-port=0""".split()


@asynccontextmanager
async def browser():
    """A browser with an empty profile, which ends with the block."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: .ci/setup installs it (Debian package chromium)"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        output = open(Path(profile, "log"), "wb")
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        running = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        try:
            async with connect(await endpoint(Path(profile), running), max_size=None) as socket:
                driven = Browser(socket)
                yield driven
                await driven.end()
            await asyncio.wait_for(running.wait(), PATIENCE)
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
            output.close()


async def endpoint(profile, running):
    """Where the browser listens, which it writes into its profile."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and running.returncode is None:
        try:
            port, path = Path(profile, "DevToolsActivePort").read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        except (FileNotFoundError, ValueError):
            await asyncio.sleep(0.05)
    raise AssertionError(f"chromium did not start:\n{Path(profile, 'log').read_text()[-3000:]}")


class Browser:
    """The connection to the browser: commands and their answers, and events for the pages."""

    def __init__(self, socket):
        self.socket, self.serial, self.answers, self.pages = socket, 0, {}, {}
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            elif page := self.pages.get(message.get("sessionId")):
                page.note(message["method"], message["params"])

    async def command(self, method, session=None, **params):
        self.serial += 1
        message = {"id": self.serial, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        answer = self.answers[self.serial] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps(message))
        answer = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def page(self):
        """A new page, of which everything is noted from its first request on."""
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self.pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.command(f"{domain}.enable")
        return page

    async def end(self):
        await self.command("Browser.close")
        self.reader.cancel()


class Page:
    """One page."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        self.requests, self.complaints = [], []

    def command(self, method, **params):
        return self.browser.command(method, self.session, **params)

    def note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['source']}: {params['entry']['text']}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"console: {[part.get('value') for part in params['args']]}")

    async def go(self, url):
        await self.command("Page.navigate", url=url)
        await self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def evaluate(self, script):
        """The value of an expression; promises are awaited."""
        done = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def wait(self, script, patience=PATIENCE):
        """Waits until an expression is true."""
        end = time.monotonic() + patience
        while not (value := await self.evaluate(script)):
            assert time.monotonic() < end, f"{script}: not within {patience} s; complaints: {self.complaints}"
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector):
        """Clicks into the middle of an element, as a hand would."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{ block: 'center' }})")
        box = await self.evaluate(
            f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            await self.command("Input.dispatchMouseEvent", type=kind, **at)

    async def write(self, selector, text):
        """Replaces what stands in a field by typed text."""
        await self.click(selector)
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        await self.command("Input.insertText", text=text)

    async def screen(self, width, height, dark=False):
        """Gives the page a screen of this size in CSS pixels, and a system theme."""
        narrow = width < 600
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[theme])

    async def picture(self, file):
        """Writes the whole page as a PNG."""
        taken = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(taken["data"]))
