// The page of SpawnAI; app.js loads it. Holds what is known of the visitor's sessions, and passes
// each change on to the card and the list.

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
const watches = new Map(); // id -> Watch, of those that haven't ended
const lost = new Set(); // ids whose last poll got no answer
let shown = null; // id of the session on the card

if (/Mac|iP(hone|ad)/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".modifier")) key.textContent = "⌘";
}
setUpComposer({ start, suggest: (names, into) => suggestTemplates(names, into, start) });
setUpCard({ changed, again: (what) => start({ ...what, ttl: chosenTtl() }), edit: fillPrompt });
setUpList({ show: (id) => show(id) });
const known = resume(); // first: its answer brings the cookie that the sessions belong to
known.then(() => setUpGallery({ start, loaded: render }));
setInterval(tick, TICK_MS);

async function start(request) {
  await known;
  const status = await createSession(request);
  clearProblems();
  take(status);
  show(status.session_id);
  announce(`Started. ${status.message}`);
}

// After a reload: the session of the address, or else the newest that hasn't ended.
async function resume() {
  try {
    for (const status of await listSessions()) take(status);
  } catch {
    setText($("apps-note"), "Reconnecting…");
    setTimeout(resume, RETRY_MS);
    return;
  }
  setText($("apps-note"), "");
  if (shown === null) {
    const addressed = location.hash.slice(1);
    const newest = [...sessions.values()].find((status) => !hasEnded(status));
    shown = sessions.has(addressed) ? addressed : (newest?.session_id ?? null);
  }
  render();
}

function take(status) {
  const id = status.session_id;
  sessions.set(id, status);
  if (hasEnded(status) || watches.has(id)) return;
  watches.set(id, new Watch(status, {
    seen: (latest) => {
      sessions.set(id, latest);
      render();
    },
    lost: () => {
      if (!lost.has(id) && id === shown) announce("Connection lost. Reconnecting.");
      lost.add(id);
      render();
    },
    found: () => {
      lost.delete(id);
      if (id === shown) announce("Connected again.");
      render();
    },
    gone: () => forget(id),
    isEnding: () => isEnding(id),
  }));
}

// An answer to something that was done on the card.
function changed(status) {
  sessions.set(status.session_id, status);
  watches.get(status.session_id)?.update(status);
  render();
}

function forget(id) {
  sessions.delete(id);
  watches.delete(id);
  lost.delete(id);
  if (id === shown) {
    shown = null;
    setHidden($("session"), true);
    announce("This app is not known any more.");
  }
  render();
}

function show(id) {
  if (!sessions.has(id)) return;
  shown = id;
  history.replaceState(null, "", `#${id}`);
  render();
  focusCard();
}

function render() {
  renderList(sessions.values(), templates, shown);
  const status = sessions.get(shown);
  if (status) renderCard(status, templates, lost.has(shown));
  document.title = status ? `${titleOf(status, templates)} · SpawnAI` : "SpawnAI: describe an app, get its link";
}

function tick() {
  tickCard();
  renderList(sessions.values(), templates, shown);
}
