"""What the documents show is run: the clients of `docs/protocol.md`, the Go service's messages of `docs/migration.md`, the README's first steps.

Method: the examples are taken out of the pages. Two nodes share a real Redis; the first is stopped while a client in Python and one in
Chromium are connected to it, and pushes go on. Run by `tests/docs.py`.
"""

import asyncio
import json
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from websockets.asyncio.client import connect

from browser import Page
from documents import blocks, read
from running import PATIENCE, free_port, get, node, process, signed_query, until

PID, SECRET = "502", "a-secret-for-the-documents"
OLD_PID = "66"
CONFIG = f"""
[limits]
drain = "2s"
close_timeout = "1s"
[[projects]]
pid = "{PID}"
secrets = ["{SECRET}"]
[[projects]]
pid = "{OLD_PID}"
secrets = ["{SECRET}"]
requests = "all"
"""


class Stage:
    """Two nodes, of which the first is stopped under its clients."""

    def __init__(self, binary, folder, stack):
        port, self.published, self.moved = free_port(), [], False
        config = Path(folder, "node.toml")
        config.write_text(CONFIG)
        stack.enter_context(process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], Path(folder, "redis.log")))
        flags = ["--env", "test", "--config", str(config), "--queue", "redis", "--redis_url", f"redis://127.0.0.1:{port}/0"]
        start = lambda number: stack.enter_context(node(binary, folder, *flags, "--node", str(number), log=f"node{number}.log"))
        self.second = start(2)
        # Entered last, so that it can be left first: that is what stops it.
        self.first_alone = stack.enter_context(ExitStack())
        self.first = self.first_alone.enter_context(node(binary, folder, *flags, "--node", "1", log="node1.log"))

    def url(self, uid):
        at = self.second if self.moved else self.first
        return f"ws://{at['ws']}/ws/connect?{signed_query(SECRET, pid=PID, uid=uid, type=1)}"

    async def push(self, count):
        for _ in range(count):
            query = signed_query(SECRET, pid=PID, tags="kline.BTC", data=len(self.published))
            status, text = await asyncio.to_thread(get, f"http://{self.second['http']}/ws/push?{query}", "POST")
            assert status == 200, text
            self.published.append(json.loads(text)["payload"]["id"])

    async def stop_first(self):
        """Pushes go on while its connections move."""
        self.moved = True
        stopping = asyncio.create_task(asyncio.to_thread(self.first_alone.close))
        while not stopping.done():
            await self.push(1)
        await stopping

    async def kick(self):
        query = signed_query(SECRET, pid=PID, all="true")
        status, text = await asyncio.to_thread(get, f"http://{self.second['http']}/v1/kick?{query}", "POST")
        assert status == 200, text


def ids(messages):
    return [message["id"] for message in messages if message.get("tag") == "kline.BTC" and "id" in message]


async def eventually(what, condition):
    end = time.monotonic() + PATIENCE
    while not (value := await condition()):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)
    return value


async def receive(client, kind):
    """The next message of a type; `None` is one without."""
    while True:
        message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
        if message.get("type") == kind:
            return message


async def speak_as_before(at):
    """What docs/migration.md says of the Go service's messages: they are sent here as its clients and back-ends write them."""
    url = lambda uid, kind: f"ws://{at['ws']}/connect?{signed_query(SECRET, pid=OLD_PID, uid=uid, type=kind)}"
    nothing = {"source": None, "to": {"pid": "", "uids": None, "cids": None}}
    async with connect(url("alice", 1)) as user, connect(url("one", 2)) as one, connect(url("two", 2)) as two:
        greeting = await receive(user, "connect")
        assert greeting["code"] == 1 and greeting["msg"].startswith("connect to node:"), greeting
        cid = greeting["payload"]["client_id"]
        listed = (await receive(one, "online_clients"))["payload"]
        assert listed == [{"cid": cid, "uid": "alice"}], listed
        await user.send(json.dumps({"type": "heart", "affair_id": "", "ack_id": "h", "payload": {"ping": "now"}} | nothing))
        heart = (await receive(user, "heart"))["payload"]
        assert heart["pong"] and (heart["client_id"], heart["ack_id"]) == (cid, "h"), heart
        await user.send(json.dumps({"type": "", "affair_id": "q", "ack_id": "", "payload": {"cmd": 1}} | nothing))
        for backend in (one, two):
            source = (await receive(backend, "request"))["source"]
            assert source == {"pid": OLD_PID, "uid": "alice", "cid": cid}, source
        to = {"pid": OLD_PID, "uids": None, "cids": [cid]}
        await one.send(json.dumps({"affair_id": "q", "ack_id": "a", "payload": {"done": 1}, "type": "", "source": {}, "to": to}))
        assert (await receive(one, None))["code"] == 1
        assert await receive(user, None) == {"affair_id": "q", "payload": {"done": 1}}
        query = signed_query(SECRET, pid=OLD_PID, uids="alice", cids="", data='{"a": 1}')
        status, text = await asyncio.to_thread(get, f"http://{at['http']}/v1/push?{query}", "POST")
        assert status == 200 and await receive(user, None) == {"payload": {"a": 1}}, text
        await user.close()
        assert (await receive(two, "disconnect"))["source"] == source
    async with connect(f"ws://{at['ws']}/connect?token=0123456789abcdef") as refused:
        await asyncio.wait_for(refused.wait_closed(), PATIENCE)
        assert refused.close_code == 4401, refused.close_code


