#!/usr/bin/env python3
"""Turns what `perf/stall/run` prints into tables: median (smallest to largest) over the readers of each setting."""
import json
import statistics
import sys


def spread(values, digits=0):
    values = [value for value in values if value is not None]
    if not values:
        return "never"
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


COLUMNS = {
    "stop": [
        ("first value, ms", lambda seen: seen["first_ms"]),
        ("until a fresh one, ms", lambda seen: seen["until_fresh_ms"]),
        ("stale bytes before it", lambda seen: seen["stale_bytes"]),
        ("stale values", lambda seen: seen["stale_values"]),
    ],
    "narrow": [
        ("age p50, ms", lambda seen: seen["ages"]["p50_ms"]),
        ("age p99, ms", lambda seen: seen["ages"]["p99_ms"]),
        ("age of the last, ms", lambda seen: seen["last_ms"]),
        ("values", lambda seen: seen["ages"]["count"]),
    ],
}


def main():
    runs = [json.loads(line) for line in sys.stdin if line.strip()]
    for situation, columns in COLUMNS.items():
        mine = [run for run in runs if run["situation"] == situation]
        if not mine:
            continue
        names = ["class", "lowat", "buffer", *[name for name, _ in columns], "merged", "closed"]
        print(f"\n{situation} ({mine[0]['congestion']})\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
        for run in mine:
            readers = run["report"]["readers"]
            cells = [run["class"], run["notsent_lowat"], run["send_buffer"]]
            cells += [spread([of(seen) for seen in readers]) for _, of in columns]
            cells += [spread([seen["merged"] for seen in readers])]
            cells += [", ".join(sorted({seen["ended"] for seen in readers if seen["ended"]})) or "no"]
            print(f"| {' | '.join(cells)} |")


main()
