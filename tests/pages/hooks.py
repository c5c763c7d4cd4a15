"""What schemathesis is told of this API: how calls are signed, how lines are written, and what more must hold.

Method: the sign is made from the request as it leaves, so that it is right whatever was generated. What was generated
for `pid`, `exp`, `sign` and `token` is left out where good calls are wanted, and kept where bad ones are.
"""

import atexit
import hashlib
import json
import os
import time
from collections import Counter
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import requests
import schemathesis
from hypothesis import strategies as st
from node import sign
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode

PID, SECRET = os.environ["FUZZ_PID"], os.environ["FUZZ_SECRET"]
LINES, FORM = "application/x-ndjson", "application/x-www-form-urlencoded"
CREDENTIALS = ("pid", "exp", "sign", "token")
answers = Counter()


class Signed(requests.auth.AuthBase):
    def __call__(self, request):
        url = urlsplit(request.url)
        query = parse_qsl(url.query, keep_blank_values=True)
        given = {name for name, _ in query}
        if url.path in ("/live", "/ready", "/health") or given & {"sign", "token"}:
            return request
        query += [(name, value) for name, value in (("pid", PID), ("exp", str(int(time.time()) + 60))) if name not in given]
        covered, body = list(query), request.body or b""
        body = body.encode() if isinstance(body, str) else body
        if request.headers.get("Content-Type", "").startswith(FORM):
            covered += parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
        elif body:
            covered.append(("body_sha256", hashlib.sha256(body).hexdigest()))
        query.append(("sign", sign(SECRET, covered)))
        request.url = urlunsplit(url._replace(query=urlencode(query, quote_via=quote)))
        return request


schemathesis.auth.set_from_requests(Signed())


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Examples of lines are tried in the browser; here they could not be told from a made-up body."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            operation.get("requestBody", {}).get("content", {}).get(LINES, {}).pop("example", None)


def is_about_credentials(case):
    """Whether something in the query is wrong on purpose that may be the credentials."""
    part = case.meta and case.meta.components.get(ParameterLocation.QUERY)
    if not part or part.mode is not GenerationMode.NEGATIVE:
        return False
    return getattr(case.meta.phase.data, "parameter", None) in (None, *CREDENTIALS)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.query and not is_about_credentials(case):
        for name in CREDENTIALS:
            case.query.pop(name, None)


@schemathesis.hook
def after_call(context, case, response):
    answers[f"{case.method.upper()} {case.operation.path} {response.status_code}"] += 1


@atexit.register
def write_answers():
    with open(os.environ["FUZZ_ANSWERS"], "w") as file:
        json.dump(answers, file)


names = st.text(st.characters(exclude_categories=("C",), exclude_characters=","), min_size=1, max_size=8)
tags = st.from_regex(r"[A-Za-z0-9_.:@/-]{1,12}", fullmatch=True)
data = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), st.lists, max_leaves=4)
pushes = st.fixed_dictionaries(
    {},
    optional={"tags": st.lists(tags | names, max_size=3), "uids": st.lists(names) | names, "all": st.booleans(), "data": data},
)
line = (pushes | data).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20) | st.just(b"  ")
schemathesis.openapi.media_type(LINES, st.lists(line, max_size=6).map(b"\n".join))


@schemathesis.serializer(LINES)
def lines(context, value):
    return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.check
def every_line_is_answered(context, response, case):
    """A batch's answer has the shape of a whole answer in every line, and as many lines as were sent."""
    if not case.operation.path.endswith("/batch") or response.status_code != 200:
        return
    body = response.request.body or b""
    sent = [line for line in (body.encode() if isinstance(body, str) else body).split(b"\n") if line.strip(b"\t\n\x0c\r ")]
    told = [json.loads(line) for line in response.content.splitlines()]
    assert len(told) == len(sent), (sent, told)
    for answer in told:
        good = answer["code"] == 1 and isinstance(answer["payload"]["id"], str)
        bad = answer["code"] == 0 and isinstance(answer["err"], str) and isinstance(answer["msg"], str)
        assert good != bad, answer
