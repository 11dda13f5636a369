// What has become of the app on the card since its first prompt: messages, versions, cost. card.js
// hands over each status; only one that tells of something new has them loaded again.

import { listMessages, listVersions, usageOf } from "./api.js";
import { renderConversation, setUpConversation } from "./conversation.js";
import { announce } from "./dom.js";
import { outcomeOf, stateOf, versionBefore } from "./phrases.js";
import { renderVersions, setUpVersions } from "./versions.js";
import { hasEnded } from "./words.js";

const RETRY_MS = 4000;
const RETRY_MAX_MS = 30000;
const NOTHING = { messages: [], versions: [], usage: null };

let calls = null;
let shown = null; // the Status on the card
let known = NOTHING; // of its session
let told = ""; // the gist of the status that `known` was loaded for, or is being loaded for
let open = new Set(); // numbers of the messages that weren't over when last looked at
let round = 0; // an answer of an earlier round is out of date
let retry = 0;

// changed(status): an answer came from here. loaded(): `isChanged` may say something else now.
export function setUpChanges(given) {
  calls = given;
  setUpConversation({ asked });
  setUpVersions({ asked });
}

// Whether anything was ever asked of it beyond its first prompt.
export function isChanged(status) {
  const asked = Boolean(status.change) || status.waiting > 0 || status.version > 1;
  return asked || (shown?.session_id === status.session_id && known.messages.length > 0);
}

export function renderChanges(status) {
  if (shown?.session_id !== status.session_id) {
    known = NOTHING;
    open = new Set();
  }
  shown = status;
  if (gist(status) !== told) {
    told = gist(status);
    load(0);
  }
  render();
}

// Without what moves on by itself: while something is made, most polls bring progress and no more.
function gist(status) {
  const { session_id: id, status: state, attempt, version, change, waiting } = status;
  const before = status.phases.filter((phase) => phase.name !== state);
  return JSON.stringify([id, state, attempt, version, change?.number, waiting, before]);
}

async function load(failures) {
  clearTimeout(retry);
  const mine = ++round;
  const id = shown.session_id;
  const hasRun = Boolean(shown.url) || hasEnded(shown);
  try {
    const [messages, versions, usage] = await Promise.all([
      listMessages(id),
      hasRun ? listVersions(id) : [],
      hasRun ? usageOf(id) : null,
    ]);
    if (mine !== round) return;
    known = { messages, versions, usage };
    render();
    calls.loaded();
  } catch (problem) {
    if (mine !== round || !problem.isOutage) return;
    const wait_ms = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** failures);
    retry = setTimeout(() => load(failures + 1), wait_ms);
  }
}

function render() {
  renderConversation(shown, known.messages);
  renderVersions(shown, known);
  tellOutcome();
}

// Of the last one that is over now and wasn't before: one sentence, however many there were.
function tellOutcome() {
  const last = known.messages.at(-1)?.number;
  const isOver = (one) => ["done", "failed"].includes(stateOf(one, shown, last));
  const news = known.messages.filter((one) => isOver(one) && open.has(one.number)).at(-1);
  open = new Set(known.messages.filter((one) => !isOver(one)).map((one) => one.number));
  if (news && !hasEnded(shown)) announce(outcomeOf(news, versionBefore(news, known.messages), shown));
}

function asked({ message, session }) {
  if (session.session_id === shown.session_id) {
    const others = known.messages.filter((one) => one.number !== message.number);
    known = { ...known, messages: [...others, message] };
  }
  calls.changed(session);
}
