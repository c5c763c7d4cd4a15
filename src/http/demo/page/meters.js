// Numbers that change: a latency with its recent past, and counters.

const SAMPLES_MAX = 60;
const WIDTH = 120;
const HEIGHT = 32;

const shown = ms => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toString());

/** The last value, a line of the recent ones, and what is usual among them. */
export class Meter {
  #samples = [];
  #value;
  #line;
  #summary;

  constructor(name) {
    this.#value = document.getElementById(name);
    this.#line = document.querySelector(`#${name}-line polyline`);
    this.#summary = document.getElementById(`${name}-summary`);
  }

  /** Takes a latency in milliseconds. */
  note(ms) {
    const value = Math.max(ms, 0);
    this.#samples.push(value);
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
    this.#value.textContent = shown(value);
    const sorted = [...this.#samples].sort((one, other) => one - other);
    const at = share => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)];
    this.#summary.textContent = `half within ${shown(at(0.5))} ms, 95 % within ${shown(at(0.95))} ms`;
    this.#draw(Math.max(sorted.at(-1), 1));
  }

  #draw(most) {
    const step = WIDTH / (SAMPLES_MAX - 1);
    const start = SAMPLES_MAX - this.#samples.length;
    const point = (value, index) => `${((start + index) * step).toFixed(1)},${(HEIGHT - 2 - (value / most) * (HEIGHT - 4)).toFixed(1)}`;
    this.#line.setAttribute("points", this.#samples.map(point).join(" "));
  }
}

/** Counters that show themselves in the elements of their names. */
export class Counters {
  #counts = {};

  constructor(names) {
    for (const name of names) this.#counts[name] = 0;
  }

  add(name, count = 1) {
    this.#counts[name] += count;
    const text = name === "bytes" ? bytes(this.#counts[name]) : this.#counts[name].toLocaleString("en");
    document.getElementById(name).textContent = text;
  }
}

function bytes(count) {
  if (count < 1024) return `${count} B`;
  return count < 1024 ** 2 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 ** 2).toFixed(1)} MiB`;
}
