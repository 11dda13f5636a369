// The versions of the app on the card: download them, restore one, and see what they cost.

import { bundleAddress, restoreVersion } from "./api.js";
import { $, announce, fromTemplate, placeRows, setAlert, setHidden, setText } from "./dom.js";
import { costOf, explainRefusal, makerOf, sizeText } from "./phrases.js";
import { dayAndTimeText, hasEnded } from "./words.js";

let shown = null; // the Status on the card
let data = null; // {versions, usage} of its session
let callbacks = null;
const rows = new Map(); // number of a version -> its row
const restoring = new Set(); // "session version" of each restore that waits for its answer

// Calls added({message, session}) when the server has accepted a restore.
export function setUpVersions(handlers) {
  callbacks = handlers;
  $("version-list").addEventListener("click", (event) => {
    const button = event.target.closest(".version-restore");
    if (button) restore(Number(button.closest(".version").dataset.version));
  });
}

export function renderVersions(status, newData) {
  if (shown?.session_id !== status.session_id) reset();
  shown = status;
  data = newData;
  const { usage } = data;
  const versions = data.versions.filter((version) => !isBeingTested(version, status)).reverse();
  placeRows($("version-list"), versions.map(rowOf));
  for (const version of versions) renderVersion(version, status);
  setText($("versions-count"), String(versions.length));
  setHidden($("versions"), versions.length === 0);
  const hasCost = usage !== null && usage.calls > 0;
  setHidden($("usage"), !hasCost);
  setText($("usage"), hasCost ? costOf(usage) : "");
  setHidden($("past"), versions.length === 0 && !hasCost);
}

// Whether the change that made this version still runs. The version is listed when the status says
// that the change is over.
function isBeingTested(version, status) {
  return Boolean(status.change) && version.message !== null && version.message >= status.change.number;
}

function reset() {
  rows.clear();
  $("versions").open = false;
  setAlert($("versions-error"), "");
}

function rowOf({ version: number }) {
  if (!rows.has(number)) {
    rows.set(number, fromTemplate("version"));
    rows.get(number).dataset.version = number;
  }
  return rows.get(number);
}

function renderVersion(version, status) {
  const row = rows.get(version.version);
  const name = `version ${version.version}`;
  const isRunning = runsNow(version, status);
  row.classList.toggle("runs", isRunning);
  setText(row.querySelector(".version-name"), `Version ${version.version}`);
  setHidden(row.querySelector(".version-runs"), !isRunning);
  setHidden(row.querySelector(".version-unwell"), version.healthy);
  setText(row.querySelector(".version-what"), version.summary || version.title);
  const createdAt = dayAndTimeText(new Date(version.created_at));
  setText(row.querySelector(".version-meta"), `${createdAt} · ${makerOf(version)} · ${sizeText(version.size_bytes)}`);
  const download = row.querySelector(".version-download");
  download.href = bundleAddress(status.session_id, version.version);
  download.setAttribute("aria-label", `Download ${name}`);
  renderRestore(row.querySelector(".version-restore"), version, status, isRunning);
}

// The list may be newer than the status. Then the status decides which version runs.
function runsNow(version, status) {
  return Boolean(status.url) && version.running && version.version === status.version;
}

function renderRestore(button, version, status, isRunning) {
  const canRestore = !isRunning || Boolean(status.change) || status.waiting > 0;
  const isHidden = !status.url || !version.healthy || !canRestore || hasEnded(status);
  const isBusy = restoring.has(keyOf(status.session_id, version.version));
  if (isHidden && document.activeElement === button) $("versions").querySelector("summary").focus();
  setHidden(button, isHidden);
  setText(button, isBusy ? "Asking…" : "Restore");
  button.setAttribute("aria-disabled", String(isBusy));
  button.setAttribute("aria-label", `Restore version ${version.version}`);
}

const keyOf = (id, version) => `${id} ${version}`;

async function restore(version) {
  const { session_id: id } = shown;
  const key = keyOf(id, version);
  if (restoring.has(key)) return;
  setAlert($("versions-error"), "");
  restoring.add(key);
  renderVersions(shown, data);
  try {
    const answer = await restoreVersion(id, version);
    announce(`Going back to version ${version}.`);
    callbacks.added(answer);
  } catch (problem) {
    if (shown.session_id === id) setAlert($("versions-error"), explainRefusal(problem));
  } finally {
    restoring.delete(key);
    renderVersions(shown, data);
  }
}
