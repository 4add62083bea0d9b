"use strict";
// Signed entries of a run's log: what is signed, whether the signature holds, and whether the entries belong together.
// A check that fails throws a Failure, whose message is for people.

class Failure extends Error {}

const utf8 = (text) => new TextEncoder().encode(text);
const ownCrypto = globalThis.crypto && globalThis.crypto.subtle;
const importKey = (key) => ownCrypto.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);

async function sha256(bytes) {
  return ownCrypto ? new Uint8Array(await ownCrypto.digest("SHA-256", bytes)) : sha2(256, bytes);
}

/** Whether this browser has Ed25519 of its own. */
async function hasEd25519() {
  if (!ownCrypto) return false;
  try {
    await importKey(encodedPoint(BASE));
    return true;
  } catch {
    return false;
  }
}

/** Whether `signature` is one of `message` by `key`: by the browser's own Ed25519, or by the page's. */
async function verifies(key, message, signature) {
  if (!await hasEd25519()) return ed25519Verify(key, message, signature);
  try {
    return await ownCrypto.verify({ name: "Ed25519" }, await importKey(key), signature, message);
  } catch {
    return false; // 32 bytes that are no key
  }
}

/** The one JSON text of a value: keys in order, no spaces. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
}

/** The entry in `text`, once its own key is known to have signed exactly this text. */
async function verifiedEntry(text) {
  let entry;
  try {
    entry = JSON.parse(text);
  } catch {
    throw new Failure("A signed text in this file is damaged: it cannot be read.");
  }
  if (entry === null || typeof entry !== "object" || canonical(entry) !== text) {
    throw new Failure("A signed text in this file is not as it was written: it was changed after it was signed.");
  }
  const { signature, ...said } = entry;
  const wellFormed = /^[0-9a-f]{128}$/.test(signature) && /^[0-9a-f]{64}$/.test(said.public_key) && said.facts;
  const message = utf8(`${said.format}\n${canonical(said)}`);
  if (!wellFormed || !await verifies(fromHex(said.public_key), message, fromHex(signature))) {
    throw new Failure("A signature does not fit the text that it stands under: the text was changed after it was signed, or the signature is forged.");
  }
  return { ...entry, text, hash: toHex(await sha256(utf8(text))) };
}

const isCertificate = (entry) => /^s3t\/certificate\/[1-9]\d*$/.test(entry.format);
const isReceipt = (entry) => entry.format === "s3t/receipt/1";
const isKeyChange = (entry) => /^s3t\/key\/[12]$/.test(entry.format);

/** A change of key, once both keys are known to have agreed: key `before` signs up to entry `last`, then `after`. */
async function keyChange(entry) {
  const { facts, public_key: key } = entry;
  if (entry.format === "s3t/key/1") {
    const consent = utf8(`s3t/key-consent/1\n${facts.run_id}\n${facts.sequence}\n${key}\n${facts.next_key}\n`);
    if (!await verifies(fromHex(facts.next_key), consent, fromHex(facts.consent))) {
      throw new Failure("A change of the model’s key in this file is not genuine: the new key did not agree to it.");
    }
    return { before: key, after: facts.next_key, last: facts.sequence };
  }
  // Of a log that was restored from a backup: it carries the changes of the history that was lost.
  const carried = [];
  for (const text of facts.changes) {
    const change = await verifiedEntry(text);
    if (!isKeyChange(change) || change.facts.run_id !== facts.run_id) {
      throw new Failure("A change of the model’s key in this file carries something else than changes of its key.");
    }
    carried.push(await keyChange(change));
  }
  const follows = carried.every((change, at) => at === 0 || change.before === carried[at - 1].after);
  if (!carried.length || !follows || carried.at(-1).after !== key || facts.next_key !== key) {
    throw new Failure("A change of the model’s key in this file is not genuine: nothing leads to the new key.");
  }
  return { before: carried[0].before, after: key, last: facts.sequence - 1 };
}

