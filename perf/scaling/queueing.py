"""Publications through publisher, log, queue and nodes, event by event, in virtual time. Seeded: the same every time.

A station is a thread: it sleeps until something is there, takes all that waits, works for as long as a turn and its items take, and hands on what
it made. Stations share CPUs: whoever is ready first works first, and a turn is not interrupted. That is what the node does everywhere
(`docs/ARCHITECTURE.md`): no station has a tick, batches are what gathered meanwhile, but for the log's gather time.
"""

import heapq
import itertools
import math
import random


class World:
    """The clock, the CPUs, and the noise."""

    def __init__(self, seed, spread):
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.random, self.spread = random.Random(seed), spread
        self.busy, self.ready, self.used, self.turns = set(), {}, {}, {}

    def at(self, when, what):
        heapq.heappush(self.events, (when, next(self.order), what))

    def run(self):
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()

    def wake(self, station):
        """The station has something to do: it works when its CPU is free."""
        if not station.is_awake:
            station.is_awake = True
            self.ready.setdefault(station.cpu, []).append(station)
            self.next_on(station.cpu)

    def next_on(self, cpu):
        if cpu in self.busy or not self.ready.get(cpu):
            return
        self.busy.add(cpu)
        station = self.ready[cpu].pop(0)
        items, station.waiting = station.take()
        took = self.noisy(station.time(items)) if items else 0.0
        self.used[station.name] = self.used.get(station.name, 0.0) + took
        self.turns[station.name] = self.turns.get(station.name, 0) + 1
        self.at(self.now + took, lambda: self.done(station, items))

    def done(self, station, items):
        self.busy.discard(station.cpu)
        station.is_awake = False
        if items:
            station.hand_on(items)
        if station.has_work():
            self.wake(station)
        self.next_on(station.cpu)

    def noisy(self, mean):
        """Log-normal around a mean: never negative, now and then long."""
        sigma = math.sqrt(math.log(1 + self.spread**2))
        return mean * math.exp(self.random.gauss(-sigma * sigma / 2, sigma))


class Station:
    """A thread. `time(items)` is in seconds; `hand_on(items)` says what becomes of them."""

    def __init__(self, world, name, cpu, time, hand_on):
        self.world, self.name, self.cpu, self.time, self.hand_on = world, name, cpu, time, hand_on
        self.waiting, self.is_awake = [], False

    def put(self, items):
        self.waiting.extend(items)
        if self.has_work():
            self.world.wake(self)

    def take(self):
        return self.waiting, []

    def has_work(self):
        return bool(self.waiting)


def latencies(parameters, scene):
    """Seconds from the intended time to the last subscriber's write, sorted, and how busy each CPU was (0 to 1).

    `scene`: rate (publications a second, all nodes together), seconds, seed, nodes, followed (part of the publications that a node has subscribers
    for, deliveries (of a publication at a node that follows), is_redis, cpus (station to CPU; missing: its own), publishers, every_ms.
    """
    node, redis, delivery = parameters["node"], parameters["redis"], parameters["delivery"]
    world = World(scene["seed"], node["spread"])
    us, done, cpus = 1e-6, [], scene.get("cpus", {})
    place = lambda name: cpus.get(name, name)
    state = {"flying": False, "gather_until": 0.0}
    log_queue = []

    def taken(items):
        exchange.put([("submit", what) for kind, what in items if kind == "push"])

    def take_time(items):
        return (node["take_turn_us"] + node["take_us"] / 2 * len(items)) * us

    taking = Station(world, "taking core", place("taking core"), take_time, taken)

    def exchange_time(items):
        submits = sum(kind == "submit" for kind, _ in items)
        heard = sum(len(batch) for kind, batch in items if kind == "heard")
        answers = sum(kind == "answered" for kind, _ in items)
        turns = node["append_turn_us"] * answers + node["hear_turn_us"] * sum(kind == "heard" for kind, _ in items)
        turns += node["submit_turn_us"] * (submits > 0)
        return (turns + node["append_us"] * submits + node["miss_us"] * heard) * us

    def exchanged(items):
        for kind, what in items:
            if kind == "submit":
                log_queue.append(what)
            elif kind == "answered":
                state["flying"] = False
                taking.put([("answer", one) for one in what])
        append()

    def append():
        if state["flying"] or not log_queue:
            return
        if world.now < state["gather_until"] and len(log_queue) < node["batch_max"]:
            world.at(state["gather_until"] + 1e-9, append)
            return
        batch = log_queue[: node["batch_max"]]
        del log_queue[: node["batch_max"]]
        state["flying"] = True
        if len(batch) > 1:
            state["gather_until"] = world.now + node["append_every_ms"] * 1e-3
        queue.put([batch])

    exchange = Station(world, "taking node", place("taking node"), exchange_time, exchanged)

    def queue_time(items):
        nodes = scene["nodes"]
        per_batch = redis["append_us"] + redis["announce_us"] * nodes
        per_record = redis["record_us"] + redis["announce_record_us"] * nodes
        return sum(per_batch + per_record * len(batch) for batch in items) * us

    def appended(items):
        for batch in items:
            exchange.put([("answered", batch), ("heard", batch)])
            for other in hearing:
                other.put([batch])

    queue = Station(world, "redis", place("redis"), queue_time, appended)

    def hear_time(items):
        records = sum(len(batch) for batch in items)
        return (node["hear_turn_us"] + node["hear_us"] * records) * us

    def hand_to(core):
        def heard(items):
            followed = [one for batch in items for one in batch if world.random.random() < scene["followed"]]
            if followed:
                core.put(followed)
        return heard

    per_delivery = delivery["us_1000"] if scene.get("per_core", 1000) <= 1000 else delivery["us_10000"]

    def deliver_time(items):
        return (node["core_turn_us"] + (node["core_us"] + per_delivery * scene["deliveries"]) * len(items)) * us

    def delivered(items):
        done.extend(world.now - due for due in items)

    deliver, hearing = [], []
    for at in range(scene["simulated"]):
        number = "" if at == 0 else f" {at}"
        deliver.append(Station(world, f"holding core{number}", place("holding core" + number), deliver_time, delivered))
        name = "holding node" + number
        hearing.append(Station(world, name, place(name), hear_time, hand_to(deliver[-1])))

    # Back-ends write what has become due every so often, one after the other.
    publishers, every = scene["publishers"], scene["every_ms"] * 1e-3
    count = int(scene["rate"] * scene["seconds"])
    writes = {}
    for number in range(count):
        due, at = number / scene["rate"], number % publishers
        phase = every * at / publishers
        write = due if every == 0 else phase + every * math.ceil(max(0.0, due - phase) / every)
        writes.setdefault((write, at), []).append(due)
    for (write, _), dues in writes.items():
        world.at(write, lambda dues=dues: taking.put([("push", due) for due in dues]))
    world.run()
    if "detail" in scene:
        scene["detail"].update({name: (world.turns[name] / world.now, world.used[name] / world.now) for name in world.used})
    done.sort()
    by_cpu = {}
    for name, used in world.used.items():
        by_cpu[place(name)] = by_cpu.get(place(name), 0.0) + used
    return done, {cpu: used / world.now for cpu, used in by_cpu.items()}


def quantile(values, part):
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")
