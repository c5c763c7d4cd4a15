// One connection to the cluster that is opened again when it ends, and resumes where it was.
//
// Subscriptions remember the `id` of their last publication; after a reconnect it is the `since` that they resume from, so that
// nothing is lost that the node still remembers. What it no longer does is told: `gap`.

import { connectUrl } from "./calls.js";

const HEART_MS = 1000;
const RETRY_MS = { first: 500, last: 8000 };

/**
 * Hooks, all optional: `state(word)`, `greeted(payload)`, `publication(message, bytes)`, `gap(tag)`, `push(message)`,
 * `heart(roundTripMs, clockAheadMs)`, `granted(tag, resumed)`.
 */
export class Connection {
  #uid;
  #hooks;
  #socket = null;
  #subscriptions = new Map();
  #asked = new Map();
  #hearts = new Map();
  #serial = 0;
  #retryMs = RETRY_MS.first;
  #timer = null;

  constructor(uid, hooks) {
    this.#uid = uid;
    this.#hooks = hooks;
    setInterval(() => this.#heart(), HEART_MS);
  }

  /** Follows a tag, with at most `maxHz` updates a second (0: every one), from now on and after each reconnect. */
  subscribe(tag, maxHz = 0) {
    const known = this.#subscriptions.get(tag);
    this.#subscriptions.set(tag, { last: known?.last ?? "", maxHz });
    if (this.#isOpen()) this.#ask([tag]);
  }

  async open() {
    this.#hooks.state?.("connecting");
    clearTimeout(this.#timer);
    let url;
    try {
      url = await connectUrl(this.#uid);
    } catch {
      return this.#retry();
    }
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onmessage = event => this.#socket === socket && this.#hear(event.data);
    socket.onclose = () => this.#socket === socket && this.#closed();
  }

  /** Closes the connection and opens it again after a pause. */
  drop(pauseMs) {
    this.#socket?.close(1000);
    this.#closed(pauseMs);
  }

  #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #closed(pauseMs) {
    this.#socket = null;
    this.#hearts.clear();
    this.#asked.clear();
    this.#hooks.state?.("away");
    this.#retry(pauseMs);
  }

  #retry(pauseMs) {
    // Spread, so that many pages do not all come back in the same moment.
    const spread = this.#retryMs * (0.75 + Math.random() / 2);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), pauseMs ?? spread);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS.last);
  }

  #send(message) {
    if (!this.#isOpen()) return null;
    const ack_id = String(++this.#serial);
    this.#socket.send(JSON.stringify({ ...message, ack_id }));
    return ack_id;
  }

  #heart() {
    const at = performance.now();
    const ack = this.#send({ type: "heart" });
    if (ack) this.#hearts.set(ack, at);
  }

  #ask(tags) {
    for (const tag of tags) {
      const { last, maxHz } = this.#subscriptions.get(tag);
      const wanted = { tag };
      if (last) wanted.since = last;
      if (maxHz) wanted.max_hz = maxHz;
      this.#asked.set(this.#send({ type: "subscribe", tags: [wanted] }), { tag, resumed: last !== "" });
    }
  }

  #hear(text) {
    const message = JSON.parse(text);
    if (message.type === "connect") return this.#greeted(message);
    if (message.type === "heart") return this.#heard(message);
    if (message.type === "gap") return this.#hooks.gap?.(message.tag);
    if (message.type === "move") return this.drop(message.payload?.after_ms ?? 0);
    if (message.ack_id !== undefined) return this.#answered(message);
    if (message.tag !== undefined) return this.#publication(message, text.length);
    this.#hooks.push?.(message);
  }

  #greeted(message) {
    this.#retryMs = RETRY_MS.first;
    this.#hooks.state?.("open");
    this.#hooks.greeted?.(message.payload);
    this.#ask(this.#subscriptions.keys());
  }

  #heard(message) {
    const sent = this.#hearts.get(message.ack_id);
    if (sent === undefined) return;
    this.#hearts.delete(message.ack_id);
    const trip = performance.now() - sent;
    // The node looked at its clock about half-way.
    this.#hooks.heart?.(trip, message.payload.ts - (Date.now() - trip / 2));
  }

  #answered(message) {
    const asked = this.#asked.get(message.ack_id);
    this.#asked.delete(message.ack_id);
    if (asked && message.code === 1) this.#hooks.granted?.(asked.tag, asked.resumed);
  }

  #publication(message, bytes) {
    const subscription = this.#subscriptions.get(message.tag);
    if (!subscription) return;
    const missed = message.prev !== subscription.last && subscription.last !== "";
    const explained = message.snapshot || message.merged > 0 || message.id === subscription.last;
    if (message.gap || (missed && !explained)) this.#hooks.gap?.(message.tag);
    subscription.last = message.id;
    this.#hooks.publication?.(message, bytes);
  }
}