/** The keys of the log by one of them, as key -> [first, last] number of an entry that it may have signed. */
async function logKeys(trusted, entries) {
  const inOrderOfLog = entries.filter(isKeyChange).sort((one, other) => one.facts.sequence - other.facts.sequence);
  const changes = [];
  for (const entry of inOrderOfLog) changes.push(await keyChange(entry));
  const spans = new Map([[trusted, [1, Infinity]]]);
  let here = trusted;
  for (const { before, after, last } of changes) {
    if (before !== here || spans.has(after)) continue;
    spans.set(here, [spans.get(here)[0], last]);
    spans.set(after, [last + 1, Infinity]);
    here = after;
  }
  here = trusted;
  for (const { before, after, last } of changes.reverse()) {
    if (after !== here || spans.has(before)) continue;
    spans.set(here, [last + 1, spans.get(here)[1]]);
    spans.set(before, [1, last]);
    here = before;
  }
  return spans;
}

/** The newest certificate; all entries are of its deletion, its run, and the keys of its log. */
async function newestCertificate(entries) {
  const certificates = entries.filter(isCertificate);
  if (!certificates.length || !entries.every((entry) => isCertificate(entry) || isReceipt(entry) || isKeyChange(entry))) {
    throw new Failure("This file holds no certificate that this page can read.");
  }
  const newest = certificates.reduce((one, other) => (other.facts.sequence > one.facts.sequence ? other : one));
  const keys = await logKeys(newest.public_key, entries);
  for (const entry of entries) {
    const { facts } = entry;
    const [first, last] = keys.get(entry.public_key) || [1, 0];
    if (facts.sequence < first || facts.sequence > last) throw new Failure("The signed texts in this file are by different keys.");
    if (facts.run_id !== newest.facts.run_id || (!isKeyChange(entry) && facts.request_id !== newest.facts.request_id)) {
      throw new Failure("The signed texts in this file are of different deletions.");
    }
    if (!isKeyChange(entry) && facts.accepted_at !== newest.facts.accepted_at) {
      throw new Failure("The signed texts in this file say different times for one request.");
    }
  }
  checkSense(newest.facts);
  return { certificate: newest, keys };
}

/** What it says can be true: no erased part serves again, and no time runs backwards. */
function checkSense(facts) {
  const erased = new Set(facts.stages_pruned.map((stage) => stage.adapter_sha256));
  const anew = new Set(facts.trained_to_same_bytes || []);
  if (facts.stages_live.some((stage) => erased.has(stage.adapter_sha256) && !anew.has(stage.id))) {
    throw new Failure("The certificate names one and the same part of the model as erased and as in service.");
  }
  const times = [facts.accepted_at, facts.pruned_at, facts.purged_at, facts.restored_at].filter((time) => time !== null);
  if (times.some((time, at) => at > 0 && time < times[at - 1])) {
    throw new Failure("The times in the certificate run backwards.");
  }
}

/** The receipt that the certificate names, or null where it names none. */
function receiptOf(certificate, entries) {
  const wanted = certificate.facts.receipt || null;
  const found = entries.find(isReceipt) || null;
  if ((found && found.hash) !== wanted) {
    throw new Failure("The receipt in this file is missing, or is not the one that the certificate names.");
  }
  if (found && (found.facts.sequence >= certificate.facts.sequence || found.facts.commitment !== certificate.facts.commitment)) {
    throw new Failure("The receipt in this file does not fit the certificate.");
  }
  return found;
}

/** Whether a handed-out receipt is the one here, and of exactly these names. */
async function isOf(handed, receipt, ids, subjects) {
  if (canonical(handed.receipt) !== receipt.text) return "other";
  if (!/^[0-9a-f]{64}$/.test(handed.nonce)) return "nameless";
  const names = canonical({ ids: inOrder(ids), subjects: inOrder(subjects) });
  const opened = await sha256(new Uint8Array([...utf8("s3t/commitment/1\n"), ...fromHex(handed.nonce), ...utf8(names)]));
  return toHex(opened) === receipt.facts.commitment ? "yes" : "no";
}

/** Each once, by code points, as the receipt was made. */
function inOrder(names) {
  const points = (text) => Array.from(text, (letter) => letter.codePointAt(0));
  return [...new Set(names)].sort((one, other) => {
    const [a, b] = [points(one), points(other)];
    const at = a.findIndex((point, place) => point !== b[place]);
    return at < 0 ? a.length - b.length : a[at] - (at < b.length ? b[at] : -1);
  });
}
