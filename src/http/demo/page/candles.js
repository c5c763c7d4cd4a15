// The chart: candles above their volume, as many bars as the demo remembers.

import { CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, createChart } from "./lightweight-charts.js";

const BARS_MAX = 600;
const BARS_SHOWN = 90;

export class Candles {
  #chart;
  #candles;
  #volumes;
  #colours;
  /** Bars by their time; a closed one is never replaced by one that was still open. */
  #bars = new Map();

  constructor(element) {
    this.#chart = createChart(element, {
      autoSize: true,
      // The page has the link to the library's makers in its foot: the logo would bring a style that its policy forbids.
      layout: { attributionLogo: false, fontFamily: getComputedStyle(element).fontFamily },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.06, bottom: 0.24 } },
      timeScale: { borderVisible: false, timeVisible: true, secondsVisible: true, rightOffset: 4 },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceFormat: { type: "volume" },
      priceScaleId: "",
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volumes.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.paint();
  }

  /** Takes the colours of the page's theme. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = name => style.getPropertyValue(name).trim();
    this.#colours = { up: colour("--up"), down: colour("--down"), upPale: colour("--up-pale"), downPale: colour("--down-pale") };
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: colour("--card") }, textColor: colour("--quiet") },
      grid: { vertLines: { color: colour("--grid") }, horzLines: { color: colour("--grid") } },
    });
    const { up, down } = this.#colours;
    this.#candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#draw();
  }

  /** Takes bars in any order, as far as they are new. */
  add(bars) {
    const known = bars.filter(bar => this.#take(bar));
    if (known.length === 0) return;
    this.#trim();
    this.#draw();
  }

  /** Takes a bar that was just told. */
  update(bar) {
    const last = this.last()?.time ?? 0;
    if (!this.#take(bar)) return;
    if (bar.time < last) return this.#draw();
    this.#candles.update(bar);
    this.#volumes.update(this.#volume(bar));
    this.#trim();
  }

  /** The newest bar. */
  last() {
    return [...this.#bars.values()].at(-1);
  }

  /** The oldest bar. */
  first() {
    return this.#bars.values().next().value;
  }

  /** How many bars there are. */
  get size() {
    return this.#bars.size;
  }

  #take(bar) {
    if (this.#bars.get(bar.time)?.closed) return false;
    const inOrder = bar.time >= (this.last()?.time ?? 0);
    this.#bars.set(bar.time, bar);
    if (!inOrder) this.#bars = new Map([...this.#bars].sort(([one], [other]) => one - other));
    return true;
  }

  #trim() {
    while (this.#bars.size > BARS_MAX) this.#bars.delete(this.first().time);
  }

  #draw() {
    const bars = [...this.#bars.values()];
    this.#candles.setData(bars);
    this.#volumes.setData(bars.map(bar => this.#volume(bar)));
    if (bars.length > 1) {
      this.#chart.timeScale().setVisibleLogicalRange({ from: bars.length - BARS_SHOWN, to: bars.length + 3 });
    }
  }

  #volume(bar) {
    const { upPale, downPale } = this.#colours;
    return { time: bar.time, value: bar.volume, color: bar.close >= bar.open ? upPale : downPale };
  }
}
