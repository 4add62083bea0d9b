// The page of one run. No framework and nothing from elsewhere; everything that people wrote is shown as text.
"use strict";

const STATES = ["accepted", "pruned", "purged", "restored"];
const MOST_SEQUENCES = 12;
const FIELDS = ["ids", "subjects", "reference", "requester", "reason", "due"]; // of the form to delete
const POLL_MS = 2000;
let signedIn = false;
let filter = "open";
let status = null;
let previewed = null;

const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null)); // strings become text nodes
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

async function call(path, body, method = body === undefined ? "GET" : "POST") {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({ problem: `the server answered ${answer.status}`, fix: "" }));
    const error = new Error(told.fix ? `${told.problem} (${told.fix})` : told.problem);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function moment(text) {
  return new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

function showRun() {
  document.title = `${status.name} - s3t_ray`;
  $("run-name").textContent = status.name;
  const open = status.deletions.filter((each) => each.state !== "restored").length;
  const state = $("run-state");
  state.textContent = status.settled ? "settled" : open ? `${count(open, "open deletion")}` : "training";
  state.className = `state ${status.settled ? "settled" : "working"}`;
  const wanted = status.shards.reduce((sum, each) => sum + each.wanted, 0);
  const trained = status.shards.reduce((sum, each) => sum + each.trained, 0);
  $("run-facts").textContent =
    `${count(status.records, "record")} in ${count(status.shards.length, "shard")} of ${count(status.slices, "slice")}; ` +
    `${trained} of ${count(wanted, "stage")} trained; ${count(status.held_out, "held-out record")}`;
}

function showShards() {
  const cards = status.shards.map((shard) => {
    const depth = Math.max(0, ...shard.depths);
    const training = new Set(status.running.filter((each) => each.shard === shard.shard).map((each) => each.slices.join()));
    const rows = shard.orders.slice(0, MOST_SEQUENCES).map((order, index) => {
      const live = shard.depths[index];
      const boxes = order.map((slice, at) => {
        const busy = at >= live && training.has(order.slice(0, at + 1).join());
        const word = at < live ? "live" : busy ? "in training" : "not trained";
        return el("span", { class: `slice ${at < live ? "live" : busy ? "training" : ""}`, title: `slice ${slice}: ${word}` }, `${slice}`);
      });
      const label = `sequence ${index}: slices ${order.join(", ")}; depth ${live}`;
      return el("div", { class: "sequence", role: "img", "aria-label": label }, ...boxes);
    });
    const hidden = shard.orders.length - rows.length;
    const work = [`${count(shard.records, "record")}`];
    if (shard.running) work.push(`${shard.running} in training`);
    if (shard.queued) work.push(`${shard.queued} queued`);
    if (shard.failed) work.push(`${shard.failed} failed`);
    return el("article", { class: "card shard" },
      el("h3", {}, `Shard ${shard.shard}`, el("span", { class: `depth ${depth ? "" : "dead"}` }, depth ? `depth ${depth} of ${status.slices}` : "dead")),
      ...rows,
      hidden > 0 ? el("p", { class: "more" }, `and ${count(hidden, "more sequence")}`) : null,
      el("p", { class: "more" }, work.join("; ")));
  });
  $("shards").replaceChildren(...cards);
}

function showDeletions() {
  const wanted = { all: () => true, open: (each) => each.state !== "restored", overdue: (each) => each.overdue };
  const rows = status.deletions.filter(wanted[filter]).reverse();
  $("deletions").hidden = rows.length === 0;
  $("no-deletions").textContent = rows.length ? "" : { all: "No one has asked to be deleted.", open: "Every deletion is finished.", overdue: "Nothing is overdue." }[filter];
  $("deletions").tBodies[0].replaceChildren(...rows.map((each) => {
    const at = STATES.indexOf(each.state);
    const steps = el("span", { class: "steps", "aria-label": each.state },
      ...STATES.map((state, index) => el("span", { class: index <= at ? "done" : "" }, state)));
    const proof = each.state === "restored" ? download(`ui/deletions/${each.request_id}/certificate`, `certificate-${each.request_id.slice(0, 16)}.json`, "Download") : "not yet";
    return el("tr", {},
      el("td", { class: "id", title: each.request_id }, each.request_id.slice(0, 16)),
      el("td", {}, (status.references?.[each.request_id] ?? []).join(", ")),
      el("td", {}, steps),
      el("td", {}, each.records.toLocaleString("en")),
      el("td", {}, moment(each.accepted_at)),
      el("td", {}, duration(each.age_seconds)),
      el("td", { class: each.overdue ? "problem" : "" }, dueText(each)),
      el("td", {}, proof));
  }));
}

function dueText(each) {
  if (!each.due_at) return "";
  const day = each.due_at.slice(0, 10); // a date stands for its end in UTC: not shifted into the local day
  const late = each.purged_at && each.purged_at > each.due_at;
  return each.overdue ? `${day}, overdue` : late ? `${day}, late` : day;
}

function download(path, name, text) {
  const link = el("a", { href: "#", role: "button" }, text);
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    await attempt(async () => {
      const blob = await (await call(path)).blob();
      const save = el("a", { href: URL.createObjectURL(blob), download: name });
      save.click();
      URL.revokeObjectURL(save.href);
    });
  });
  return link;
}

