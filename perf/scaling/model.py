#!/usr/bin/env python3
"""What a cluster of so many nodes does under so much load: by arithmetic, and by a simulation of its queues.

    perf/scaling/model.py              print the tables of docs/scaling.md
    perf/scaling/model.py --write      put them into the document
    perf/scaling/model.py --check      fail if the document says something else

Fed with `parameters.toml`, where each figure has its source. No dependencies (Python 3.11 or later), the same output every time.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import queueing  # noqa: E402

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs/scaling.md"
US = 1e-6


def load():
    return tomllib.loads((HERE / "parameters.toml").read_text())


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value, digits=3):
    """So many digits that count, thousands with a comma."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        digits_left = max(0, len(str(int(abs(value)))) - digits)
        return f"{int(round(value, -digits_left)):,}"
    return f"{value:.{digits}g}"


def share(value):
    return f"{value * 100:.0f} %" if value >= 0.01 else f"{value * 100:.1g} %"


# ---------------------------------------------------------------------------------------------------- arithmetic


def delivery_us(p, per_core):
    """CPU of one delivery, one frame a write: between the two that were measured by the logarithm, level beyond them."""
    import math

    low, high = p["delivery"]["us_1000"], p["delivery"]["us_10000"]
    part = min(1.0, max(0.0, math.log10(max(per_core, 1)) - 3))
    return low + (high - low) * part


def cluster(p, nodes, publications, publishing, every_ms=None):
    """Load of what all share: of Redis, of a node's own thread (which follows all, or none), in CPUs; of Redis' network, in bits a second."""
    redis, node = p["redis"], p["node"]
    # An append a publication while they are rare, else one each so many milliseconds.
    batches = min(publications, publishing * 1e3 / (every_ms or node["append_every_ms"]))
    queue = batches * (redis["append_us"] + redis["announce_us"] * nodes)
    queue += publications * (redis["record_us"] + redis["announce_record_us"] * nodes)
    # Redis announces what several nodes appended one by one; a node reads what has come together.
    own = min(batches, node["turns_per_second_max"]) * node["hear_turn_us"]
    submits = min(publications / publishing, node["turns_per_second_max"])
    append = submits * node["submit_turn_us"] + (batches * node["append_turn_us"] + publications * node["append_us"]) / publishing
    follows, misses = own + publications * node["hear_us"], own + publications * node["miss_us"]
    beats = nodes * redis["beats_per_second"]
    follows, misses = follows + beats * 20, misses + beats * 20
    bits = publications * redis["record_bytes"] * 8 * nodes
    return {"redis": queue * US, "follows": (follows + append) * US, "misses": misses * US, "bits": bits, "batches": batches}


def most(load, limit):
    """The largest rate at which `load(rate)` stays within `limit`."""
    low, high = 1.0, 1e8
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if load(middle) <= limit else (low, middle)
    return low


def costs(p):
    rows = []
    for per_core in (1000, 2000, 5000, 10_000, 50_000):
        us = delivery_us(p, per_core)
        idle = per_core / p["connection"]["ping_every_s"] * p["connection"]["ping_us"] * US
        rows.append([f"{per_core:,}", number(us), number(1 / (us * US)), share(idle)])
    return table(["connections a core", "CPU µs a delivery, one frame a write", "deliveries a second of a core", "the core's share for idle ones"], rows)


def ceilings(p):
    busy, rows = p["machine"]["busy_max"], []
    for nodes in (2, 10, 30, 100):
        for publishing in (2, 10):
            if publishing > nodes:
                continue
            at = lambda rate, what, every=None: cluster(p, nodes, rate, publishing, every)[what]
            redis = most(lambda rate: at(rate, "redis"), busy)
            slower = most(lambda rate: at(rate, "redis", 5.0), busy)
            follows = most(lambda rate: at(rate, "follows", 5.0), busy)
            misses = most(lambda rate: at(rate, "misses", 5.0), busy)
            wire = most(lambda rate: at(rate, "bits"), busy * p["network"]["bits_per_second"])
            limits = {"Redis": slower, "the node's thread": follows, "Redis' network": wire}
            rows.append([str(nodes), str(publishing), number(redis), number(slower), number(follows), number(misses), number(wire), min(limits, key=limits.get)])
    head = ["nodes", "of them publish", "Redis, an append a millisecond each", "Redis, one each 5 ms", "a node's own thread, publishing and following all", "the same, following nothing", "Redis' network", "first"]
    return table(head, rows)


def grid(p):
    """1, 10 and 100 nodes, 10,000 connections a core, each with 4 of N tags."""
    rows, cores = [], p["machine"]["cores"]
    for nodes in (1, 10, 100):
        connections = nodes * cores * 10_000
        for tags, rate in ((1000, 1000), (10_000, 10_000), (10_000, 50_000)):
            load = cluster(p, nodes, rate, min(nodes, 2))
            deliveries = connections * 4 * rate / tags / (nodes * cores)
            # What waits for one socket leaves together; a connection gets this many a second.
            core = deliveries * delivery_us(p, 10_000) * US + rate * p["node"]["core_us"] * US
            wire = deliveries * cores * (p["redis"]["record_bytes"] + p["network"]["frame_overhead_bytes"]) * 8
            parts = {"Redis": load["redis"] if nodes > 1 else 0.0, "node's thread": load["follows"], "a core": core, "a node's network": wire / p["network"]["bits_per_second"]}
            first = max(parts, key=parts.get)
            rows.append([str(nodes), f"{connections:,}", f"{tags:,}", f"{rate:,}", share(parts["Redis"]) if nodes > 1 else "-", share(parts["node's thread"]), share(core), share(parts["a node's network"]), first])
    return table(["nodes", "connections", "tags", "publications/s", "Redis", "a node's own thread", "a core", "a node's network", "fullest"], rows)


