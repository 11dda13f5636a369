// The changes that the user asked for, with their results, and the field for the next message.

import { sendMessage } from "./api.js";
import { $, announce, fromTemplate, onSendKeys, placeRows, setAlert, setHidden, setText } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import {
  answerTo, badgeOf, detailsOf, explainRefusal, restoreLine, sendingNote, stateOf, versionBefore,
  WAITING_MAX,
} from "./phrases.js";
import { hasEnded } from "./words.js";

const AT_END_PX = 32;

let shown = null; // the Status on the card
let callbacks = null;
const rows = new Map(); // number of a message -> its row
const sending = new Set(); // ids of sessions whose message waits for its answer

// Calls added({message, session}) when the server has accepted a message.
export function setUpConversation(handlers) {
  callbacks = handlers;
  const field = $("say-text");
  $("say").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  onSendKeys(field, () => $("say").requestSubmit());
  field.addEventListener("input", () => {
    keepDraft(shown.session_id, field.value);
    setAlert($("say-error"), "", field);
  });
}

export function renderConversation(status, messages) {
  if (shown?.session_id !== status.session_id) reset(status);
  shown = status;
  const isOver = hasEnded(status) || status.status === "destroying";
  renderMessages(status, messages);
  // A typed text stays, so that it can be copied, even if it can no longer be sent.
  setHidden($("say"), isOver && !$("say-text").value);
  setHidden($("talk"), $("say").hidden && messages.length === 0);
  renderSend();
}

function reset(status) {
  rows.clear();
  setAlert($("say-error"), "", $("say-text"));
  $("say-text").value = draftOf(status.session_id);
}

function renderMessages(status, messages) {
  const list = $("messages");
  const wasAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END_PX;
  const isLonger = messages.length > list.children.length;
  const orderedRows = messages.map(({ number }) => {
    if (!rows.has(number)) rows.set(number, newRow(number));
    return rows.get(number);
  });
  placeRows(list, orderedRows);
  for (const message of messages) renderMessage(message, messages, status);
  setHidden(list, messages.length === 0);
  if (wasAtEnd || isLonger) list.scrollTop = list.scrollHeight;
}

function newRow(number) {
  const row = fromTemplate("message");
  row.dataset.message = number;
  row.querySelector(".message-again").addEventListener("click", () => {
    appendToField(row.querySelector(".message-text").textContent);
  });
  return row;
}

function renderMessage(message, messages, status) {
  const row = rows.get(message.number);
  const state = stateOf(message, status, messages.at(-1).number);
  const isRestore = message.kind === "restore";
  const isFailed = state === "failed";
  row.dataset.state = state;
  row.dataset.kind = message.kind;
  setHidden(row.querySelector(".message-said"), isRestore);
  setText(row.querySelector(".message-text"), message.text);
  setText(row.querySelector(".message-restore"), isRestore ? restoreLine(message, state) : "");
  const badge = row.querySelector(".badge");
  setHidden(badge, isRestore);
  setText(badge, badgeOf(message, state));
  const answer = row.querySelector(".message-answer");
  setText(answer, answerTo(message, state, versionBefore(message, messages), status));
  setHidden(answer, !answer.textContent);
  const details = isFailed ? detailsOf(message.error) : "";
  setHidden(row.querySelector(".message-more"), !details);
  setText(row.querySelector(".message-more pre"), details);
  setHidden(row.querySelector(".message-again"), !isFailed || isRestore || !status.url);
}

function renderSend() {
  const isBusy = sending.has(shown.session_id);
  const isFull = shown.waiting >= WAITING_MAX;
  setText($("say-note"), sendingNote(shown));
  setText($("say-send"), isBusy ? "Sending…" : "Send");
  // aria-disabled, not disabled: a disabled button would lose the focus.
  $("say-send").setAttribute("aria-disabled", String(isBusy || isFull));
}

async function send() {
  const { session_id: id, waiting } = shown;
  const field = $("say-text");
  if (sending.has(id)) return;
  setAlert($("say-error"), "", field);
  if (waiting >= WAITING_MAX) {
    setAlert($("say-error"), "Not sent. Your text stays here.", field);
    return;
  }
  const text = field.value;
  sending.add(id);
  renderSend();
  try {
    const answer = await sendMessage(id, text);
    sending.delete(id);
    if (draftOf(id) === text) keepDraft(id, "");
    if (shown.session_id === id) field.value = draftOf(id);
    announce("Sent.");
    callbacks.added(answer);
  } catch (problem) {
    sending.delete(id);
    renderSend();
    if (shown.session_id === id) showRefusal(problem);
  }
}

function showRefusal(problem) {
  setAlert($("say-error"), explainRefusal(problem), $("say-text"));
  $("say-text").focus();
}

// Puts a text below what is typed already, so that nothing is lost.
function appendToField(text) {
  const field = $("say-text");
  field.value = [field.value.trimEnd(), text].filter(Boolean).join("\n");
  keepDraft(shown.session_id, field.value);
  setAlert($("say-error"), "", field);
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
}