function failedThing(failure) {
  if (failure.kind === "purge") return failure.shard < 0 ? "the purge of the held-out records" : `the purge of shard ${failure.shard}`;
  return failure.kind === "serving" ? "serving" : `stage ${failure.stage_id.slice(0, 16)}`;
}

function showWork() {
  const lines = status.running.map((stage) =>
    el("tr", {},
      el("td", {}, `shard ${stage.shard}`),
      el("td", {}, `slices ${stage.slices.join(", ")}`),
      el("td", {}, stage.steps ? `step ${stage.step} of ${stage.steps}` : "loading"),
      el("td", {}, stage.loss === null ? "" : `loss ${stage.loss.toFixed(3)}`),
      el("td", {}, stage.tokens_per_second === null ? "" : `${Math.round(stage.tokens_per_second)} tokens per second`)));
  const failed = status.failures.map((failure) =>
    el("p", { class: "problem" }, `${failedThing(failure)} failed ${failure.attempts} times: ${failure.error}`));
  const queued = status.shards.reduce((sum, each) => sum + each.queued, 0);
  const idle = queued ? `${count(queued, "stage")} waiting for a scheduler: run s3t train with the run's config.` : "Nothing is in training.";
  $("work").replaceChildren(lines.length ? el("table", {}, el("tbody", {}, ...lines)) : el("p", { class: "hint" }, idle), ...failed);
}

function showHistory(history) {
  const figure = $("history");
  if (!history.depths.length) {
    figure.replaceChildren(el("p", { class: "hint" }, "No stage has been trained yet."));
    return;
  }
  const [width, height, left, bottom] = [Math.max(figure.clientWidth - 34, 240), 180, 34, 24];
  const most = Math.max(status.slices, 1);
  const now = Math.max((Date.now() - Date.parse(history.began_at)) / 1000, history.depths.at(-1).seconds, 1);
  const last = Math.max(history.depths.at(-1).seconds, ...history.marks.map((mark) => mark.seconds), 1);
  // A receipt makes models shallower at once; the history has it when a scheduler has looked.
  const depth = status.shards.reduce((sum, each) => sum + Math.max(0, ...each.depths), 0) / status.shards.length;
  const moved = depth !== history.depths.at(-1).mean_depth;
  const end = moved || !status.settled ? now : last;
  const x = (seconds) => left + (seconds / end) * (width - left - 8);
  const y = (depth) => height - bottom - (depth / most) * (height - bottom - 10);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Mean live depth of the shards over time" });
  for (let tick = 0; tick <= most; tick += Math.ceil(most / 6)) {
    picture.append(svg("line", { class: "axis", x1: left, x2: width, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: 4, y: y(tick) + 4 }, `${tick}`));
  }
  for (const mark of history.marks.filter((each) => each.kind === "accepted" || each.kind === "restored")) {
    picture.append(svg("line", { class: `mark ${mark.kind}`, x1: x(mark.seconds), x2: x(mark.seconds), y1: 6, y2: height - bottom }));
  }
  let path = "";
  history.depths.forEach((point, index) => {
    path += index ? `H${x(point.seconds).toFixed(1)}V${y(point.mean_depth).toFixed(1)}` : `M${x(point.seconds).toFixed(1)},${y(point.mean_depth).toFixed(1)}`;
  });
  if (moved) path += `H${x(last).toFixed(1)}V${y(depth).toFixed(1)}`;
  picture.append(svg("path", { class: "curve", d: `${path}H${x(end).toFixed(1)}` }));
  picture.append(svg("text", { x: left, y: height - 6 }, moment(history.began_at)));
  picture.append(svg("text", { x: width - 8, y: height - 6, "text-anchor": "end" }, `${duration(end)} later`));
  figure.replaceChildren(picture, el("figcaption", {},
    "Mean over the shards of the depth that each serves. Red: a deletion was accepted. Blue: it was restored and certified."));
}

function lines(id) {
  return $(id).value.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line.trim() !== "");
}

function impactView(impact) {
  const rows = impact.shards.map((shard) =>
    el("tr", {},
      el("td", {}, `shard ${shard.shard}`), el("td", {}, `slices ${shard.slices.join(", ")}`), el("td", {}, count(shard.records, "record")),
      el("td", {}, `depths ${shard.depths_before.join(", ")} → ${shard.depths_after.join(", ")}`),
      el("td", {}, `${count(shard.retrain_stages, "stage")} to train again`)));
  const unknown = [...impact.unknown_ids, ...impact.unknown_subjects];
  return [
    el("p", {}, el("strong", {}, `${count(impact.records, "record")} would be deleted.`),
      impact.already_deleted ? ` ${count(impact.already_deleted, "record")} of these names were already deleted.` : ""),
    unknown.length ? el("p", { class: "problem" }, `Not in this run: ${unknown.join(", ")}`) : null,
    rows.length ? el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...rows))) : null,
    ...similarView(impact.likeness),
  ].filter((node) => node !== null);
}