def ten_million(p):
    rows, connection, machine = [], p["connection"], p["machine"]
    total = 10_000_000
    bytes_each = connection["process_bytes"] + connection["kernel_bytes"]
    for per_node in (100_000, 200_000, 500_000, 1_000_000):
        nodes = -(-total // per_node)
        memory = per_node * bytes_each
        load = cluster(p, nodes, 10_000, 2)
        storm = per_node * connection["handshake_us"] * US / machine["cores"]
        peers = nodes * p["cluster"]["peer_table_bytes"]
        beats = nodes * p["redis"]["beats_per_second"]
        rows.append([f"{per_node:,}", str(nodes), str(nodes * machine["cores"]), f"{memory / 1e9:.1f} GB", share(load["redis"]), f"{load['bits'] / 1e9:.1f} Gbit/s", number(beats), f"{peers / 1e3:.0f} kB", f"{storm:.1f} s"])
    return table(["connections a node", "nodes", "cores", "memory for them, a node", "Redis at 10,000 publications/s", "out of Redis", "signs of life a second, each to all", "a node's table of the others", "all of a node's come back: CPU time of all its cores"], rows)


# ---------------------------------------------------------------------------------------------------- simulation


def measured_scene(point):
    """As `loadtest across` was run: all processes on one CPU, the load on the other."""
    names = ["taking core", "taking node", "redis", "holding node", "holding core"]
    return {
        "rate": point["rate"], "seconds": 3.0, "seed": 1, "nodes": 2, "simulated": 1, "followed": 1.0, "deliveries": 1,
        "cpus": {name: "CPU 0" for name in names}, "publishers": 8, "every_ms": 1.0,
    }  # fmt: skip


def held_against(p):
    rows = []
    for point in p["measured"]:
        done, busy = queueing.latencies(p, measured_scene(point))
        p50, p99 = queueing.quantile(done, 0.5) * 1e3, queueing.quantile(done, 0.99) * 1e3
        off = lambda said, was: f"{(said / was - 1) * 100:+.0f} %"
        rows.append([f"{point['rate']:,}", share(point["busy"]), share(busy["CPU 0"]), f"{point['p50_ms']:.2f}", f"{p50:.2f}", off(p50, point["p50_ms"]), f"{point['p99_ms']:.2f}", f"{p99:.2f}", off(p99, point["p99_ms"])])
    return table(["publications/s", "CPU busy, measured", "model", "p50 ms, measured", "model", "off", "p99 ms, measured", "model", "off"], rows)


def latency_by_load(p):
    """Each process with a CPU of its own; a publication is written to 100 subscribers of one core of each node that follows."""
    rows = []
    for nodes in (2, 10, 30):
        for rate in (1000, 10_000, 20_000, 40_000, 80_000):
            scene = {
                "rate": rate, "seconds": 30_000 / rate if rate > 10_000 else 2.0, "seed": 2, "nodes": nodes, "simulated": min(nodes, 3),
                "followed": 0.02, "deliveries": 100, "publishers": 8, "every_ms": 1.0,
            }  # fmt: skip
            done, busy = queueing.latencies(p, scene)
            values = [queueing.quantile(done, q) * 1e3 for q in (0.5, 0.99, 0.999)]
            fullest = max(busy, key=busy.get)
            rows.append([str(nodes), f"{rate:,}", *[f"{value:.2f}" for value in values], share(busy["redis"]), share(busy["taking node"]), f"{fullest} {share(busy[fullest])}"])
    return table(["nodes", "publications/s", "p50 ms", "p99 ms", "p99.9 ms", "Redis busy", "the publishing node's thread", "fullest"], rows)


TABLES = {"costs": costs, "ceilings": ceilings, "grid": grid, "ten-million": ten_million, "held-against": held_against, "latency-by-load": latency_by_load}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true", help="put the tables into the document")
    arguments.add_argument("--check", action="store_true", help="fail if the document says something else")
    given = arguments.parse_args()
    parameters = load()
    tables = {name: make(parameters) for name, make in TABLES.items()}
    if not (given.write or given.check):
        for name, text in tables.items():
            print(f"{name}\n\n{text}\n")
        return 0
    text = before = DOCUMENT.read_text()
    for name, made in tables.items():
        block = re.compile(rf"(<!-- model: {name} -->\n)[^<]*(<!-- end -->)")
        if not block.search(text):
            print(f"{DOCUMENT.name} has no table {name}")
            return 1
        text = block.sub(lambda found: found[1] + made + "\n" + found[2], text)
    if given.write:
        DOCUMENT.write_text(text)
    elif text != before:
        print(f"{DOCUMENT.name} differs from what the model says; see perf/scaling/model.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
