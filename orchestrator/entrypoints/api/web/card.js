// The card of one session: progress, link, remaining time, failure, and the actions. Messages and
// versions are in changes.js.

import { bundleAddress, endSession, extendSession, logLines, serverNow, statusOf } from "./api.js";
import { isChanged, renderChanges, setUpChanges } from "./changes.js";
import { $, announce, setAlert, setBar, setHidden, setLink, setText } from "./dom.js";
import { changeLine, runningLine } from "./phrases.js";
import {
  clockText, dayAndTimeText, emojiOf, explain, hasEnded, isUnderWay, labelOf, queueText, secondsText,
  STEPS, titleOf, ttlMs,
} from "./words.js";

const COPIED_NOTE_MS = 2000;
const EQUAL_WITHIN_MS = 60000;

let shown = null; // the Status on the card
const ending = new Set(); // ids of sessions that the visitor asked to end
let callbacks = null;

// Calls changed(status) after an action here, again(request) -> promise, and edit(prompt).
export function setUpCard(handlers) {
  callbacks = handlers;
  $("copy").addEventListener("click", copyLink);
  $("extend").addEventListener("submit", extend);
  $("extend-ttl").addEventListener("change", tickCard);
  $("delete").addEventListener("click", () => $("confirm").showModal());
  $("confirm").addEventListener("close", () => {
    if ($("confirm").returnValue === "delete") end();
    $("confirm").returnValue = "";
  });
  $("again").addEventListener("click", tryAgain);
  $("edit").addEventListener("click", edit);
  $("offer").addEventListener("click", takeOffer);
  $("anew").addEventListener("click", makeAnew);
  $("log").addEventListener("toggle", showLog);
  setUpChanges({ changed: handlers.changed, loaded: () => renderStage(shown) });
}

export const isEnding = (id) => ending.has(id);

export function focusCard() {
  $("session-title").focus({ preventScroll: true });
  $("session").scrollIntoView({ block: "nearest" });
}

