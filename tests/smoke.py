"""A second opinion: the Python library `websockets` and `urllib` against a running node.

Knows nothing of the server's code or of the other tests. Run by `make test`:
    target/venv/bin/python tests/smoke.py target/debug/ws-cluster
The last line is `smoke: N passed, M failed`.
"""

import asyncio
import hashlib
import hmac
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PID, SECRET = "502", "a-secret-for-the-smoke-test"
PATIENCE = 10
CONFIG = f"""
[[projects]]
pid = "{PID}"
secrets = ["{SECRET}"]
"""


def sign(params):
    canonical = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in sorted(params.items()))
    return hmac.new(SECRET.encode(), canonical.encode(), hashlib.sha256).hexdigest()


def connect_url(node, uid, kind=1, **more):
    params = {"pid": PID, "uid": uid, "type": kind, "exp": int(time.time()) + 60}
    params["sign"] = sign(params)
    return f"ws://{node['ws']}/ws/connect?" + urlencode(params | more, quote_via=quote)


def call(node, method, path, body=None, **params):
    params |= {"pid": PID, "exp": int(time.time()) + 60}
    data = None if body is None else json.dumps(body).encode()
    covered = dict(params)
    if data is not None:
        covered["body_sha256"] = hashlib.sha256(data).hexdigest()
    params["sign"] = sign(covered)
    url = f"http://{node['http']}{path}?" + urlencode(params, quote_via=quote)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def receive(client):
    return json.loads(await asyncio.wait_for(client.recv(), PATIENCE))


async def greeted(node, uid, kind=1, compression="deflate", **more):
    client = await connect(connect_url(node, uid, kind, **more), max_size=2**21, compression=compression)
    greeting = await receive(client)
    assert greeting["type"] == "connect" and greeting["code"] == 1, greeting
    return client, greeting["payload"]["client_id"]


async def push(node, body):
    return await asyncio.to_thread(call, node, "POST", "/ws/push", body)


async def test_heart_and_ping(node):
    client, cid = await greeted(node, "ann")
    await client.send(json.dumps({"type": "heart", "ack_id": "h"}))
    answer = await receive(client)
    assert answer["type"] == "heart" and answer["payload"]["client_id"] == cid, answer
    await asyncio.wait_for(await client.ping(b"payload"), PATIENCE)
    await client.close()
    assert client.close_code == 1000, client.close_code


async def test_push_and_publication(node):
    client, _ = await greeted(node, "bob", device="phone")
    await client.send(json.dumps({"type": "subscribe", "ack_id": "s", "tags": "gold,silver"}))
    answer = await receive(client)
    assert answer["payload"]["granted"] == ["gold", "silver"], answer
    status, answer = await push(node, {"tags": ["gold"], "data": {"price": 1}})
    assert status == 200 and answer["code"] == 1, answer
    publication = await receive(client)
    assert publication == {"tag": "gold", "id": answer["payload"]["id"], "prev": "", "payload": {"price": 1}}, publication
    status, _ = await push(node, {"uids": ["bob"], "devices": ["phone"], "data": "漢字 😀"})
    assert status == 200
    assert await receive(client) == {"payload": "漢字 😀"}
    await client.close()


async def test_request_and_answer(node):
    backend, _ = await greeted(node, "biz", kind=2)
    client, cid = await greeted(node, "carl")
    await client.send(json.dumps({"type": "request", "affair_id": "q", "payload": {"buy": 1}}))
    while (request := await receive(backend)).get("type") != "request":
        pass
    assert request["source"]["cid"] == cid and request["payload"] == {"buy": 1}, request
    await backend.send(json.dumps({"affair_id": "q", "to": {"cids": [cid]}, "payload": "bought"}))
    assert await receive(client) == {"affair_id": "q", "payload": "bought"}
    await backend.close()
    await client.close()


async def test_bad_credentials_close_with_4401(node):
    url = connect_url(node, "dora").replace("uid=dora", "uid=eve")
    async with connect(url) as client:
        try:
            await asyncio.wait_for(client.recv(), PATIENCE)
            raise AssertionError("something came")
        except websockets.ConnectionClosed:
            assert client.close_code == 4401, client.close_code


async def test_binary_closes_with_1003(node):
    client, _ = await greeted(node, "finn")
    await client.send(b"\x00")
    try:
        await receive(client)
        raise AssertionError("something came")
    except websockets.ConnectionClosed:
        assert client.close_code == 1003, client.close_code