function similarView(likeness) {
  if (!likeness || !likeness.duplicates.records) return [];
  return [el("p", {}, `${count(likeness.duplicates.records, "other record")} with the same content will stay.`)];
}

function setConfirming(on) {
  $("confirm").hidden = $("cancel").hidden = !on;
  $("preview").hidden = on;
  for (const id of FIELDS) $(id).readOnly = on;
  if (!on) previewed = null;
}

async function attempt(work) {
  try {
    await work();
    $("problem").hidden = true;
  } catch (error) {
    if (error.status === 401) return showSignIn(signedIn ? "The session has ended. Sign in again." : "");
    $("problem").textContent = error.status ? error.message : "The service cannot be reached. The page keeps trying.";
    $("problem").hidden = false;
  }
}

async function refresh() {
  await attempt(async () => {
    status = await (await call("ui/status")).json();
    if (!signedIn) $("sign-in").hidden = true;
    signedIn = true;
    $("content").hidden = $("sign-out").hidden = false;
    $("ask-section").hidden = !status.answers;
    $("delete-section").hidden = !status.deletes;
    $("more-rights").hidden = status.answers && status.deletes;
    showRun();
    showShards();
    showDeletions();
    showWork();
    showHistory(await (await call("ui/history")).json());
  });
}

async function poll() {
  if ((signedIn || $("sign-in").hidden) && !document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}

function showSignIn(why) {
  signedIn = false;
  $("content").hidden = $("sign-out").hidden = $("more-rights").hidden = true;
  $("run-name").textContent = document.title = "s3t_ray";
  $("run-state").textContent = $("run-facts").textContent = "";
  askForToken(why);
}

function askForToken(why) {
  $("sign-in").hidden = false;
  $("sign-in").querySelector(".problem").textContent = why;
  $("token").value = "";
  $("token").focus();
}

// The token goes to the service once and is not kept here: a cookie that no script can read stands for it.
async function signIn(token) {
  try {
    await call("ui/session", { token });
  } catch (error) {
    return askForToken(error.status === 401 ? "That token does not give access to this service." : error.message);
  }
  $("token").value = "";
  $("sign-in").hidden = true;
  await refresh();
}

async function signOut() {
  await attempt(async () => {
    await call("ui/session", undefined, "DELETE");
    showSignIn("");
  });
}

function listen() {
  $("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn($("token").value.trim());
  });
  $("sign-out").addEventListener("click", signOut);
  $("more-rights").addEventListener("click", () => askForToken(""));
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => {
      filter = button.dataset.filter;
      document.querySelectorAll("[data-filter]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      if (status) showDeletions();
    });
  }
  $("public-key").addEventListener("click", (event) => {
    event.preventDefault();
    attempt(async () => {
      const save = el("a", { href: URL.createObjectURL(await (await call("ui/public.pem")).blob()), download: "public.pem" });
      save.click();
    });
  });
  $("delete").addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("preview"), async () => {
      const office = ["reference", "requester", "reason", "due"].map((name) => [name, $(name).value.trim()]);
      previewed = { ids: lines("ids"), subjects: lines("subjects"), ...Object.fromEntries(office.filter(([, value]) => value)) };
      const impact = await (await call("ui/deletions/preview", previewed)).json();
      $("impact").replaceChildren(...impactView(impact));
      setConfirming(impact.records > 0);
      if (impact.records > 0) $("confirm").focus();
    });
  });
  $("cancel").addEventListener("click", () => {
    setConfirming(false);
    $("impact").replaceChildren();
    $("preview").focus();
  });
  $("confirm").addEventListener("click", () => busy($("confirm"), async () => {
    const receipt = await (await call("ui/deletions", previewed)).json();
    setConfirming(false);
    for (const id of FIELDS) $(id).value = "";
    $("impact").replaceChildren(
      el("p", {}, el("strong", {}, "Receipt "), el("code", {}, receipt.request_id)),
      el("p", {}, `${count(receipt.records, "record")} deleted. The deletion is durable and can no longer be lost.`));
    await refresh();
  }));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(event.submitter, async () => {
      const found = await (await call("ui/ask", { prompt: $("prompt").value })).json();
      $("answers").replaceChildren(
        el("div", { class: "answer" }, el("h3", {}, "Base model"), found.base ?? "It has no trained head for this task."),
        el("div", { class: "answer" }, el("h3", {}, `Live model (depth ${found.depths.join(", ")})`), found.live));
    });
  });
}

async function busy(button, work) {
  button.disabled = true;
  await attempt(work);
  button.disabled = false;
}

listen();
const handed = new URLSearchParams(location.hash.slice(1)).get("token");
if (handed) history.replaceState(null, "", location.pathname); // it must not stay in the address bar or the history
if (handed) signIn(handed).then(poll);
else refresh().then(poll);
