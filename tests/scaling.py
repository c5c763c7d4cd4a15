"""The scaling model says what docs/scaling.md says, is the same every time, and behaves as a queue must.

Method: the model is run as people run it and held against the document; its parts are tried with loads whose answer is known. Run by `make test`:
    python3 tests/scaling.py
The last line is `scaling: N passed, N failed`.
"""

import subprocess
import sys

from documents import ROOT
from running import Report

sys.path.insert(0, str(ROOT / "perf/scaling"))
import model  # noqa: E402
import queueing  # noqa: E402


def check_document():
    program = [sys.executable, str(ROOT / "perf/scaling/model.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def scene(parameters, **more):
    return {**model.measured_scene(parameters["measured"][0]), "seconds": 0.3, **more}


def check_same_again():
    parameters = model.load()
    first, again = (queueing.latencies(parameters, scene(parameters)) for _ in range(2))
    assert first == again, "the same seed, another outcome"
    other, _ = queueing.latencies(parameters, scene(parameters, seed=7))
    assert other != first[0], "another seed, the same outcome"


def check_nothing_is_lost():
    parameters = model.load()
    done, _ = queueing.latencies(parameters, scene(parameters, rate=5000))
    assert len(done) == 1500, f"{len(done)} of 1,500 arrived"
    assert done[0] > 0, "a publication that arrives before it leaves"


def check_latency_grows_with_load():
    parameters = model.load()
    medians = []
    for rate in (2000, 20_000, 60_000):
        done, busy = queueing.latencies(parameters, scene(parameters, rate=rate))
        medians.append(queueing.quantile(done, 0.5))
        assert all(0 < part <= 1 for part in busy.values()), busy
    assert medians == sorted(medians) and medians[2] > 2 * medians[1], medians


def check_more_nodes_cost_redis_more():
    parameters = model.load()
    loads = [model.cluster(parameters, nodes, 10_000, 2)["redis"] for nodes in (2, 10, 100)]
    assert loads == sorted(loads) and loads[2] > 2 * loads[0], loads


def check_sources():
    """Every figure says where it comes from, by itself or by its table."""
    table = ""
    for line in (ROOT / "perf/scaling/parameters.toml").read_text().splitlines():
        if line.startswith("["):
            table = line
        elif " = " in line and not line.startswith("#") and "measured" not in table:
            assert "#" in line or "#" in table, f"{table} {line}: no source"


def main():
    report = Report("scaling")
    for what, check in (
        ("the document says what the model says", check_document),
        ("the same seed has the same outcome", check_same_again),
        ("every publication arrives once", check_nothing_is_lost),
        ("latency grows with load", check_latency_grows_with_load),
        ("more nodes cost Redis more", check_more_nodes_cost_redis_more),
        ("every figure has its source", check_sources),
    ):
        with report.check(what):
            check()
    report.end()


main()
