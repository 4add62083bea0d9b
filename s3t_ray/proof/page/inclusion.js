"use strict";
// A proof that an entry stands in the run's log (c2sp.org/tlog-proof): a path of hashes to a signed checkpoint.

const notAProof = () => new Failure("The proof of the certificate's place in the log is damaged.");

function fromBase64(text) {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw notAProof();
  }
}

function parsedProof(document) {
  const at = document.indexOf("\n\n");
  const lines = document.slice(0, at).split("\n");
  const note = document.slice(at + 2);
  const end = note.lastIndexOf("\n\n");
  if (at < 0 || end < 0 || lines[0] !== "c2sp.org/tlog-proof@v1" || !note.endsWith("\n")) throw notAProof();
  const rest = lines.slice(lines[1] && lines[1].startsWith("extra ") ? 2 : 1);
  const index = /^index (0|[1-9][0-9]{0,14})$/.exec(rest[0]);
  const text = note.slice(0, end + 1);
  const [origin, size, root] = text.split("\n");
  const path = rest.slice(1).map(fromBase64);
  if (!index || !/^(0|[1-9][0-9]{0,14})$/.test(size) || path.some((hash) => hash.length !== 32)) throw notAProof();
  const signatures = note.slice(end + 2, -1).split("\n").map((line) => /^— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/.exec(line));
  if (signatures.some((found) => !found)) throw notAProof();
  const named = signatures.map((found) => ({ name: found[1], value: fromBase64(found[2]) }));
  return { index: Number(index[1]), path, text, origin, size: Number(size), root: fromBase64(root || ""), signatures: named };
}

/** RFC 9162, section 2.1.3.2: the root that the path leads to; null: no path has this shape. */
async function rootOfInclusion(leaf, index, size, path) {
  if (index >= size) return null;
  const node = (left, right) => sha256(new Uint8Array([1, ...left, ...right]));
  let [number, last, root] = [index, size - 1, leaf];
  for (const hash of path) {
    if (last === 0) return null;
    if (number % 2 === 1 || number === last) {
      root = await node(hash, root);
      while (number % 2 === 0 && number !== 0) [number, last] = [number / 2, Math.floor(last / 2)];
    } else {
      root = await node(root, hash);
    }
    [number, last] = [Math.floor(number / 2), Math.floor(last / 2)];
  }
  return last === 0 ? root : null;
}

/** Whether a log of this name is of the entry's run; the first format of certificates names none. */
function isOfRun(origin, { facts }) {
  return /^s3t-ray\/[0-9a-f]{32}$/.test(origin) && (facts.run_id === undefined || origin === `s3t-ray/${facts.run_id}`);
}

/** Where the entry stands in the log of these keys. Throws a Failure when the proof does not hold. */
async function verifiedInclusion(document, entry, keys) {
  const proof = parsedProof(document);
  const own = [];
  for (const [key, [, last]] of keys) {
    const id = toHex((await sha256(new Uint8Array([...utf8(`${proof.origin}\n`), 1, ...fromHex(key)]))).slice(0, 4));
    for (const signature of proof.signatures) {
      if (proof.size > last || signature.name !== proof.origin || toHex(signature.value.slice(0, 4)) !== id) continue;
      if (!await verifies(fromHex(key), utf8(proof.text), signature.value.slice(4))) {
        throw new Failure("The signature under the head of the log in this file is forged, or the head was changed.");
      }
      own.push(signature);
    }
  }
  if (!own.length) throw new Failure("The head of the log in this file is not signed by a key of this log.");
  const leaf = await sha256(new Uint8Array([0, ...utf8(`s3t-ray/leaf/1 ${entry.hash}\n`)]));
  const root = await rootOfInclusion(leaf, proof.index, proof.size, proof.path);
  if (root === null || toHex(root) !== toHex(proof.root) || proof.index !== entry.facts.sequence - 1 || !isOfRun(proof.origin, entry)) {
    throw new Failure("The certificate is not in the log at the place that this file says.");
  }
  const others = proof.signatures.filter((each) => !own.includes(each)).map(({ name }) => name);
  return { size: proof.size, origin: proof.origin, witnesses: [...new Set(others)] };
}
