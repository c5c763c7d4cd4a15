"""The checked-in description of the API against a real node: schemathesis makes up calls, good and bad, and compares.

Found must be: no 5xx, no status, type, header or body that the document does not have, no bad call that is taken, and no
call without credentials that is answered otherwise than 401. The seed is fixed. Run by `make test`:
    target/venv/bin/python tests/pages/fuzz.py target/debug/ws-cluster [examples a call [another document]]
The last line is `fuzz: N passed, M failed`; an operation counts as one.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

from node import Node, connect_url, sign
from websockets.asyncio.client import connect

HERE = Path(__file__).resolve().parent
DOCUMENT = Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else HERE.parent.parent / "docs" / "openapi.json"
# The name that the document has as its example: a body that repeats it is a good one.
PID, SECRET = "alice", "a-secret-for-the-made-up-calls"
CONFIG = f"""
[limits]
failed_credentials_per_minute = 1000000
[[projects]]
pid = "{PID}"
secrets = ["{SECRET}"]
"""
# The very same calls under a second path; the browser tries them too.
ALIASES = "^/v1/push"
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance",
    "ignored_auth", "every_line_is_answered",
]  # fmt: skip


def publish(address, tag, data):
    params = {"pid": PID, "exp": int(time.time()) + 60, "tags": tag, "data": data}
    params["sign"] = sign(SECRET, params.items())
    target = f"http://{address}/ws/push?" + urlencode(params, quote_via=quote)
    urllib.request.urlopen(urllib.request.Request(target, method="POST"), timeout=20).close()


def schemathesis(node, folder, examples):
    environment = os.environ | {
        "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks", "FUZZ_PID": PID, "FUZZ_SECRET": SECRET,
        "FUZZ_ANSWERS": str(folder / "answers.json"), "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    command += [str(DOCUMENT), "--url", f"http://{node.http}", "--seed", "20261127"]
    command += ["--generation-database", "none", "--max-examples", str(examples), "--checks", ",".join(CHECKS)]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color", "--warnings", "off"]
    command += ["--exclude-path-regex", ALIASES, "--suppress-health-check", "all", "--request-timeout", "20", "--no-shrink"]
    return subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


async def run(binary, folder, examples):
    with Node(binary, folder / "node", "--env", "test", config=CONFIG) as node:
        publish(node.http, "demo", '{"hello":1}')
        async with connect(connect_url(node.ws, PID, SECRET, "demo", device="web")):
            return await asyncio.to_thread(schemathesis, node, folder, examples)


def main():
    examples = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ended = asyncio.run(run(sys.argv[1], folder, examples))
        print(ended.stdout)
        answers = json.loads((folder / "answers.json").read_text()) if (folder / "answers.json").exists() else {}
    for answer, times in sorted(answers.items()):
        print(f"{times:6} {answer}")
    document = json.loads(DOCUMENT.read_text())
    paths = {path: item for path, item in document["paths"].items() if not re.match(ALIASES, path)}
    operations = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    silent = [operation for operation in operations if f"{operation} 200" not in answers]
    print("never answered with 200:", silent)
    failed = set(silent) | set(re.findall(r"^_+ (\w+ /\S*) _+$", ended.stdout, re.M))
    failures = max(len(failed), 1) if failed or ended.returncode else 0
    print(f"fuzz: {len(operations) - min(failures, len(operations))} passed, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
