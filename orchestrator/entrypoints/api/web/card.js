// The card of one session: progress, link, time left, what went wrong, and what can be done. What
// follows its first version is in changes.js.

import { bundleAddress, endSession, extendSession, logLines, serverNow } from "./api.js";
import { isChanged, renderChanges, setUpChanges } from "./changes.js";
import { $, announce, setAlert, setBar, setHidden, setLink, setText } from "./dom.js";
import { changeLine, runningLine } from "./phrases.js";
import {
  clock, dayAndTime, emojiOf, explain, hasEnded, isUnderWay, labelOf, queuePlace, seconds, STEPS,
  titleOf, ttlMs,
} from "./words.js";

const COPIED_MS = 2000;
const ABOUT_EQUAL_MS = 60000;

let shown = null; // the Status on the card
const ending = new Set(); // ids whose end was asked for here
let calls = null;

// changed(status): an answer came from here. again(request) -> promise. edit(prompt).
export function setUpCard(given) {
  calls = given;
  $("copy").addEventListener("click", copyLink);
  $("extend").addEventListener("submit", extend);
  $("extend-ttl").addEventListener("change", tickCard);
  $("delete").addEventListener("click", () => $("confirm").showModal());
  $("confirm").addEventListener("close", () => {
    if ($("confirm").returnValue === "delete") end();
    $("confirm").returnValue = "";
  });
  $("again").addEventListener("click", tryAgain);
  $("edit").addEventListener("click", () => calls.edit(shown.prompt));
  $("offer").addEventListener("click", takeOffer);
  $("anew").addEventListener("click", makeAnew);
  $("log").addEventListener("toggle", showLog);
  setUpChanges({ changed: given.changed, loaded: () => renderStage(shown) });
}

export const isEnding = (id) => ending.has(id);

export function focusCard() {
  $("session-title").focus({ preventScroll: true });
  $("session").scrollIntoView({ block: "nearest" });
}

export function renderCard(status, templates, isLost) {
  const before = shown;
  shown = status;
  if (before?.session_id !== status.session_id) turnTo(status, templates);
  else tellNews(before, status);
  setHidden($("session"), false);
  setHidden($("session-link-state"), !isLost || hasEnded(status));
  renderHead(status, templates);
  renderProgress(status);
  renderSteps(status);
  renderLink(status);
  renderFailure(status);
  renderActions(status);
  renderChanges(status);
  renderStage(status);
  tickCard();
  if ($("log").open && before !== status) showLog();
}

// Once a second: what changes by time alone.
export function tickCard() {
  if (!shown) return;
  const left = Date.parse(shown.expires_at) - serverNow();
  setText($("countdown"), clock(left));
  setText($("expires-at"), `(${dayAndTime(new Date(shown.expires_at))})`);
  const shorter = ttlMs($("extend-ttl").value) < left - ABOUT_EQUAL_MS;
  setText($("extend-button"), shorter ? "Shorten" : "Extend");
  if (!hasEnded(shown)) renderSteps(shown);
}

function turnTo(status, templates) {
  const tint = templates.get(status.template)?.accent;
  if (tint) $("session").style.setProperty("--tint", tint);
  else $("session").style.removeProperty("--tint");
  clearProblems();
  $("log").open = false;
  $("copy").textContent = "Copy link";
}

function clearProblems() {
  setAlert($("session-error"), "");
  setAlert($("extend-error"), "", $("extend-ttl"));
}

function renderHead(status, templates) {
  const title = titleOf(status, templates);
  setText($("session-title"), title);
  setText($("session-emoji"), emojiOf(status, templates));
  const more = status.prompt.trim();
  setHidden($("session-prompt"), !more || more === title);
  setText($("session-prompt"), more);
  setText($("session-state"), labelOf(status));
  $("session-state").dataset.state = status.status;
  setHidden($("reused"), !status.reused || !status.url);
}

function renderProgress(status) {
  const label = labelOf(status);
  const place = status.status === "queued" ? queuePlace(status.queue_position) : "";
  const attempt = status.attempt > 1 && isUnderWay(status) ? `attempt ${status.attempt}` : "";
  const told = [nowOf(status) || label, place, attempt].filter(Boolean).join(" · ");
  setText($("session-message"), told);
  setHidden($("session-progress"), status.status === "failed");
  setHidden($("bar"), !isUnderWay(status) && status.status !== "ready");
  $("bar").classList.toggle("rests", status.status === "ready"); // keeps its place for the next change
  setHidden($("session-percent"), !isUnderWay(status));
  setText($("session-percent"), `${status.progress} %`);
  $("bar").setAttribute("aria-valuenow", String(status.progress));
  $("bar").setAttribute("aria-valuetext", `${label}, ${status.progress} percent`);
  setBar($("bar"), status.progress);
}

function nowOf(status) {
  if (status.change) return changeLine(status);
  return status.status === "ready" ? runningLine(status) : status.message;
}

// The steps tell how the first version came about; once it is changed, the line and the bar stay.
function renderStage(status) {
  const served = Boolean(status.url);
  if (served) $("session").dataset.served = isChanged(status) ? "changed" : "first";
  else delete $("session").dataset.served;
}

