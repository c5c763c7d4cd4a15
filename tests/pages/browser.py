"""The API's pages in a real browser: every call is tried by its buttons, and what it does is seen elsewhere.

A real node serves the pages, Chromium shows them, and a WebSocket client of its own gets what is pushed. Run by
`make test`:
    target/venv/bin/python tests/pages/browser.py target/debug/ws-cluster [folder for screenshots]
The last line is `pages: N passed, M failed`.
"""

import asyncio
import hashlib
import hmac
import json
import sys
import tempfile
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import chromium
import websockets
from node import Node, canonical, connect_url
from websockets.asyncio.client import connect

PATIENCE = 20
DEMO_PID, DEMO_SECRET = "1", "demo-secret-known-to-everyone"
TOKEN = "an-operators-token-for-this-test"


class Pages:
    """The page of one node, operated as somebody at the screen would."""

    def __init__(self, browser, node):
        self.browser, self.node = browser, node

    async def show(self, origin):
        self.browser.events.clear()
        await self.browser.open(f"{origin}/swagger/")
        await self.browser.wait_for("document.querySelectorAll('.opblock').length > 0")

    async def block(self, operation):
        """Opens an operation, and its form if it is not open yet."""
        block = f"document.querySelector('[id=\"{operation}\"]')"
        await self.browser.wait_for(f"!!{block}")
        if not await self.browser.run(f"{block}.classList.contains('is-open')"):
            await self.browser.run(f"{block}.querySelector('.opblock-summary-control').click()")
        await self.browser.wait_for(f"!!{block}.querySelector('.try-out__btn, .execute')")
        if not await self.browser.run(f"!!{block}.querySelector('.execute')"):
            await self.browser.run(f"{block}.querySelector('.try-out__btn').click()")
        await self.browser.wait_for(f"!!{block}.querySelector('.execute')")
        return block

    async def execute(self, operation):
        """Tries an operation; the status and the body that the page shows."""
        block = await self.block(operation)
        if await self.browser.run(f"!!{block}.querySelector('.btn-clear')"):
            await self.browser.run(f"{block}.querySelector('.btn-clear').click()")
        await self.browser.run(f"{block}.querySelector('.execute').click()")
        shown = f"{block}.querySelector('.live-responses-table .response')"
        await self.browser.wait_for(f"!!{shown}?.querySelector('.response-col_status')?.innerText.trim()")
        status = await self.browser.run(f"{shown}.querySelector('.response-col_status').innerText.trim()")
        body = await self.browser.run(f"{shown}.querySelector('.response-col_description code, .response-col_description pre')?.innerText ?? ''")
        # Closed again: the page draws everything that is open anew with every key.
        await self.browser.run(f"{block}.querySelector('.opblock-summary-control').click()")
        return status.split()[0], body

    async def write(self, element, text):
        """Types into a field that React watches."""
        script = f"""(() => {{
            const field = {element};
            const kind = {{ TEXTAREA: HTMLTextAreaElement, SELECT: HTMLSelectElement }}[field.tagName] ?? HTMLInputElement;
            Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(field, {json.dumps(text)});
            // Leaving the field is what tells the page at once that its text is complete.
            for (const name of ['input', 'change', 'focusout']) field.dispatchEvent(new Event(name, {{ bubbles: true }}));
        }})()"""
        await self.browser.run(script)

    async def parameter(self, operation, name, text):
        block = await self.block(operation)
        row = f"{block}.querySelector('tr[data-param-name=\"{name}\"]')"
        await self.write(f"{row}.querySelector('input, textarea, select')", text)

    async def body(self, operation, text):
        block = await self.block(operation)
        await self.browser.wait_for(f"!!{block}.querySelector('.body-param textarea')")
        await self.write(f"{block}.querySelector('.body-param textarea')", text)


def texts(body):
    """The JSON texts of a body as the page shows it, which may have indented them."""
    while body := body.strip():
        value, end = json.JSONDecoder().raw_decode(body)
        yield value
        body = body[end:]


