"""The demo page in a real browser: candles are drawn, updates flow, a push arrives, a dropped connection resumes.

Also that nothing leaves the node's own ports, that the page's policy would have kept it from doing so, and that the nodes of
a cluster publish the demo's market once. Run by `make test`:
    target/venv/bin/python tests/demo.py target/debug/ws-cluster [FOLDER FOR PICTURES]
The last line is `demo: N passed, N failed`.
"""

import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

from browser import Page
from running import DEMO_PID, DEMO_SECRET, PATIENCE, Report, free_port, get, get_json, node, process, signed_query

# Columns of the chart in which the colours of rising or falling candles stand.
COLUMNS = """(() => {
  const style = getComputedStyle(document.documentElement);
  const rgb = ["--up", "--down"].map(name => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/g).map(part => parseInt(part, 16)));
  const columns = new Set();
  for (const canvas of document.querySelectorAll("#chart canvas")) {
    if (canvas.width < 100) continue;
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4) {
      if (rgb.some(([r, g, b]) => data[at] === r && data[at + 1] === g && data[at + 2] === b)) columns.add((at / 4) % canvas.width);
    }
  }
  return columns.size;
})()"""


def number(name):
    return f"Number(document.getElementById('{name}').textContent.replaceAll(',', ''))"


def text(name):
    return f"document.getElementById('{name}').textContent"


async def look(report, page, addresses, pictures):
    base = f"http://{addresses['http']}"
    with report.check("the page connects and draws the history it was given"):
        await page.screen(1280, 900)
        await page.go(f"{base}/demo")
        await page.wait_for(f"{text('state')} === 'connected'")
        await page.wait_for(f"{COLUMNS} > 150")
    with report.check("updates flow, and their latencies show"):
        first = await page.run(number("updates"))
        await page.wait_for(f"{number('updates')} >= {first + 8} && {number('heart')} > 0 && {number('age')} >= 0")
        await page.wait_for("document.querySelector('#heart-line polyline').getAttribute('points').includes(' ')")
        assert await page.run(number("gaps")) == 0
    with report.check("a bar closes"):
        await page.wait_for(f"{number('closed')} >= 1")
    with report.check("a push by the form arrives, whoever it is for"):
        for audience in ("tags", "uids", "cids", "all"):
            payload = json.dumps({"to": audience, "漢字": "<b>&amp;"}, ensure_ascii=False, separators=(",", ":"))
            await page.run(f"document.getElementById('audience').value = '{audience}'")
            await page.write("#data", payload)
            await page.click("#push button")
            arrived = f"document.querySelector('#arrived li').textContent.includes({json.dumps(payload)})"
            await page.wait_for(f"{arrived} && {text('answer')}.startsWith('accepted')")
    with report.check("a rate merges what is between"):
        await page.run("Object.assign(document.getElementById('rate'), { value: '1' }).onchange({ target: { value: '1' } })")
        await page.wait_for(f"{number('merged')} >= 4")
        await page.run("Object.assign(document.getElementById('rate'), { value: '0' }).onchange({ target: { value: '0' } })")
        assert await page.run(number("gaps")) == 0
    with report.check("a dropped connection comes back and resumes without a gap"):
        await page.click("#drop")
        await page.wait_for(f"{text('state')} === 'disconnected'")
        await page.wait_for(f"{text('state')} === 'connected' && {text('resumed')}.startsWith('resumed: ')")
        assert await page.run(number("reconnects")) == 1
        assert await page.run(number("gaps")) == 0
    with report.check("light, dark and a phone's width: no scrolling sideways, candles in each theme's colours"):
        for name, width, height, dark in [("light", 1280, 900, False), ("dark", 1280, 900, True), ("phone", 390, 844, False), ("phone-dark", 390, 844, True)]:
            await page.screen(width, height, dark)
            await page.wait_for(f"{COLUMNS} > 100 && document.documentElement.scrollWidth <= {width}")
            if pictures:
                await page.picture(Path(pictures, f"demo-{name}.png"))
    with report.check("no complaint, and no request but to the node's own ports"):
        assert page.complaints() == [], page.complaints()
        asked = {urlsplit(url).netloc for url in page.requests() if not url.startswith(("data:", "about:"))}
        assert asked == {addresses["http"], addresses["ws"]}, asked
    with report.check("what is refused is told by its word"):
        await page.run("document.getElementById('audience').options[0].value = 'nobody'")
        await page.run("document.getElementById('audience').selectedIndex = 0")
        await page.click("#push button")
        await page.wait_for(f"{text('answer')}.includes(': ') && !{text('answer')}.startsWith('accepted')")
    with report.check("the policy keeps the page from anything else"):
        kept = "fetch('http://127.0.0.1:1/').then(() => 'went out', error => error.name)"
        assert await page.run(kept) == "TypeError"
        while not any("Content Security Policy" in complaint for complaint in page.complaints()):
            await page.wait_for("new Promise(done => setTimeout(() => done(true), 20))")


