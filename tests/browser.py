"""A page as a person uses it, in the Chromium that the tests of the API's pages drive too (`pages/chromium.py`).

Clicks and types with the mouse and the keyboard, gives the page a screen, and notes what it complained of.
"""

import base64
import json

from pages.chromium import Browser, find


class Page(Browser):
    """One page. Everything is noted from its first request on."""

    def __init__(self, folder):
        assert find(), "chromium is not installed: .ci/setup installs it (Debian package chromium)"
        super().__init__(folder, "--hide-scrollbars")

    def requests(self):
        """What the page asked for, and the WebSockets that it opened."""
        asked = [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]
        return asked + [event["url"] for event in self.of("Network.webSocketCreated")]

    def complaints(self):
        """Exceptions, the console's errors and warnings, and what the browser says of the page."""
        thrown = [str(event["exceptionDetails"].get("exception", event)) for event in self.of("Runtime.exceptionThrown")]
        entries = [event["entry"] for event in self.of("Log.entryAdded")]
        logged = [f"{entry['source']}: {entry['text']}" for entry in entries if entry["level"] in ("error", "warning")]
        calls = [event for event in self.of("Runtime.consoleAPICalled") if event["type"] in ("error", "warning", "assert")]
        return thrown + logged + [f"console: {[part.get('value') for part in event['args']]}" for event in calls]

    async def go(self, url):
        await self.open(url)
        await self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def click(self, selector):
        """Clicks into the middle of an element."""
        element = f"document.querySelector({json.dumps(selector)})"
        await self.run(f"{element}.scrollIntoView({{ block: 'center' }})")
        x, y = await self.run(
            f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def write(self, selector, text):
        """Replaces what stands in a field by typed text."""
        await self.click(selector)
        await self.run(f"document.querySelector({json.dumps(selector)}).select()")
        await self.call("Input.insertText", text=text)

    async def screen(self, width, height, dark=False):
        """Gives the page a screen of this size in CSS pixels, and a system theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[theme])

    async def picture(self, file):
        """Writes the whole page as a PNG."""
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))
