"use strict";
// The page: check what it holds, then say it in words. Nothing is shown as a fact before it is checked, and everything that
// was signed is shown as text, never as markup.

const $ = (id) => document.getElementById(id);

function el(tag, text, className) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

const count = (number, noun, many = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : many}`;

function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  return `${time.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "medium", timeZone: "UTC" })} UTC`;
}

function verdict(kind, title, text) {
  $("verdict").className = `verdict ${kind}`;
  $("verdict-title").textContent = title;
  $("verdict-text").textContent = text;
}

function checked(text) {
  $("checks").append(el("li", text));
}

/** Everything that is claimed, in words. */
function tell(facts, orders) {
  $("title").textContent = `A deletion from the model “${facts.run}”`;
  const nothing = facts.records === 0;
  $("what").append(el("p", nothing
    ? "No record was left to delete when this request was accepted."
    : `${count(facts.records, "record")} of training data ${facts.records === 1 ? "was" : "were"} deleted, and every part of the model that had learned from ${facts.records === 1 ? "it" : "them"} was erased with ${facts.records === 1 ? "it" : "them"}: ${count(facts.stages_pruned.length, "trained part")}.`));
  if (facts.already_deleted) {
    $("what").append(el("p", `${count(facts.already_deleted, "record")} that the request named had been deleted before, by ${facts.earlier_requests.length === 1 ? "request" : "requests"} ${facts.earlier_requests.join(", ")}.`));
  }
  if (facts.unknown) {
    $("what").append(el("p", `${count(facts.unknown, "name")} in the request ${facts.unknown === 1 ? "was" : "were"} not known to this model: no record was kept under ${facts.unknown === 1 ? "it" : "them"}.`));
  }
  if (!nothing) {
    $("what").append(el("p", facts.restored_at === null
      ? "This is the interim certificate: what was erased has not been trained again yet. Nothing of the records is left, and a final certificate will follow."
      : "What was erased has been trained again from the records that stay, as if the deleted ones had never been there."));
  }
  if (orders.depends_on_history) {
    $("what").append(el("p", "The order in which this model learns was chosen based on earlier deletions; such a choice can carry a faint trace of them."));
  }
  const steps = [
    [facts.accepted_at, "The request was accepted. From then on it could not be lost."],
    [facts.pruned_at, "From then on, no answer came from a part of the model that had seen the records."],
    [facts.purged_at, "The records, and everything made from them, were erased from the storage of the model."],
    [facts.restored_at, "The parts of the model that were erased were trained again, without the records."],
  ];
  for (const [time, text] of steps.filter(([at]) => at !== null)) {
    const step = document.createElement("li");
    const stamp = el("time", moment(time));
    stamp.dateTime = time;
    step.append(stamp, el("span", text));
    $("when").append(step);
  }
}

/** All that was signed, name by name. */
function listAll(entry) {
  const rows = { ...entry.facts, orders: entry.orders, software: entry.software, format: entry.format, public_key: entry.public_key, hash: entry.hash };
  for (const [name, value] of Object.entries(rows)) {
    $("all").append(el("dt", name.replaceAll("_", " ")), el("dd", typeof value === "string" ? value : JSON.stringify(value)));
  }
}

async function checkAll(data) {
  const entries = [];
  for (const text of data.entries) entries.push(await verifiedEntry(text));
  const { certificate, keys } = await newestCertificate(entries);
  const receipt = receiptOf(certificate, entries);
  const whose = await hasEd25519() ? "this browser’s own cryptography" : "cryptography that is part of this page";
  checked(`The signature fits: nothing in the certificate was changed after it was signed (checked by ${whose}).`);
  if (receipt) checked("It belongs to the receipt of the request, which was signed when the request was accepted.");
  checked("It is consistent: no erased part of the model is in service, and its times are in order.");
  const place = `Its place in the log of the model is number ${certificate.facts.sequence}.`;
  if (data.proof) {
    const log = await verifiedInclusion(data.proof, certificate, keys);
    checked(`${place} The log with ${count(log.size, "entry", "entries")}, signed by the model’s key, holds it there.`);
    if (log.witnesses.length) checked(`Witnesses also signed this state of the log: ${log.witnesses.join(", ")}. Their keys are not known here, so their signatures were not checked.`);
  } else {
    checked(`${place} It fixes the entry before it (${certificate.facts.previous.slice(0, 16)}…), so no earlier entry can change unnoticed.`);
  }
  if (keys.size > 1) checked(`The model’s key was changed ${count(keys.size - 1, "time")}; each change was signed by both keys.`);
  return { certificate, receipt, keys };
}

function compareKeys(fingerprints) {
  const given = $("known").value.toLowerCase().replace(/sha-?256/, "").replace(/[^0-9a-f]/g, "");
  const answer = $("key-answer");
  if (!given) return;
  const same = fingerprints.includes(given);
  answer.className = same ? "good" : "bad";
  answer.textContent = same
    ? "The same key. The certificate was signed by its holder, or by the successor that its holder named."
    : "Not the same key. Either the fingerprint has a typing error, or this certificate is not from the model that you expect: do not rely on it.";
}

const lines = (id) => $(id).value.split(/\r?\n/).filter((line) => line !== "");

async function checkMine(receipt) {
  const answer = $("mine-answer");
  const [file] = $("receipt").files;
  let handed = null;
  try {
    handed = JSON.parse(await file.text());
  } catch {
    // told below
  }
  const result = handed && typeof handed === "object" && handed.receipt ? await isOf(handed, receipt, lines("ids"), lines("subjects")) : "unreadable";
  answer.className = result === "yes" ? "good" : "bad";
  answer.textContent = {
    yes: "Yes. This certificate is for the deletion of exactly these names.",
    no: "The receipt belongs to this certificate, but it is not of exactly these names. Give all names of the request, spelled as in the request, each in its field.",
    other: "This receipt is for another deletion.",
    nameless: "This receipt cannot show it: the request was made with coded names.",
    unreadable: "This is not a receipt. Choose the file that you received when the deletion was accepted.",
  }[result];
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function open() {
  verdict("busy", "Checking…", "");
  let data;
  let found;
  try {
    data = JSON.parse($("signed").textContent);
    found = await checkAll(data);
  } catch (error) {
    const why = error instanceof Failure ? error.message : `The file is damaged: it cannot be read (${error.message}).`;
    $("checks").replaceChildren();
    verdict("bad", "This certificate FAILS its check", `${why} Do not rely on this file. Ask its sender for a new one.`);
    $("raw").textContent = data && Array.isArray(data.entries) ? data.entries.join("\n") : $("signed").textContent;
    $("failed").hidden = false;
    return;
  }
  const { certificate, receipt, keys } = found;
  const fingerprint = toHex(await sha256(fromHex(certificate.public_key)));
  const fingerprints = await Promise.all([...keys.keys()].map(async (key) => toHex(await sha256(fromHex(key)))));
  tell(certificate.facts, certificate.orders);
  listAll(certificate);
  $("request").textContent = certificate.facts.request_id;
  $("fingerprint").textContent = fingerprint.match(/.{8}/g).join(" ");
  $("compare").addEventListener("submit", (event) => { event.preventDefault(); compareKeys(fingerprints); });
  if (receipt && receipt.facts.commitment !== null) {
    $("mine").hidden = false;
    $("mine-form").addEventListener("submit", (event) => { event.preventDefault(); checkMine(receipt); });
  }
  $("save").addEventListener("click", () => save(`certificate-${certificate.facts.request_id}.jsonl`, data.entries.map((text) => `${text}\n`).join("")));
  verdict("good", "Genuine and unchanged", "This page has checked the certificate in your browser, without the internet. One step is left to you: whose key it is, below.");
  $("content").hidden = false;
}

open();