async def test_fragments_and_large_messages(node):
    client, _ = await greeted(node, "gina")
    text = json.dumps({"type": "heart", "ack_id": "é", "pad": "漢" * 1000}, ensure_ascii=False)

    async def pieces():
        for start in range(0, len(text), 100):
            yield text[start : start + 100]

    await client.send(pieces())
    assert (await receive(client))["ack_id"] == "é"
    large = "x" * 900_000
    status, _ = await push(node, {"uids": ["gina"], "data": large})
    assert status == 200
    assert (await receive(client))["payload"] == large
    await client.close()


async def test_deflate_with_every_window(node):
    for bits in range(8, 16):
        # zlib makes no window of 8 bits, so a client has none for what it sends.
        offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=max(bits, 9))
        url = connect_url(node, f"zip{bits}", tags=f"zipped.{bits}")
        client = await connect(url, max_size=2**21, compression=None, extensions=[offer])
        agreed = client.protocol.extensions
        assert len(agreed) == 1 and agreed[0].name == "permessage-deflate", agreed
        assert agreed[0].remote_no_context_takeover and agreed[0].local_no_context_takeover, agreed
        assert agreed[0].remote_max_window_bits == bits, agreed
        assert (await receive(client))["type"] == "connect"
        await client.send(json.dumps({"type": "heart", "ack_id": "h", "pad": "漢字" * 3000}))
        while (answer := await receive(client)).get("type") != "heart":
            pass
        assert answer["ack_id"] == "h", answer
        # Shorter and longer than each window, with much that repeats at every distance.
        for length in (10, 300, 5_000, 60_000, 120_000):
            data = [f"{number * number % 9973}:{number % 61}" for number in range(length // 8)]
            for body in ({"tags": [f"zipped.{bits}"], "data": data}, {"uids": [f"zip{bits}"], "data": data}):
                status, _ = await push(node, body)
                assert status == 200
                assert (await receive(client))["payload"] == data, f"{bits} bits, {length} bytes"
        await client.close()
        assert client.close_code == 1000, client.close_code


async def test_deflate_is_agreed_on_only_where_it_is_offered(node):
    for compression, names in (("deflate", ["permessage-deflate"]), (None, [])):
        client, _ = await greeted(node, "zip", compression=compression)
        assert [extension.name for extension in client.protocol.extensions] == names
        await client.close()


async def test_errors_keep_their_shape(node):
    status, answer = await push(node, {"data": 1})
    assert status == 400 and answer["code"] == 0 and answer["err"] and answer["msg"], answer
    status, answer = await asyncio.to_thread(call, node, "GET", "/v1/nothing")
    assert status == 404 and answer["code"] == 0, answer


async def test_many_clients_get_everything_in_order(node):
    clients = [(await greeted(node, f"m{number}", tags="wide"))[0] for number in range(50)]
    ids = []
    for number in range(40):
        status, answer = await push(node, {"tags": ["wide"], "data": number})
        assert status == 200, answer
        ids.append(answer["payload"]["id"])
    for client in clients:
        got = []
        while len(got) < len(ids):
            message = await receive(client)
            if message.get("tag") == "wide":
                got.append(message["id"])
        assert got == ids
        await client.close()


async def run_all(node):
    passed, failed = 0, 0
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                await asyncio.wait_for(test(node), 60)
                passed += 1
                print(f"{name}: ok")
            except Exception:
                failed += 1
                print(f"{name}: FAILED")
                traceback.print_exc(file=sys.stdout)
    return passed, failed


def start(binary, folder):
    config = Path(folder, "node.toml")
    config.write_text(CONFIG)
    flags = ["--env", "test", "--config", str(config), "--ws_host", "127.0.0.1", "--http_host", "127.0.0.1"]
    flags += ["--ws_port", "0", "--http_port", "0", "--metrics_port", "0", "--pprof_port", "off", "--swagger_port", "off"]
    log = open(Path(folder, "log"), "w+")
    process = subprocess.Popen([str(Path(binary).resolve()), *flags], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        printed = Path(folder, "log").read_text()
        node = dict(re.findall(r"^listening (\w+) (\S+)$", printed, re.M))
        if {"ws", "http"} <= node.keys() and re.search(r"^ready\b", printed, re.M):
            return process, node
        time.sleep(0.02)
    process.kill()
    raise SystemExit(f"the node did not become ready:\n{Path(folder, 'log').read_text()}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        process, node = start(sys.argv[1], folder)
        try:
            passed, failed = asyncio.run(run_all(node))
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        if failed:
            print(Path(folder, "log").read_text()[-4000:])
        print(f"smoke: {passed} passed, {failed} failed")
        sys.exit(failed != 0)


main()
