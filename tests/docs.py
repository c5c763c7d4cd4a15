"""The documents say what the code does: links, names, words and codes exist, examples run, shown configurations are good ones.

Method: the documents are read as text and held against the sources and against `docs/config.md`, which the program prints. The clients of
`docs/protocol.md` are taken out of it and run, one in Python and one in Chromium, against two nodes over a real Redis, of which one is stopped
under them (`doc_examples.py`). Run by `make test`:
    target/venv/bin/python tests/docs.py target/debug/ws-cluster
The last line is `docs: N passed, N failed`.
"""

import asyncio
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from doc_examples import run_examples
from documents import GUIDES, ROOT, below, blocks, prose, read, sources
from running import Report

# What documents name of other programs.
FOREIGN = {"tcp_mem"}


def anchors(text):
    """The fragments of a page's headings, as GitHub makes them."""
    found, seen = set(), {}
    for title in re.findall(r"^#{1,6} +(.*?)\s*$", prose(text), re.M):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_").replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        found.add(slug if count == 0 else f"{slug}-{count}")
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def check_links():
    for name in below("", ".md"):
        text = prose(read(name))
        for target in re.findall(r"\]\(<?([^)>\s]+)>?\)", text) + re.findall(r'<(?:img src|a href)="([^"]+)"', text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            page = (ROOT / name).parent.joinpath(path) if path else ROOT / name
            assert page.exists(), f"{name}: {target}: there is no such file"
            if anchor and page.suffix == ".md":
                assert anchor in anchors(page.read_text()), f"{name}: {target}: there is no such heading"


def check_paths():
    """Files and folders that are named without being linked."""
    for name in GUIDES:
        for path in re.findall(r"`((?:tests|deploy|docs|perf|loadtest|src)/[\w./-]+)`", prose(read(name))):
            assert (ROOT / path).exists(), f"{name}: there is no {path}"


def check_examples():
    """What is shown as JSON is JSON, and every path of the HTTP API is in the protocol."""
    for name in GUIDES:
        for line in "\n".join(blocks(read(name), "json")).splitlines():
            assert not line.strip() or isinstance(json.loads(line), dict), f"{name}: {line}"
    for path in json.loads(read("docs/openapi.json"))["paths"]:
        assert path in read("docs/protocol.md"), f"docs/protocol.md lacks {path}"


def config_keys():
    return set(re.findall(r"^\| `([a-z_.]+)` \|", read("docs/config.md"), re.M))


def metrics():
    return set(re.findall(r'"((?:ws|request)_[a-z_]+)"', sources()))


def told(text):
    """What a page names in backticks, and what its queries name."""
    return re.findall(r"`([^`\n]+)`", prose(text)) + blocks(text, "promql")


def check_names():
    keys, known = config_keys(), metrics()
    words = set(re.findall(r"\w+", sources() + read("docs/config.md") + shipped()))
    for name in GUIDES:
        for span in told(read(name)):
            for word in re.findall(r"\b(?:ws|request)_[a-z_]+(?![a-z_*-])", span):
                bare = re.sub(r"_(bucket|sum|count)$", "", word)
                assert {word, bare} & (known | keys), f"{name}: there is no metric or key {word}"
            for word in re.findall(r"(?<![\w./-])[a-z]+(?:_[a-z0-9]+)+(?![\w*])", span):
                word = re.sub(r"^(request_\w+)_(bucket|sum|count)$", r"\1", word)
                assert word in FOREIGN | words, f"{name}: nothing is called {word}"


def shipped():
    """What is deployed beside the program, as text."""
    return "\n".join(read(name) for name in below("deploy/") + below("Jenkinsfile") + below("Dockerfile"))


def check_endpoints():
    routes = set(re.findall(r'"(/[a-z0-9/._-]+)"', sources()))
    # A literal that ends in a slash is the beginning of others: a tag's path, a profile's.
    prefixes = tuple(route for route in routes if re.fullmatch(r"/\w+/\w+/|/demo/|/swagger/", route))
    for name in GUIDES:
        for path in re.findall(r"(?<![\w.}])(/(?:ws|v1|admin|debug|swagger)/[a-z0-9/.-]+)", read(name)):
            path = path.rstrip(".")
            assert path in routes or path.startswith(prefixes), f"{name}: there is no {path}"


def flags():
    of_sign = re.findall(r"pub ([a-z_]+): (?:Option<|String|bool)", read("src/config/sign.rs"))
    return config_keys() | set(of_sign) | {"config", "help", "version", "type"}


def check_flags():
    known = flags()
    for name in GUIDES:
        text = read(name).replace("\\\n", " ")
        commands = re.findall(r"^(?:\S*/)?ws-cluster ([^\n]*)", text, re.M) + re.findall(r"`(?:ws-cluster )?([a-z ]*--[^`\n]+)`", prose(text))
        for command in commands:
            for flag in re.findall(r"(?<!\S)--([a-z][a-z0-9_-]*)", command):
                assert flag.replace("-", "_") in known, f"{name}: there is no flag --{flag}"


# The ways in which the code writes an `err`.
ERR_PATTERNS = [
    r'(?:Fault|Self)::new\(\s*StatusCode::\w+,\s*"(\w+)"', r'\berr: "(\w+)"', r'\bState::\w+ => "(\w+)"', r'"err":"(\w+)"',
    r'\bErr\(\("(\w+)"', r'\((?:4\d\d|503), "(\w+)"', r'Count::Requests\w+, "(\w+)"', r'refused = \("(\w+)"',
    r'FollowRefused::\w+\) => "(\w+)"', r'\back_id, "(\w+)"',
]  # fmt: skip


def err_words():
    """The stable words of the code, tests aside."""
    names = [name for name in below("src/", ".rs") if not name.endswith("tests.rs")]
    code = "\n".join(re.split(r"^#\[cfg\(test\)\]\nmod tests \{", read(name), flags=re.M)[0] for name in names)
    functions = re.findall(r"pub fn err\(self\) -> &'static str \{.*?\n    \}", code, re.S)
    words = set(re.findall(r'(?:=>|\{) "(\w+)"', "\n".join(functions)))
    for pattern in ERR_PATTERNS:
        words |= set(re.findall(pattern, code))
    # A node that is ready is no error.
    return {word for word in words if re.fullmatch(r"[a-z]+(_[a-z]+)*", word)} - {"ready"}


def check_err_words():
    table = read("docs/protocol.md").split("## Error words")[1].split("\n## ")[0]
    listed = {word for row in re.findall(r"^\| (`.*?) \|", table, re.M) for word in re.findall(r"`(\w+)`", row)} - {"err"}
    missing = err_words() - listed
    assert not missing, f"docs/protocol.md lacks {sorted(missing)}"
    code = sources() + shipped()
    invented = {word for word in listed if f'"{word}"' not in code}
    assert not invented, f"docs/protocol.md invents {sorted(invented)}"


def check_close_codes():
    module = re.search(r"pub mod close_code \{(.*?)\n\}", read("src/protocol/frame.rs"), re.S)[1]
    known = set(re.findall(r"u16 = (\d{4});", module))
    table = read("docs/protocol.md").split("## Close codes")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| (\d{4}) \|", table, re.M))
    assert listed == known, f"close codes: {sorted(listed ^ known)}"


def check_alerts():
    rules = ROOT / "deploy/prometheus/alerts.yml"
    assert rules.exists(), "deploy/prometheus/alerts.yml"
    text, operating = rules.read_text(), read("docs/operating.md")
    for alert in re.findall(r"^\s*- alert: (\w+)", text, re.M):
        assert re.search(rf"^#+ {alert}$", operating, re.M), f"docs/operating.md has no section {alert}"
    for anchor in re.findall(r"operating\.md#([\w-]+)", text):
        assert anchor in anchors(operating), f"docs/operating.md has no heading for #{anchor}"


def check_rights():
    """What a node's user may do in Redis, as the tests over Redis grant it."""
    tests, shown = ROOT / "tests/topologies.rs", " ".join(read("docs/operating.md").split())
    for name in ("RIGHTS", "RIGHTS_AT_SENTINELS"):
        block = re.search(rf"const {name}: &\[&str\] =\s*&\[(.*?)\];", tests.read_text(), re.S)[1]
        granted = " ".join(re.findall(r'"([^"]+)"', block))
        assert f" {granted} " in shown, f"docs/operating.md: {name} is {granted}"


def check_queries(folder):
    """Prometheus' own parser reads what is shown as a query."""
    assert shutil.which("promtool"), "promtool is not installed: .ci/setup installs it (Debian package prometheus)"
    watched = read("docs/operating.md").split("## Metrics to watch")[1].split("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", watched, re.M)[2:]
    queries = [span for row in rows for span in re.findall(r"`([^`]+)`", row) if re.match(r"ws_|[a-z_]+(?: by)? ?\(", span)]
    queries += [line for name in ("README.md", "README.zh.md") for line in "\n".join(blocks(read(name), "promql")).splitlines() if line]
    assert len(queries) > 20, queries
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = Path(folder, "queries.yml")
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def check_twins():
    english, chinese = read("README.md"), read("README.zh.md")
    levels = [re.findall(r"^(#+) ", prose(text), re.M) for text in (english, chinese)]
    assert levels[0] == levels[1], f"headings: {len(levels[0])} in README.md, {len(levels[1])} in README.zh.md"
    for language in ("sh", "console", "promql", "toml", "text"):
        assert blocks(english, language) == blocks(chinese, language), f"the blocks of {language} differ"
    assert english.count("docs/images/") == chinese.count("docs/images/")


def check_measured():
    """The READMEs' table is that of the recorded results, where every round stands."""
    def rows(text):
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]

    marks = r"<!-- perf/bench/run --write -->\n(.*?)<!-- end -->"
    english, chinese = (rows(re.search(marks, read(name), re.S)[1]) for name in ("README.md", "README.zh.md"))
    recorded = rows(read(re.search(r"\[speed\]\((.*?)\)", read("README.md"))[1]).split("\n## ")[0])
    assert len(english) > 10 and english == recorded, "README.md has another table than the results that it names"
    assert [row[1:] for row in chinese] == [row[1:] for row in recorded], "README.zh.md has other figures"


