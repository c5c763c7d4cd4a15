#!/usr/bin/env python3
"""What an append costs Redis, by its publications and by the nodes that listen: CPU time of a Redis that does nothing else.

    sudo chrt -f 10 taskset -c 1 perf/scaling/redis_costs.py [--cpu 0]

One connection calls the append script of `src/broker/redis/append.lua` again and again, others listen; Redis has a CPU of its own. The figures go
to `parameters.toml`, [redis].
"""

import argparse
import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "src/broker/redis/append.lua"
KEYS = ["{ws:0}:" + name for name in ("log", "meta", "seqs", "marks")]
LIVE, LOG_BYTES, ENTRIES_MAX = "{ws:0}:live", 256 << 20, 1_000_000


class Connection:
    def __init__(self, port):
        self.socket, self.rest = socket.create_connection(("127.0.0.1", port)), b""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self.answer()

    def line(self):
        while b"\r\n" not in self.rest:
            self.rest += self.socket.recv(1 << 16)
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def answer(self):
        line = self.line()
        if line[:1] == b"*":
            return [self.answer() for _ in range(int(line[1:]))]
        if line[:1] != b"$" or line == b"$-1":
            return line
        length = int(line[1:])
        while len(self.rest) < length + 2:
            self.rest += self.socket.recv(1 << 16)
        text, self.rest = self.rest[:length], self.rest[length + 2 :]
        return text

    def listen(self):
        """Subscribes, and reads for ever."""
        self("SUBSCRIBE", LIVE)

        def drain():
            with contextlib.suppress(OSError):
                while self.socket.recv(1 << 20):
                    pass

        threading.Thread(target=drain, daemon=True).start()


def cost(cpu, listeners, records, record_bytes, appends):
    """CPU microseconds of Redis an append."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["taskset", "-c", str(cpu), "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            connection = connected(port)
            for _ in range(listeners):
                connected(port).listen()
            info = connection("INFO", "server").decode().splitlines()
            run = next(line for line in info if line.startswith("run_id:")).removeprefix("run_id:")
            script = connection("SCRIPT", "LOAD", f"local RUN, PUBLISH = '{run}', 'PUBLISH'\n{SCRIPT.read_text()}")
            connection("HSET", KEYS[1], "run", run, "epoch", 5, "offset", 0, "sealed", 1, "open_at", 0, "bytes", 0)
            batch, used = os.urandom(record_bytes * records), lambda: int(Path(f"/proc/{redis.pid}/schedstat").read_text().split()[0])
            before = 0
            for number in range(appends + 300):
                if number == 300:
                    before = used()
                prev = number * records
                numbers = [5, "00aabbccddeeff11", prev, prev + records, 1, 0, LOG_BYTES // 256, LOG_BYTES, ENTRIES_MAX, 0]
                answer = connection("EVALSHA", script, 4, *KEYS, *numbers, batch, LIVE)
                assert answer[0] == b"stored", answer
            return (used() - before) / appends / 1e3
        finally:
            redis.kill()
            redis.wait()


def connected(port):
    for _ in range(100):
        try:
            return Connection(port)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit("Redis does not listen")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cpu", type=int, default=0, help="that Redis is bound to")
    arguments.add_argument("--appends", type=int, default=3000)
    given = arguments.parse_args()
    print("| listeners | publications an append | µs an append | µs a publication |\n|---|---|---|---|")
    for listeners in (2, 10, 30):
        for records in (1, 20):
            us = cost(given.cpu, listeners, records, 300, given.appends)
            print(f"| {listeners} | {records} | {us:.1f} | {us / records:.2f} |", flush=True)


if __name__ == "__main__":
    main()