async def updates(client, count):
    """The next bars of the demo's market."""
    bars = []
    while len(bars) < count:
        message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
        if message.get("tag") == "kline.DEMO":
            bars.append(message["payload"])
    return bars


async def look_at_cluster(report, binary, folder):
    """Two nodes over one Redis publish the same market, each push once, and go on when the queue was away."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    flags = ["--env", "dev", "--queue", "redis", "--redis_url", f"redis://127.0.0.1:{port}/0"]
    with ExitStack() as stack:
        with process(command, Path(folder, "redis.log")):
            first, second = (
                stack.enter_context(node(binary, folder, *flags, "--node", str(number), log=f"node{number}.log"))
                for number in (1, 2)
            )
            query = signed_query(DEMO_SECRET, pid=DEMO_PID, uid="watcher", type=1)
            client = await connect(f"ws://{second['ws']}/ws/connect?{query}&tags=kline.DEMO")
            with report.check("two nodes publish one market, once"):
                bars = (await updates(client, 40))[1:]
                told = [(bar["closed"], bar["at"] // 200) for bar in bars]
                assert len(set(told)) == len(told) and [bar["time"] for bar in bars] == sorted(bar["time"] for bar in bars), told
                query = signed_query(DEMO_SECRET, pid=DEMO_PID)
                history = get_json(f"http://{first['http']}/v1/tags/kline.DEMO.bars?{query}")["payload"]["history"]
                times = [publication["payload"]["time"] for publication in history]
                assert len(times) > 200 and len(set(times)) == len(times), times
        # The one that comes back in its place holds nothing.
        with process(command, Path(folder, "redis.log")), report.check("the feed goes on when the queue was away"):
            last = bars[-1]["at"]
            while (await updates(client, 1))[0]["at"] < last + 2000:
                pass
            await client.close()
            stack.close()


async def main():
    report = Report("demo")
    binary, pictures = sys.argv[1], (sys.argv[2:] or [None])[0]
    with tempfile.TemporaryDirectory() as folder:
        with node(binary, folder, "--env", "dev") as addresses:
            async with Page(Path(folder)) as page:
                await asyncio.wait_for(look(report, page, addresses, pictures), 120)
            log = Path(folder, "node.log").read_text()
            with report.check("the feed is quiet in the log, and says nothing of signs"):
                quiet = [line for line in log.splitlines() if "WARN" in line or "ERROR" in line]
                assert quiet == [] and "sign=" not in log.split("demo page:")[-1], log
        with node(binary, folder, "--env", "test") as addresses, report.check("elsewhere than in dev there is no page"):
            for path in ("/", "/demo", "/demo/sign/call", "/demo/main.js"):
                status, answer = get(f"http://{addresses['http']}{path}")
                assert status == 404, (path, status, answer)
        await look_at_cluster(report, binary, folder)
    report.end()


asyncio.run(main())