def check_protocols():
    """The Chinese protocol shows the same, the clients aside, and has the same words and codes."""
    english, chinese = read("docs/protocol.md"), read("docs/protocol.zh.md")
    shown = [re.findall(r"^```.*?^```", text, re.M | re.S) for text in (english, chinese)]
    assert [block for block in shown[0] if "class Feed" not in block] == shown[1], "the blocks differ"
    rows = [[re.findall(r"`(\w+)`|^\| (\d{4}) ", row) for row in re.findall(r"^\| (?:`\w+`[^|]*|\d{4} )\|", text, re.M)] for text in (english, chinese)]
    for one, other in zip(*rows, strict=True):
        assert one == other, f"{one} in English, {other} in Chinese"


def check_configurations(binary, folder):
    for name in GUIDES:
        for number, block in enumerate(blocks(read(name), "toml")):
            file = Path(folder, f"{Path(name).stem}-{number}.toml")
            file.write_text(block)
            checked = subprocess.run([binary, "check", "--env", "prod", "--config", file], capture_output=True, text=True)
            assert checked.returncode == 0, f"{name}: {checked.stderr}\n{block}"


def check_vectors(binary):
    text = read("docs/protocol.md")
    vectors = re.findall(r"^secret +(\S+)\n(.*)\ncanonical +(\S+)\nsign +(\S+)$", text, re.M)
    assert len(vectors) == 2, vectors
    for secret, what, canonical, expected in vectors:
        assert hmac.new(secret.encode(), canonical.encode(), hashlib.sha256).hexdigest() == expected, canonical
        if " with the body " in what:
            body = what.split(" with the body ")[1]
            assert f"body_sha256={hashlib.sha256(body.encode()).hexdigest()}&" in canonical, body
    secret = vectors[0][0]
    shown = {"hmac": hmac, "hashlib": hashlib, "quote": quote}
    exec(next(block for block in blocks(text, "python") if block.startswith("def sign(")), shown)
    assert shown["sign"](secret, {"pid": 1, "uid": "alice b", "type": 1, "exp": 1900000000}) == vectors[0][3]
    made = subprocess.run([binary, "sign", "connect", "--uid", "alice b"], capture_output=True, text=True, check=True).stdout
    params = dict(parse_qsl(urlsplit(made.strip()).query))
    assert shown["sign"](secret, {name: params[name] for name in ("pid", "uid", "type", "exp")}) == params["sign"], made


def main():
    report, binary = Report("docs"), str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        for what, check in (
            ("every link and anchor of every page leads somewhere", check_links),
            ("every file that is named exists", check_paths),
            ("what is shown as JSON is JSON, and every call of the API is described", check_examples),
            ("every metric, key and field that is named exists", check_names),
            ("every endpoint that is named exists", check_endpoints),
            ("every flag that is named exists", check_flags),
            ("docs/protocol.md has every error word, and no other", check_err_words),
            ("docs/protocol.md has every close code, and no other", check_close_codes),
            ("docs/operating.md has a section for every alert", check_alerts),
            ("docs/operating.md has the rights in Redis that the tests grant", check_rights),
            ("the two READMEs are in step", check_twins),
            ("so are the two pages of the protocol", check_protocols),
            ("the table of figures is that of the recorded rounds", check_measured),
            ("every query that is shown is one", lambda: check_queries(folder)),
            ("every configuration that is shown is a good one", lambda: check_configurations(binary, folder)),
            ("the test vectors of signing are right", lambda: check_vectors(binary)),
        ):
            with report.check(what):
                check()
    asyncio.run(run_examples(report, binary))
    report.end()


main()
