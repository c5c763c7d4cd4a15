// Signs a call as the API's description says: HMAC-SHA256 over the sorted, percent-encoded parameters of query and form
// and the hash of any other body. Pure: no page, no storage, no network.
"use strict";

const signing = (() => {
  const ROUND_CONSTANTS = roundConstants();
  const BLOCK_BYTES = 64;
  const utf8 = (text) => new TextEncoder().encode(text);
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

  // The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
  function roundConstants() {
    const primes = [];
    for (let candidate = 2; primes.length < 64; candidate += 1) {
      if (primes.every((prime) => candidate % prime !== 0)) primes.push(candidate);
    }
    return primes.map((prime) => fraction(Math.cbrt(prime)));
  }

  function fraction(number) {
    return ((number - Math.floor(number)) * 2 ** 32) | 0;
  }

  // SHA-256 (FIPS 180-4), for pages that the browser gives no crypto.subtle: those of a host that is not this machine.
  function ownSha256(bytes) {
    const state = [2, 3, 5, 7, 11, 13, 17, 19].map((prime) => fraction(Math.sqrt(prime)));
    const padded = new Uint8Array(Math.ceil((bytes.length + 9) / BLOCK_BYTES) * BLOCK_BYTES);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
    for (let start = 0; start < padded.length; start += BLOCK_BYTES) compress(state, view, start);
    const digest = new DataView(new ArrayBuffer(32));
    state.forEach((word, index) => digest.setInt32(index * 4, word));
    return new Uint8Array(digest.buffer);
  }

  function compress(state, view, start) {
    const turn = (word, by) => (word >>> by) | (word << (32 - by));
    const words = new Int32Array(64);
    for (let i = 0; i < 64; i += 1) {
      if (i < 16) {
        words[i] = view.getInt32(start + i * 4);
        continue;
      }
      const [near, far] = [words[i - 15], words[i - 2]];
      const small = turn(near, 7) ^ turn(near, 18) ^ (near >>> 3);
      const large = turn(far, 17) ^ turn(far, 19) ^ (far >>> 10);
      words[i] = words[i - 16] + small + words[i - 7] + large;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const choice = (e & f) ^ (~e & g);
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + choice + ROUND_CONSTANTS[i] + words[i]) | 0;
      const majority = (a & b) ^ (a & c) ^ (b & c);
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + majority) | 0;
      [a, b, c, d, e, f, g, h] = [(one + two) | 0, a, b, c, (d + one) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => (state[index] = (state[index] + word) | 0));
  }

  function ownHmac(key, message) {
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(key.length > BLOCK_BYTES ? ownSha256(key) : key);
    const inner = ownSha256(join(block.map((byte) => byte ^ 0x36), message));
    return ownSha256(join(block.map((byte) => byte ^ 0x5c), inner));
  }

  function join(one, other) {
    const both = new Uint8Array(one.length + other.length);
    both.set(one);
    both.set(other, one.length);
    return both;
  }

  async function sha256(bytes) {
    if (!globalThis.crypto?.subtle) return ownSha256(bytes);
    return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  }

  async function hmac(key, message) {
    // WebCrypto takes no empty key; the algorithm does.
    if (!globalThis.crypto?.subtle || key.length === 0) return ownHmac(key, message);
    const usable = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", usable, message));
  }

  // Percent-encoding of everything but RFC 3986's unreserved characters.
  function encode(value) {
    return encodeURIComponent(value).replace(/[!'()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`);
  }

  function canonical(params) {
    const sorted = [...params].sort(([one], [other]) => (one < other ? -1 : Number(one > other)));
    return sorted.map(([name, value]) => `${name}=${encode(value)}`).join("&");
  }

  // The URL of a call, signed; `body` is the text that is sent, `isForm` says how it is read.
  async function signedUrl(url, { pid, secret, exp, body, isForm }) {
    const signed = new URL(url);
    const query = signed.searchParams;
    query.delete("sign");
    if (!query.get("pid")) query.set("pid", pid);
    if (!query.get("exp")) query.set("exp", String(exp));
    const covered = [...query];
    if (body && isForm) covered.push(...new URLSearchParams(body));
    if (body && !isForm) covered.push(["body_sha256", hex(await sha256(utf8(body)))]);
    query.set("sign", hex(await hmac(utf8(secret), utf8(canonical(covered)))));
    return signed.href;
  }

  return { canonical, signedUrl, own: { sha256: ownSha256, hmac: ownHmac }, sha256, hmac, utf8, hex };
})();