async def receive(client):
    while True:
        message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
        if message.get("type") != "connect":
            return message


def operations(document):
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, f"operations-{operation['tags'][0]}-{operation['operationId']}"


async def test_every_call_can_be_tried(pages, client):
    document = await pages.browser.run("fetch('/openapi.json').then((answer) => answer.json())")
    ids = dict(operations(document))
    assert len(ids) == 10, ids
    # A push comes first, so that the tag has a value.
    for path in sorted(ids, key=lambda path: ("push" not in path, path)):
        status, body = await pages.execute(ids[path])
        assert status == "200", (path, status, body)
        answers = list(texts(body))
        assert all(answer["code"] == 1 for answer in answers), (path, body)
        if path.endswith("/push"):
            message = await receive(client)
            assert message["payload"] == {"hello": 1} and message["id"] == answers[0]["payload"]["id"], message
        if path.endswith("/batch"):
            first, second = await receive(client), await receive(client)
            assert first["id"] == answers[0]["payload"]["id"] and second == {"payload": "hello"}, (first, second)
        if path == "/v1/online":
            assert [user["uid"] for user in answers[0]["payload"]["users"]] == ["demo"], body
        if path == "/v1/tags/{tag}":
            assert answers[0]["payload"]["last"]["payload"] == {"hello": 1}, body


async def test_forms_queries_and_odd_texts_are_signed_too(pages, client):
    push = "operations-push-ws_push"
    odd = "a+b c&d=e%20!*'()~ü漢😀\"\\"
    await pages.body(push, json.dumps({"uids": ["demo"], "data": odd}, ensure_ascii=False))
    status, body = await pages.execute(push)
    assert status == "200" and (await receive(client))["payload"] == odd, (status, body)
    await pages.body(push, "")
    await pages.parameter(push, "uids", "demo")
    await pages.parameter(push, "data", odd)
    status, body = await pages.execute(push)
    assert status == "200" and (await receive(client))["payload"] == odd, (status, body)
    for name in ("uids", "data"):
        await pages.parameter(push, name, "")
    block = await pages.block(push)
    await pages.write(f"{block}.querySelector('.body-param-content-type select, .content-type')", "application/x-www-form-urlencoded")
    await pages.browser.wait_for(f"!!{block}.querySelector('.opblock-section-request-body table')")
    status, body = await pages.execute(push)
    assert status == "200" and (await receive(client))["payload"] == {"hello": 1}, (status, body)


async def test_mistakes_are_shown_as_documented(pages, client):
    push = "operations-push-v1_push"
    await pages.body(push, '{"data":1}')
    status, body = await pages.execute(push)
    assert status == "400" and json.loads(body)["err"] == "no_audience", (status, body)
    await pages.parameter("operations-node-v1_tags_tag", "tag", "nobody.published.this")
    status, body = await pages.execute("operations-node-v1_tags_tag")
    assert status == "404" and json.loads(body)["err"] == "not_found", (status, body)
    await pages.browser.run("document.getElementById('secret').value = 'wrong'")
    status, body = await pages.execute("operations-users-v1_online")
    assert status == "401" and json.loads(body)["err"] == "bad_credentials", (status, body)
    await pages.browser.run(f"document.getElementById('secret').value = '{DEMO_SECRET}'")


async def test_a_kick_closes_the_client(pages, client):
    kick = "operations-users-v1_kick"
    await pages.body(kick, '{"uids":["demo"]}')
    status, body = await pages.execute(kick)
    assert status == "200", (status, body)
    try:
        await receive(client)
        raise AssertionError("something came")
    except websockets.ConnectionClosed:
        assert client.close_code == 4410, client.close_code


