"""The small part of the Autobahn run that is no shell: the test suite's input from cases.json, and the verdict on its report.

Python 2.7 and 3, standard library only: it runs under whichever interpreter there is.

    suite.py spec cases.json URL OUT SET...          writes OUT/spec.json (several sets are joined)
    suite.py spec cases.json URL OUT --cases 6.*,9.1.1
    suite.py verdict OUT                             reads OUT/index.json and OUT/wstest.log; exit status 1 if a case failed
    suite.py port                                    prints a free port of 127.0.0.1
"""
from __future__ import print_function

import json
import os
import re
import socket
import sys

# What a server may do in a case. NON-STRICT: allowed by the RFC, though the suite prefers another way.
# INFORMATIONAL: the suite observes without a verdict (some of 7.x: what a peer does with unusual close codes).
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
AGENT = "ws-cluster"


def write_spec(cases_file, url, out, wanted):
    with open(cases_file) as handle:
        sets = json.load(handle)
    if wanted[:1] == ["--cases"]:
        cases, excluded = wanted[1].split(","), []
    else:
        unknown = [name for name in wanted if name not in sets]
        if unknown:
            sys.exit("no such set: %s (there are: %s)" % (", ".join(unknown), ", ".join(sorted(sets))))
        cases = [case for name in wanted for case in sets[name]["cases"]]
        excluded = [case for name in wanted for case in sets[name]["exclude-cases"]]
    spec = {
        "outdir": out,
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": excluded,
        "exclude-agent-cases": {},
    }
    with open(os.path.join(out, "spec.json"), "w") as handle:
        json.dump(spec, handle, indent=2)


def verdict(out):
    results = read_results(out)
    announced = announced_cases(out)
    counts, bad = {}, []
    for case in sorted(results, key=lambda case: [int(part) for part in case.split(".")]):
        result = results[case]
        behaviors = (result["behavior"], result["behaviorClose"])
        counts[behaviors[0]] = counts.get(behaviors[0], 0) + 1
        if not GOOD.issuperset(behaviors):
            bad.append((case, behaviors, result.get("reportfile", "")))
    # A server that dies midway leaves a short report in which everything passed.
    missing = max(announced - len(results), 0) if announced else 1
    print_details(out, results, counts, bad, missing)
    failed = len(bad) + missing
    print("%d passed, %d failed" % (len(results) - len(bad), failed))
    return 1 if failed or not results else 0


def read_results(out):
    try:
        with open(os.path.join(out, "index.json")) as handle:
            return json.load(handle).get(AGENT, {})
    except (IOError, OSError, ValueError) as problem:
        print("no report: %s" % problem)
        return {}


def announced_cases(out):
    with open(os.path.join(out, "wstest.log")) as handle:
        found = re.search(r"will run (\d+) test cases", handle.read())
    return int(found.group(1)) if found else 0


def print_details(out, results, counts, bad, missing):
    for case, (behavior, close), report in bad:
        print("failed: case %s: %s, closing: %s (%s)" % (case, behavior, close, os.path.join(out, report)))
    if missing:
        print("failed: %d cases of the run have no result (did the server or wstest end early?)" % missing)
    slowest = sorted(results, key=lambda case: -results[case]["duration"])[:3]
    print("behaviour: %s" % ", ".join("%s %d" % pair for pair in sorted(counts.items())))
    print("slowest: %s" % ", ".join("%s %.1f s" % (case, results[case]["duration"] / 1000.0) for case in slowest))


def free_port():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def main(arguments):
    if len(arguments) >= 5 and arguments[0] == "spec":
        return write_spec(arguments[1], arguments[2], arguments[3], arguments[4:])
    if len(arguments) == 2 and arguments[0] == "verdict":
        return verdict(arguments[1])
    if arguments == ["port"]:
        return print(free_port())
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