class InBrowser:
    """The client in JavaScript, in a page."""

    def __init__(self, page, stage, source):
        self.page, self.stage, self.source = page, stage, source

    async def start(self):
        # From a blank page Chromium lets nothing reach this machine.
        await self.page.go(f"http://{self.stage.second['http']}/live")
        script = f"{self.source}; globalThis.urls = {{}}; globalThis.messages = []; "
        await self.page.run(f"(() => {{ {script} globalThis.Feed = Feed; }})()")
        await self.renew()
        await self.page.run("void (globalThis.feed = new Feed(async () => urls.now, ['kline.BTC'], (m) => messages.push(m)))")

    async def renew(self):
        await self.page.run(f"void (urls.now = {json.dumps(self.stage.url('in-browser'))})")

    async def messages(self):
        return json.loads(await self.page.run("JSON.stringify(messages)"))


def subscribed(messages):
    return any(message.get("ack_id") == "subscribe" and message["code"] == 1 for message in messages)


async def run_clients(report, stage, page):
    text, loaded, heard = read("docs/protocol.md"), {}, []
    exec(next(block for block in blocks(text, "python") if "class Feed" in block), loaded)
    in_browser = InBrowser(page, stage, next(block for block in blocks(text, "js") if "class Feed" in block))
    running = asyncio.create_task(loaded["Feed"](lambda addr: stage.url("in-python"), ["kline.BTC"], heard.append).run())
    await in_browser.start()

    async def here():
        return heard

    clients = {"Python": here, "JavaScript": in_browser.messages}

    async def all_have(count):
        return all([len(ids(await messages())) >= count for messages in clients.values()])

    async def all_subscribed():
        return all([subscribed(await messages()) for messages in clients.values()])

    with report.check("both clients of docs/protocol.md connect, subscribe and hear what is pushed"):
        await eventually("they subscribe", all_subscribed)
        await stage.push(10)
        await eventually("they hear", lambda: all_have(10))
    with report.check("their node is stopped: they come back at the other and resume, nothing lost, twice or out of order"):
        stage.moved = True
        await in_browser.renew()
        await stage.stop_first()
        await stage.push(10)
        await eventually("they resume", lambda: all_have(len(stage.published)))
        for name, messages in clients.items():
            heard_now = await messages()
            assert ids(heard_now) == stage.published, (name, len(ids(heard_now)), len(stage.published))
            assert not [message for message in heard_now if message.get("type") == "gap" or message.get("gap")], name
    with report.check("they stay away when they are kicked"):
        await stage.kick()
        assert await asyncio.wait_for(running, PATIENCE) == 4410
        await page.wait_for("messages.some((m) => m.type === 'ended' && m.code === 4410)")


async def paste(report, binary, folder, page):
    """What the README says a newcomer does: open the demo page, paste the printed URL in its console and the printed command in a shell."""
    log = Path(folder, "dev.log")
    with node(binary, folder, "--env", "dev", log=log.name) as addresses:
        printed = await asyncio.to_thread(until, "it is printed", lambda: "/demo" in log.read_text() and log.read_text())
        url, command = re.search(r"^ +(ws://\S+)$", printed, re.M)[1], re.search(r"^ +(curl .*)$", printed, re.M)[1]
        with report.check("a newcomer pastes one command and sees the push on the demo page, and in its console"):
            await page.go(f"http://{addresses['http']}/demo")
            await page.wait_for("document.getElementById('state').textContent === 'connected'")
            shown = next(line for line in blocks(read("README.md"), "js")[0].splitlines() if "WebSocket" in line)
            assert shown.count("ws://…") == 1, shown
            await page.run(f"void ({shown.replace('ws://…', url).rstrip(';')})")
            await said(page, '"type":"connect"')
            await asyncio.to_thread(subprocess.run, ["sh", "-c", command], check=True, capture_output=True)
            await said(page, '"payload":{"hello":1}')
            await page.wait_for("document.querySelector('#arrived li')?.textContent.includes('{\"hello\":1}')")


async def said(page, text):
    async def found():
        calls = page.of("Runtime.consoleAPICalled")
        return any(text in str(part.get("value")) for call in calls for part in call["args"])

    await eventually(f"the console says {text}", found)


async def run_examples(report, binary):
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stage = Stage(binary, folder, stack)
        with report.check("what docs/migration.md says of the Go service's messages"):
            await asyncio.wait_for(speak_as_before(stage.first), 60)
        async with Page(Path(folder)) as page:
            await asyncio.wait_for(run_clients(report, stage, page), 120)
            await asyncio.wait_for(paste(report, binary, folder, page), 60)