async def test_the_page_talks_to_its_node_alone_and_keeps_the_secret(pages, client):
    browser = pages.browser
    sent = browser.of("Network.requestWillBeSent")
    hosts = {urlsplit(event["request"]["url"]).netloc for event in sent if not event["request"]["url"].startswith("data:")}
    assert hosts == {pages.node.swagger, pages.node.http}, hosts
    assert all(DEMO_SECRET not in json.dumps(event) for event in sent)
    stored = await browser.run("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert stored == '[{},{},""]', stored
    # What the browser says of the statuses that were asked for is no fault of the page.
    complaints = [event["entry"] for event in browser.of("Log.entryAdded") if event["entry"]["level"] == "error"]
    complaints = [entry for entry in complaints if "the server responded with a status of 4" not in entry["text"]]
    assert complaints == [], complaints
    assert browser.of("Runtime.exceptionThrown") == []


async def test_signs_are_those_of_another_implementation(pages, client):
    lengths = [*range(0, 130), 1000]
    script = f"""{json.dumps(lengths)}.map((length) => {{
        const bytes = Uint8Array.from({{ length }}, (_, index) => (index * 7 + length) % 256);
        return [signing.hex(signing.own.sha256(bytes)), signing.hex(signing.own.hmac(bytes, bytes))];
    }})"""
    for length, (digest, mac) in zip(lengths, await pages.browser.run(script)):
        data = bytes((index * 7 + length) % 256 for index in range(length))
        assert digest == hashlib.sha256(data).hexdigest(), length
        assert mac == hmac.new(data, data, hashlib.sha256).hexdigest(), length
    params = [["b", "".join(map(chr, range(1, 256)))], ["a-b", "漢😀"], ["B", ""], ["a.b", "~"], ["_", "x"]]
    assert await pages.browser.run(f"signing.canonical({json.dumps(params)})") == canonical(params)


TESTS = [test for name, test in list(globals().items()) if name.startswith("test_")]


async def test_where_the_browser_has_no_crypto_of_its_own(pages):
    """Another host's page over HTTP, behind the operators' token: the page's own HMAC, and the origin by name."""
    assert not await pages.browser.run("isSecureContext") and not await pages.browser.run("!!crypto.subtle")
    await pages.browser.run(f"document.getElementById('pid').value = '{DEMO_PID}'")
    for operation in ("operations-push-ws_push", "operations-push-v1_push_batch", "operations-users-v1_online"):
        status, body = await pages.execute(operation)
        assert status == "200", (operation, status, body)


async def attempt(name, test):
    try:
        await asyncio.wait_for(test, 60)
        print(f"{name}: ok", flush=True)
        return 1, 0
    except Exception:
        print(f"{name}: FAILED")
        traceback.print_exc(file=sys.stdout)
        return 0, 1


async def on_this_machine(binary, folder, shots):
    results = []
    with Node(binary, folder / "node", "--env", "dev") as node:
        async with chromium.Browser(folder) as browser:
            pages = Pages(browser, node)
            await pages.show(f"http://{node.swagger}")
            async with connect(connect_url(node.ws, DEMO_PID, DEMO_SECRET, "demo", tags="demo")) as client:
                for test in TESTS:
                    results.append(await attempt(test.__name__, test(pages, client)))
                    if shots:
                        await browser.screenshot(shots / f"{test.__name__}.png")
    return results


async def from_another_host(binary, folder, shots):
    with Node(binary, folder / "node", "--env", "dev", "--operator_token", TOKEN, host="0.0.0.0") as node:
        async with chromium.Browser(folder, "--host-resolver-rules=MAP node.test 127.0.0.1") as browser:
            await browser.log_in_with("anyone", TOKEN)
            pages = Pages(browser, node)
            await pages.show(f"http://node.test:{node.swagger.rsplit(':')[-1]}")
            result = await attempt("no crypto", test_where_the_browser_has_no_crypto_of_its_own(pages))
            if shots:
                await browser.screenshot(shots / "no_crypto.png")
            return [result]


async def main():
    if not chromium.find():
        raise SystemExit("pages: chromium is missing (.ci/setup installs it): 0 passed, 1 failed")
    shots = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    results = []
    for part in (on_this_machine, from_another_host):
        with tempfile.TemporaryDirectory() as folder:
            results += await part(sys.argv[1], Path(folder), shots)
    passed, failed = (sum(column) for column in zip(*results))
    print(f"pages: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    asyncio.run(main())
