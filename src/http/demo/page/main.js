// The demo page: puts the chart, the connection, the meters and the push form together.

import { history, push } from "./calls.js";
import { Candles } from "./candles.js";
import { Connection } from "./connection.js";
import { Counters, Meter } from "./meters.js";
import { themes } from "./theme.js";

const TAG = "kline.DEMO";
const BARS_TAG = "kline.DEMO.bars";
const PUSH_TAG = "demo";
const ARRIVED_MAX = 20;
const SENT_MAX = 100;
const DROP_MS = 3000;
const STATES = { connecting: "connecting", open: "connected", away: "disconnected" };

const element = id => document.getElementById(id);
const show = (id, text) => (element(id).textContent = text);
const price = value => value.toFixed(2);

const uid = `demo-${Math.random().toString(36).slice(2, 8)}`;
const candles = new Candles(element("chart"));
const counters = new Counters(["updates", "merged", "closed", "gaps", "reconnects", "bytes"]);
const heart = new Meter("heart");
const age = new Meter("age");
/** How far the node's clock is ahead of this one, in milliseconds. */
let clockAhead = 0;
/** When the last pushes of this page were sent, by their `affair_id`. */
const sent = new Map();
let pushes = 0;
let connected = 0;
let cid = "";
let resuming = null;

const connection = new Connection(uid, {
  state(word) {
    element("state").dataset.state = word;
    show("state", STATES[word]);
  },

  greeted(payload) {
    if (connected++) counters.add("reconnects");
    cid = payload.client_id;
    show("node", payload.node);
    show("uid", uid);
    show("cid", cid);
  },

  heart(trip, ahead) {
    clockAhead = ahead;
    heart.note(trip);
  },

  granted(tag, resumed) {
    if (tag !== TAG) return;
    if (resumed) resuming = { updates: 0, until: performance.now() + 500 };
    else loadHistory();
  },

  gap(tag) {
    counters.add("gaps");
    if (tag === TAG) loadHistory();
  },

  publication(message, bytes) {
    counters.add("bytes", bytes);
    if (message.tag === TAG) return tick(message);
    if (!message.snapshot) arrived(message);
  },

  push: arrived,
});

async function loadHistory() {
  candles.add((await history(BARS_TAG)).map(publication => publication.payload));
  quote();
}

function tick(message) {
  const bar = message.payload;
  counters.add("updates");
  if (message.merged) counters.add("merged", message.merged);
  if (bar.closed) counters.add("closed");
  else if (!message.snapshot && !noteResumed(message)) age.note(Date.now() + clockAhead - bar.at);
  candles.update(bar);
  quote();
}

/** Counts what came at once after a reconnect, and says so. */
function noteResumed(message) {
  if (!resuming) return false;
  if (performance.now() > resuming.until) {
    resuming = null;
    return false;
  }
  resuming.updates += 1 + (message.merged ?? 0);
  show("resumed", `resumed: ${resuming.updates} publications after the last one held`);
  return true;
}

function quote() {
  const bar = candles.last();
  if (!bar) return;
  show("price", price(bar.close));
  for (const name of ["open", "high", "low", "close"]) show(name, price(bar[name]));
  show("volume", bar.volume.toLocaleString("en"));
  const from = candles.first().open;
  const change = ((bar.close - from) / from) * 100;
  const minutes = Math.max(Math.round((bar.time - candles.first().time) / 60), 1);
  show("change", `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(2)} % in ${minutes} min`);
  element("change").dataset.sign = change < 0 ? "down" : "up";
}

function arrived(message) {
  const item = document.createElement("li");
  const to = document.createElement("b");
  to.textContent = message.tag ? `tag ${message.tag}` : "push";
  const payload = document.createElement("code");
  payload.textContent = JSON.stringify(message.payload);
  item.append(to, " ", payload);
  const since = sent.get(message.affair_id);
  if (since !== undefined) item.append(` after ${(performance.now() - since).toFixed(1)} ms`);
  const list = element("arrived");
  list.querySelector(".quiet")?.remove();
  list.prepend(item);
  while (list.children.length > ARRIVED_MAX) list.lastChild.remove();
}

element("push").onsubmit = async event => {
  event.preventDefault();
  const audience = { tags: { tags: PUSH_TAG }, uids: { uids: uid }, cids: { cids: cid }, all: { all: "true" } };
  const affair_id = `${uid}.${++pushes}`;
  const params = { ...audience[element("audience").value], affair_id, data: element("data").value };
  show("answer", "…");
  const start = performance.now();
  sent.set(affair_id, start);
  if (sent.size > SENT_MAX) sent.delete(sent.keys().next().value);
  try {
    await push(params);
    show("answer", `accepted after ${(performance.now() - start).toFixed(1)} ms`);
  } catch (error) {
    show("answer", error.message);
  }
};

element("rate").onchange = event => connection.subscribe(TAG, Number(event.target.value));
element("drop").onclick = () => connection.drop(DROP_MS);
themes(element("theme"), () => candles.paint());

connection.subscribe(TAG);
connection.subscribe(PUSH_TAG);
connection.open();
