// The versions of the app on the card: download, go back to one; and what they cost.

import { bundleAddress, restoreVersion } from "./api.js";
import { $, announce, fromTemplate, placeRows, setAlert, setHidden, setText } from "./dom.js";
import { costOf, explainRefusal, servedBy, size } from "./phrases.js";
import { dayAndTime, hasEnded } from "./words.js";

let shown = null; // the Status on the card
let known = null; // {versions, usage} of its session
let calls = null;
const rows = new Map(); // number of a version -> its row
const restoring = new Set(); // "session version" of each that is being asked for

// asked({message, session}): a restore was taken.
export function setUpVersions(given) {
  calls = given;
  $("version-list").addEventListener("click", (event) => {
    const button = event.target.closest(".version-restore");
    if (button) restore(Number(button.closest(".version").dataset.version));
  });
}

export function renderVersions(status, given) {
  if (shown?.session_id !== status.session_id) turnTo();
  shown = status;
  known = given;
  const { usage } = known;
  const versions = known.versions.filter((version) => !isInTheMaking(version, status));
  const newest = versions.reverse();
  placeRows($("version-list"), newest.map(rowOf));
  for (const version of newest) renderVersion(version, status);
  setText($("versions-count"), String(versions.length));
  setHidden($("versions"), versions.length === 0);
  const hasCost = usage !== null && usage.calls > 0;
  setHidden($("usage"), !hasCost);
  setText($("usage"), hasCost ? costOf(usage) : "");
  setHidden($("past"), versions.length === 0 && !hasCost);
}

// What is kept already and has yet to answer. No version is there before the status says so.
function isInTheMaking(version, status) {
  return Boolean(status.change) && version.message !== null && version.message >= status.change.number;
}

function turnTo() {
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
  const runs = runsNow(version, status);
  row.classList.toggle("runs", runs);
  setText(row.querySelector(".version-name"), `Version ${version.version}`);
  setHidden(row.querySelector(".version-runs"), !runs);
  setHidden(row.querySelector(".version-unwell"), version.healthy);
  setText(row.querySelector(".version-what"), version.summary || version.title);
  const made = dayAndTime(new Date(version.created_at));
  setText(row.querySelector(".version-meta"), `${made} · ${servedBy(version)} · ${size(version.size_bytes)}`);
  const download = row.querySelector(".version-download");
  download.href = bundleAddress(status.session_id, version.version);
  download.setAttribute("aria-label", `Download ${name}`);
  renderRestore(row.querySelector(".version-restore"), version, status, runs);
}

// A list that is newer than the status says nothing about what runs: the status does.
function runsNow(version, status) {
  return Boolean(status.url) && version.running && version.version === status.version;
}

function renderRestore(button, version, status, runs) {
  const isNews = !runs || Boolean(status.change) || status.waiting > 0;
  const hidden = !status.url || !version.healthy || !isNews || hasEnded(status);
  const isBusy = restoring.has(keyOf(status.session_id, version.version));
  if (hidden && document.activeElement === button) $("versions").querySelector("summary").focus();
  setHidden(button, hidden);
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
  renderVersions(shown, known);
  try {
    const answer = await restoreVersion(id, version);
    announce(`Going back to version ${version}.`);
    calls.asked(answer);
  } catch (problem) {
    if (shown.session_id === id) setAlert($("versions-error"), explainRefusal(problem));
  } finally {
    restoring.delete(key);
    renderVersions(shown, known);
  }
}
