"use strict";
// Ed25519 signatures (RFC 8032, section 5.1.7), for browsers without their own. It only verifies, so it keeps no secret.

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (value, by = P) => ((value % by) + by) % by;

function power(base, exponent) {
  let result = 1n;
  for (let rest = exponent, square = mod(base); rest > 0n; rest >>= 1n, square = mod(square * square)) {
    if (rest & 1n) result = mod(result * square);
  }
  return result;
}

const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_OF_MINUS_ONE = power(2n, (P - 1n) / 4n);

const little = (bytes) => bytes.reduceRight((sum, byte) => (sum << 8n) + BigInt(byte), 0n);

/** The point that 32 bytes encode, as [X, Y, Z, T]; null: none. */
function decodedPoint(bytes) {
  const number = little(bytes);
  const y = number & ((1n << 255n) - 1n);
  if (y >= P) return null;
  const square = mod((y * y - 1n) * power(D * y * y + 1n, P - 2n));
  let x = power(square, (P + 3n) / 8n);
  if (mod(x * x - square) !== 0n) x = mod(x * ROOT_OF_MINUS_ONE);
  if (mod(x * x - square) !== 0n) return null;
  const sign = number >> 255n;
  if (x === 0n && sign === 1n) return null;
  if ((x & 1n) !== sign) x = P - x;
  return [x, y, 1n, mod(x * y)];
}

function encodedPoint([x, y, z]) {
  const inverse = power(z, P - 2n);
  let number = mod(y * inverse) | ((mod(x * inverse) & 1n) << 255n);
  return Uint8Array.from({ length: 32 }, () => { const byte = Number(number & 255n); number >>= 8n; return byte; });
}

function plus([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = mod((y1 - x1) * (y2 - x2));
  const b = mod((y1 + x1) * (y2 + x2));
  const c = mod(2n * t1 * t2 * D);
  const d = mod(2n * z1 * z2);
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

function times(scalar, point) {
  let result = [0n, 1n, 1n, 0n];
  for (let rest = scalar, double = point; rest > 0n; rest >>= 1n, double = plus(double, double)) {
    if (rest & 1n) result = plus(result, double);
  }
  return result;
}

const BASE = decodedPoint(fromHex("58" + "66".repeat(31)));

/** Whether `signature` (64 bytes) is one of `message` by the key `publicKey` (32 bytes). */
function ed25519Verify(publicKey, message, signature) {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  const key = decodedPoint(publicKey);
  const scalar = little(signature.slice(32));
  if (key === null || scalar >= ORDER) return false;
  const nonce = signature.slice(0, 32);
  const hashed = new Uint8Array([...nonce, ...publicKey, ...message]);
  const challenge = mod(little(sha2(512, hashed)), ORDER);
  const [x, y, z, t] = key;
  const found = plus(times(scalar, BASE), times(challenge, [mod(-x), y, z, mod(-t)]));
  return toHex(encodedPoint(found)) === toHex(nonce);
}