function renderSteps(status) {
  const spent = new Map(status.phases.map((phase) => [phase.name, phase.seconds]));
  const current = STEPS.indexOf(status.status);
  const reached = status.phases.map((phase) => phase.name).filter((name) => STEPS.includes(name));
  const broken = status.status === "failed" ? reached.at(-1) : null;
  for (const item of $("steps").children) {
    const name = item.dataset.step;
    const place = STEPS.indexOf(name);
    const isPast = place < current || (current < 0 && spent.has(name));
    // A template is not generated; a fast start skips steps between two polls.
    setHidden(item, name === "generating" && Boolean(status.template) && !spent.has(name));
    item.className = name === broken ? "broken" : place === current ? "current" : isPast ? "past" : "";
    if (place === current) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    setText(item.querySelector("small"), secondsOf(name, status, spent));
  }
}

function secondsOf(name, status, spent) {
  if (name === "ready") {
    if (status.status !== "ready") return "";
    const total = STEPS.slice(0, -1).reduce((sum, step) => sum + (spent.get(step) ?? 0), 0);
    return `after ${seconds(total)}`;
  }
  if (!spent.has(name)) return "";
  const since = name === status.status ? (performance.now() - status.arrived_ms) / 1000 : 0;
  return seconds(spent.get(name) + since);
}

function renderLink(status) {
  setHidden($("session-open"), !status.url);
  setLink($("open-link"), status.url);
  setText($("open-url"), status.url ?? "");
}

function renderFailure(status) {
  const failed = status.status === "failed";
  setHidden($("session-failure"), !failed);
  setText($("failure-code"), failed ? (status.error?.code ?? "") : "");
  setText($("failure-message"), failed ? (status.error?.message || status.message) : "");
  setHidden($("offer"), !status.offer);
  setText($("offer"), status.offer ? `Start ${status.offer.title} instead` : "");
}

function renderActions(status) {
  const over = hasEnded(status) || status.status === "destroying";
  const asked = ending.has(status.session_id);
  setHidden($("expiry"), over);
  setHidden($("extend"), !status.url || asked);
  setHidden($("delete"), over);
  $("delete").setAttribute("aria-disabled", String(asked));
  setText($("delete"), asked ? "Deleting…" : "Delete");
  setHidden($("again"), !hasEnded(status));
  setText($("again"), status.status === "failed" ? "Try again" : "Make it again");
  $("again").classList.toggle("primary", status.status === "failed");
  setHidden($("edit"), !hasEnded(status) || !status.prompt);
  setHidden($("download"), !status.url);
  $("download").href = bundleAddress(status.session_id);
}

// How a change ended is told by changes.js, which knows what came of it.
function tellNews(before, status) {
  if (status.change) {
    if (status.change.number !== before.change?.number) announce(`${changeLine(status)}.`);
  } else if (before.status !== status.status && !(before.change && status.status === "ready")) {
    announce(spoken(status));
  }
}

function spoken(status) {
  if (status.status === "ready") return "Your app is ready. Its link is at the top of the card.";
  if (status.status === "failed") return `This didn’t work. ${status.message}`;
  return status.message || labelOf(status);
}

async function attempt(box, what, field = null) {
  clearProblems();
  try {
    return await what();
  } catch (problem) {
    setAlert(box, explain(problem), field);
    return null;
  }
}

async function extend(event) {
  event.preventDefault();
  const id = shown.session_id;
  const ttl = $("extend-ttl").value;
  const status = await attempt($("extend-error"), () => extendSession(id, ttl), $("extend-ttl"));
  if (!status) return;
  calls.changed(status);
  announce(`Kept until ${dayAndTime(new Date(status.expires_at))}.`);
}

async function end() {
  const id = shown.session_id;
  if (ending.has(id)) return;
  ending.add(id);
  calls.changed(shown);
  const status = await attempt($("session-error"), () => endSession(id));
  if (!status) ending.delete(id);
  calls.changed(status ?? shown);
  if (status) focusCard();
}

async function tryAgain() {
  const { prompt, template } = shown;
  await attempt($("session-error"), () => calls.again({ prompt, template }));
}

async function makeAnew() {
  const { prompt, template } = shown;
  await attempt($("session-error"), () => calls.again({ prompt, template, fresh: true }));
}

async function takeOffer() {
  const { template } = shown.offer;
  await attempt($("session-error"), () => calls.again({ prompt: "", template }));
}

async function copyLink() {
  const done = await copy(shown.url);
  $("copy").textContent = done ? "Copied ✓" : "Press Ctrl+C";
  announce(done ? "Link copied." : "The link is selected; copy it with Ctrl+C.");
  setTimeout(() => setText($("copy"), "Copy link"), COPIED_MS);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard on plain http: select the address, and ask the old way.
    getSelection().selectAllChildren($("open-url"));
    return document.execCommand("copy");
  }
}

async function showLog() {
  if (!$("log").open) return;
  const id = shown.session_id;
  try {
    const lines = await logLines(id);
    const text = lines.map((line) => `${line.at.slice(11, 19)}  ${line.text}`).join("\n");
    if (id === shown.session_id) setText($("log-lines"), text || "Nothing was logged yet.");
  } catch (problem) {
    setText($("log-lines"), explain(problem));
  }
}