export function renderCard(status, templates, isLost) {
  const before = shown;
  shown = status;
  if (before?.session_id !== status.session_id) reset(status, templates);
  else announceNews(before, status);
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

// Called once a second. Updates what changes with time alone.
export function tickCard() {
  if (!shown) return;
  const leftMs = Date.parse(shown.expires_at) - serverNow();
  setText($("countdown"), clockText(leftMs));
  setText($("expires-at"), `(${dayAndTimeText(new Date(shown.expires_at))})`);
  const isShorter = ttlMs($("extend-ttl").value) < leftMs - EQUAL_WITHIN_MS;
  setText($("extend-button"), isShorter ? "Shorten" : "Extend");
  if (!hasEnded(shown)) renderSteps(shown);
}

function reset(status, templates) {
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
  const prompt = status.prompt.trim();
  setHidden($("session-prompt"), !prompt || prompt === title);
  setText($("session-prompt"), prompt);
  setText($("session-state"), labelOf(status));
  $("session-state").dataset.state = status.status;
  setHidden($("reused"), !status.reused || !status.url);
}

function renderProgress(status) {
  const label = labelOf(status);
  const queue = status.status === "queued" ? queueText(status.queue_position) : "";
  const attempt = status.attempt > 1 && isUnderWay(status) ? `attempt ${status.attempt}` : "";
  const parts = [progressLine(status) || label, queue, attempt];
  setText($("session-message"), parts.filter(Boolean).join(" · "));
  setHidden($("session-progress"), status.status === "failed");
  setHidden($("bar"), !isUnderWay(status) && status.status !== "ready");
  $("bar").classList.toggle("rests", status.status === "ready"); // keeps its space for the next change
  setHidden($("session-percent"), !isUnderWay(status));
  setText($("session-percent"), `${status.progress} %`);
  $("bar").setAttribute("aria-valuenow", String(status.progress));
  $("bar").setAttribute("aria-valuetext", `${label}, ${status.progress} percent`);
  setBar($("bar"), status.progress);
}

function progressLine(status) {
  if (status.change) return changeLine(status);
  return status.status === "ready" ? runningLine(status) : status.message;
}

// The steps show how the first version is made. After the first change, line and bar replace them.
function renderStage(status) {
  const isServed = Boolean(status.url);
  if (isServed) $("session").dataset.served = isChanged(status) ? "changed" : "first";
  else delete $("session").dataset.served;
}

function renderSteps(status) {
  const secondsByStep = new Map(status.phases.map((phase) => [phase.name, phase.seconds]));
  const current = STEPS.indexOf(status.status);
  const reached = status.phases.map((phase) => phase.name).filter((name) => STEPS.includes(name));
  const failedStep = status.status === "failed" ? reached.at(-1) : null;
  for (const item of $("steps").children) {
    const name = item.dataset.step;
    const index = STEPS.indexOf(name);
    const isPast = index < current || (current < 0 && secondsByStep.has(name));
    // A template has no generating step. A fast start can skip steps between two polls.
    setHidden(item, name === "generating" && Boolean(status.template) && !secondsByStep.has(name));
    item.className = name === failedStep ? "broken" : index === current ? "current" : isPast ? "past" : "";
    if (index === current) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    setText(item.querySelector("small"), durationOf(name, status, secondsByStep));
  }
}

function durationOf(name, status, secondsByStep) {
  if (name === "ready") {
    if (status.status !== "ready") return "";
    const total = STEPS.slice(0, -1).reduce((sum, step) => sum + (secondsByStep.get(step) ?? 0), 0);
    return `after ${secondsText(total)}`;
  }
  if (!secondsByStep.has(name)) return "";
  const sinceArrival = name === status.status ? (performance.now() - status.arrived_ms) / 1000 : 0;
  return secondsText(secondsByStep.get(name) + sinceArrival);
}

function renderLink(status) {
  setHidden($("session-open"), !status.url);
  setLink($("open-link"), status.url);
  setText($("open-url"), status.url ?? "");
}

function renderFailure(status) {
  const isFailed = status.status === "failed";
  setHidden($("session-failure"), !isFailed);
  setText($("failure-code"), isFailed ? (status.error?.code ?? "") : "");
  setText($("failure-message"), isFailed ? (status.error?.message || status.message) : "");
  setHidden($("offer"), !status.offer);
  setText($("offer"), status.offer ? `Start ${status.offer.title} instead` : "");
}

function renderActions(status) {
  const isOver = hasEnded(status) || status.status === "destroying";
  const isDeleting = ending.has(status.session_id);
  setHidden($("expiry"), isOver);
  setHidden($("extend"), !status.url || isDeleting);
  setHidden($("delete"), isOver);
  $("delete").setAttribute("aria-disabled", String(isDeleting));
  setText($("delete"), isDeleting ? "Deleting…" : "Delete");
  setHidden($("again"), !hasEnded(status));
  setText($("again"), status.status === "failed" ? "Try again" : "Make it again");
  $("again").classList.toggle("primary", status.status === "failed");
  setHidden($("edit"), !hasEnded(status) || !status.prompt);
  setHidden($("download"), !status.url);
  $("download").href = bundleAddress(status.session_id);
}

// changes.js announces how a change ended: it knows the result.
function announceNews(before, status) {
  if (status.change) {
    if (status.change.number !== before.change?.number) announce(`${changeLine(status)}.`);
  } else if (before.status !== status.status && !(before.change && status.status === "ready")) {
    announce(announcementOf(status));
  }
}

function announcementOf(status) {
  if (status.status === "ready") return "Your app is ready. Its link is at the top of the card.";
  if (status.status === "failed") return `This didn’t work. ${status.message}`;
  return status.message || labelOf(status);
}

// Runs an action. If it fails, shows why in `alert`, and returns null.
async function attempt(alert, action, field = null) {
  clearProblems();
  try {
    return await action();
  } catch (problem) {
    setAlert(alert, explain(problem), field);
    return null;
  }
}

async function extend(event) {
  event.preventDefault();
  const id = shown.session_id;
  const ttl = $("extend-ttl").value;
  const status = await attempt($("extend-error"), () => extendSession(id, ttl), $("extend-ttl"));
  if (!status) return;
  callbacks.changed(status);
  announce(`Kept until ${dayAndTimeText(new Date(status.expires_at))}.`);
}

async function end() {
  const id = shown.session_id;
  if (ending.has(id)) return;
  ending.add(id);
  callbacks.changed(shown);
  const status = await attempt($("session-error"), () => endSession(id));
  if (!status) ending.delete(id);
  callbacks.changed(status ?? shown);
  if (status) focusCard();
}

async function tryAgain() {
  await attempt($("session-error"), async () => callbacks.again(await wholeRequest()));
}

async function makeAnew() {
  await attempt($("session-error"), async () => callbacks.again({ ...(await wholeRequest()), fresh: true }));
}

async function edit() {
  await attempt($("session-error"), async () => callbacks.edit((await wholeRequest()).prompt));
}

// What the shown app was made from. The list of sessions has only the beginning of a long prompt.
async function wholeRequest() {
  const { prompt, template } = shown.prompt_is_cut ? (await statusOf(shown.session_id)).status : shown;
  return { prompt, template };
}

async function takeOffer() {
  const { template } = shown.offer;
  await attempt($("session-error"), () => callbacks.again({ prompt: "", template }));
}

async function copyLink() {
  const isCopied = await copy(shown.url);
  $("copy").textContent = isCopied ? "Copied ✓" : "Press Ctrl+C";
  announce(isCopied ? "Link copied." : "The link is selected; copy it with Ctrl+C.");
  setTimeout(() => setText($("copy"), "Copy link"), COPIED_NOTE_MS);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers have no clipboard API on plain http: select the address, and copy it the old way.
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
