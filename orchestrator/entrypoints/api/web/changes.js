// The history of the app on the card since its first prompt: messages, versions, cost. card.js hands
// over each status. The history is loaded again only if the status shows that something has changed.

import { listMessages, listVersions, usageOf } from "./api.js";
import { renderConversation, setUpConversation } from "./conversation.js";
import { announce } from "./dom.js";
import { outcomeOf, stateOf, versionBefore } from "./phrases.js";
import { renderVersions, setUpVersions } from "./versions.js";
import { hasEnded } from "./words.js";

const RETRY_MS = 4000;
const RETRY_MAX_MS = 30000;
const NOTHING = { messages: [], versions: [], usage: null };

let callbacks = null;
let shown = null; // the Status on the card
let history = NOTHING; // of its session
let loadedKey = ""; // historyKey of the status that `history` was loaded for, or is being loaded for
let openNumbers = new Set(); // numbers of the messages that weren't over at the last rendering
let round = 0; // an answer to an earlier round is out of date
let retryTimer = 0;

// Calls changed(status) after an action here, and loaded() when `isChanged` may have changed.
export function setUpChanges(handlers) {
  callbacks = handlers;
  setUpConversation({ added });
  setUpVersions({ added });
}

// Whether the user ever asked for a change after the first prompt.
export function isChanged(status) {
  const hasChange = Boolean(status.change) || status.waiting > 0 || status.version > 1;
  return hasChange || (shown?.session_id === status.session_id && history.messages.length > 0);
}

export function renderChanges(status) {
  if (shown?.session_id !== status.session_id) {
    history = NOTHING;
    openNumbers = new Set();
  }
  shown = status;
  if (historyKey(status) !== loadedKey) {
    loadedKey = historyKey(status);
    load(0);
  }
  render();
}

// The parts of a status that can mean new messages, versions or costs. Progress is left out: during
// a change most polls bring nothing else.
function historyKey(status) {
  const { session_id: id, status: state, attempt, version, change, waiting } = status;
  const pastPhases = status.phases.filter((phase) => phase.name !== state);
  return JSON.stringify([id, state, attempt, version, change?.number, waiting, pastPhases]);
}

async function load(failures) {
  clearTimeout(retryTimer);
  const ownRound = ++round;
  const id = shown.session_id;
  const hasRun = Boolean(shown.url) || hasEnded(shown);
  try {
    const [messages, versions, usage] = await Promise.all([
      listMessages(id),
      hasRun ? listVersions(id) : [],
      hasRun ? usageOf(id) : null,
    ]);
    if (ownRound !== round) return;
    history = { messages, versions, usage };
    render();
    callbacks.loaded();
  } catch (problem) {
    if (ownRound !== round || !(problem.isOutage || problem.isCrowd)) return;
    const pauseMs = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** failures);
    retryTimer = setTimeout(() => load(failures + 1), pauseMs);
  }
}

function render() {
  renderConversation(shown, history.messages);
  renderVersions(shown, history);
  announceOutcome();
}

// Announces how a change ended. If several ended since the last rendering, only the latest of them.
function announceOutcome() {
  const { messages } = history;
  const lastNumber = messages.at(-1)?.number;
  const isOver = (message) => ["done", "failed"].includes(stateOf(message, shown, lastNumber));
  const ended = messages.filter((message) => isOver(message) && openNumbers.has(message.number)).at(-1);
  openNumbers = new Set(messages.filter((message) => !isOver(message)).map(({ number }) => number));
  if (ended && !hasEnded(shown)) announce(outcomeOf(ended, versionBefore(ended, messages), shown));
}

function added({ message, session }) {
  if (session.session_id === shown.session_id) {
    const others = history.messages.filter(({ number }) => number !== message.number);
    history = { ...history, messages: [...others, message] };
  }
  callbacks.changed(session);
}
