// The page of SpawnAI. app.js loads it. It keeps the visitor's sessions, and passes each change on to
// the card and the list.

import { createSession, listSessions } from "./api.js";
import { focusCard, isEnding, renderCard, setUpCard, tickCard } from "./card.js";
import { clearProblems, chosenTtl, fillPrompt, setUpComposer } from "./composer.js";
import { $, announce, setHidden, setText } from "./dom.js";
import { setUpGallery, suggestTemplates, templates } from "./gallery.js";
import { renderList, setUpList } from "./list.js";
import { Watch } from "./watch.js";
import { hasEnded, titleOf } from "./words.js";

const TICK_MS = 1000;
const RETRY_MS = 4000;

const sessions = new Map(); // id -> Status
const watches = new Map(); // id -> Watch, for sessions that haven't ended
const lost = new Set(); // ids of sessions whose last poll got no answer
let shownId = null; // id of the session on the card

if (/Mac|iP(hone|ad)/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".modifier")) key.textContent = "⌘";
}
setUpComposer({ start, suggest: (names, container) => suggestTemplates(names, container, start) });
setUpCard({ changed, again: (request) => start({ ...request, ttl: chosenTtl() }), edit: fillPrompt });
setUpList({ show: (id) => show(id) });
const resumed = resume(); // first: its answer sets the cookie that sessions belong to
resumed.then(() => setUpGallery({ start, loaded: render }));
setInterval(tick, TICK_MS);

async function start(request) {
  await resumed;
  const status = await createSession(request);
  clearProblems();
  follow(status);
  show(status.session_id);
  announce(`Started. ${status.message}`);
}

// Shows the session that the address names, or else the newest one that hasn't ended.
async function resume() {
  try {
    for (const status of await listSessions()) follow(status);
  } catch {
    setText($("apps-note"), "Reconnecting…");
    setTimeout(resume, RETRY_MS);
    return;
  }
  setText($("apps-note"), "");
  if (shownId === null) {
    const fromAddress = location.hash.slice(1);
    const newest = [...sessions.values()].find((status) => !hasEnded(status));
    shownId = sessions.has(fromAddress) ? fromAddress : (newest?.session_id ?? null);
  }
  render();
}

function follow(status) {
  const id = status.session_id;
  sessions.set(id, status);
  if (hasEnded(status) || watches.has(id)) return;
  watches.set(id, new Watch(status, {
    changed: (latest) => {
      sessions.set(id, latest);
      render();
    },
    lost: () => {
      if (!lost.has(id) && id === shownId) announce("Connection lost. Reconnecting.");
      lost.add(id);
      render();
    },
    reconnected: () => {
      lost.delete(id);
      if (id === shownId) announce("Connected again.");
      render();
    },
    gone: () => forget(id),
    isEnding: () => isEnding(id),
  }));
}

// Called with the new status after an action on the card.
function changed(status) {
  sessions.set(status.session_id, status);
  watches.get(status.session_id)?.update(status);
  render();
}

function forget(id) {
  sessions.delete(id);
  watches.delete(id);
  lost.delete(id);
  if (id === shownId) {
    shownId = null;
    setHidden($("session"), true);
    announce("This app is not known any more.");
  }
  render();
}

function show(id) {
  if (!sessions.has(id)) return;
  shownId = id;
  history.replaceState(null, "", `#${id}`);
  render();
  focusCard();
}

function render() {
  renderList(sessions.values(), templates, shownId);
  const status = sessions.get(shownId);
  if (status) renderCard(status, templates, lost.has(shownId));
  document.title = status ? `${titleOf(status, templates)} · SpawnAI` : "SpawnAI: describe an app, get its link";
}

function tick() {
  tickCard();
  renderList(sessions.values(), templates, shownId);
}
