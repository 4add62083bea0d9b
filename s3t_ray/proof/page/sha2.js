"use strict";
// SHA-256 and SHA-512 (FIPS 180-4), for browsers without their own. Their constants are the fractional parts of roots of primes.

const PRIMES = [];
for (let number = 2n; PRIMES.length < 80; number += 1n) {
  if (PRIMES.every((prime) => number % prime !== 0n)) PRIMES.push(number);
}

/** The largest whole number whose power (2n or 3n) is not above `value`. */
function root(value, power) {
  let [low, high] = [0n, 1n << 130n];
  while (high - low > 1n) {
    const middle = (low + high) / 2n;
    if (middle ** power <= value) low = middle; else high = middle;
  }
  return low;
}

const LOW_64 = (1n << 64n) - 1n;
const ROUND_WORDS = PRIMES.map((prime) => root(prime << 192n, 3n) & LOW_64);
const FIRST_STATE = PRIMES.slice(0, 8).map((prime) => root(prime << 128n, 2n) & LOW_64);
const SHAPES = {
  256: { word: 32n, rounds: 64, turns: [[2n, 13n, 22n], [6n, 11n, 25n], [7n, 18n, 3n], [17n, 19n, 10n]] },
  512: { word: 64n, rounds: 80, turns: [[28n, 34n, 39n], [14n, 18n, 41n], [1n, 8n, 7n], [19n, 61n, 6n]] },
};

/** The digest of `bytes` with `bits` (256 or 512) bits, as bytes. */
function sha2(bits, bytes) {
  const { word, rounds, turns } = SHAPES[bits];
  const mask = (1n << word) - 1n;
  const block = bits / 4;
  const turned = (x, by) => (x >> by) | ((x << (word - by)) & mask);
  const big = (x, [a, b, c]) => turned(x, a) ^ turned(x, b) ^ turned(x, c);
  const small = (x, [a, b, shift]) => turned(x, a) ^ turned(x, b) ^ (x >> shift);
  const padded = new Uint8Array(Math.ceil((bytes.length + 1 + block / 8) / block) * block);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  new DataView(padded.buffer).setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const state = FIRST_STATE.map((value) => value >> (64n - word));
  const view = new DataView(padded.buffer);
  for (let start = 0; start < padded.length; start += block) {
    const words = [];
    for (let at = 0; at < rounds; at += 1) {
      if (at < 16) {
        words.push(word === 64n ? view.getBigUint64(start + 8 * at) : BigInt(view.getUint32(start + 4 * at)));
      } else {
        words.push((small(words[at - 2], turns[3]) + words[at - 7] + small(words[at - 15], turns[2]) + words[at - 16]) & mask);
      }
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let at = 0; at < rounds; at += 1) {
      const constant = ROUND_WORDS[at] >> (64n - word);
      const first = h + big(e, turns[1]) + ((e & f) ^ (~e & mask & g)) + constant + words[at];
      const second = big(a, turns[0]) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) & mask, c, b, a, (first + second) & mask];
    }
    [a, b, c, d, e, f, g, h].forEach((value, at) => { state[at] = (state[at] + value) & mask; });
  }
  const text = state.map((value) => value.toString(16).padStart(Number(word) / 4, "0")).join("");
  return fromHex(text);
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
}

function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
