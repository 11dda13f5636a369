// The texts that people read about changes of an app, its versions and their cost. Pure.

import { durationText, explain, sentence } from "./words.js";

export const WAITING_MAX = 5;

// The state of a message. The list of messages can be newer than the status on the card. Then the
// status decides, so that the whole card tells the same: a message that it shows as running or
// waiting is not over yet. lastNumber: the number of the newest message.
export function stateOf(message, status, lastNumber) {
  if (message.state !== "done" && message.state !== "failed") return message.state;
  if (status.change) {
    const distance = message.number - status.change.number;
    return distance < 0 ? message.state : distance === 0 ? "running" : "queued";
  }
  const isWaiting = status.waiting > 0 && message.number > lastNumber - status.waiting;
  return isWaiting ? "queued" : message.state;
}

// The version that ran before a message was carried out: 1, or that of the latest change before it.
export function versionBefore(message, messages) {
  const earlier = messages.filter(({ number, state }) => number < message.number && state === "done");
  return earlier.at(-1)?.version ?? 1;
}

export function badgeOf(message, state) {
  if (state === "queued") return "Waiting";
  if (state === "running") return "Being made";
  return state === "done" ? `Version ${message.version}` : "Not done";
}

export function restoreLine(message, state) {
  const version = `version ${message.restores}`;
  if (state === "queued") return `Waiting to go back to ${version}`;
  if (state === "running") return `Going back to ${version}…`;
  return state === "done" ? `Went back to ${version}` : `Couldn’t go back to ${version}`;
}

export function answerTo(message, state, before, status) {
  if (state === "failed") return `${reasonOf(message.error)} ${stillRunningText(message, before, status)}`.trim();
  if (state === "done") return message.kind === "restore" ? "" : message.summary || "Done.";
  return "";
}

// What screen readers say when a change is over.
export function outcomeOf(message, before, status) {
  const answer = answerTo(message, message.state, before, status);
  if (message.kind === "restore") return `${restoreLine(message, message.state)}. ${answer}`.trim();
  if (message.state === "failed") return `The change was not made. ${answer}`;
  return `Version ${message.version} is running. ${message.summary}`.trim();
}

const REASONS = {
  app_not_healthy: "The changed app didn’t run well.",
  app_not_ready: "The changed app didn’t start.",
  no_room: "There is no room for a second copy of the app’s data, which a change needs. Delete some of it, then send this again.",
  refused: "Claude declined to make this.",
  generation_failed: "Claude couldn’t make this change.",
  generation_timeout: "Claude took too long over this.",
  budget_exhausted: "The budget for Claude’s work is used up for now.",
  provider_unavailable: "Claude couldn’t be reached. Send it again a little later.",
  provider_auth: "Claude doesn’t accept this server’s key. Whoever runs the server has to mend that.",
  provider_no_credit: "Claude has no credit left. Whoever runs the server has to buy some.",
  sandbox_lost: "The machine that it was made on was lost.",
  session_ended: "The app ended before its turn came.",
  version_unknown: "This version isn’t kept any more.",
};

export function reasonOf(error) {
  if (!error) return "It didn’t work.";
  return REASONS[error.code] ?? (sentence(error.message.split("\n", 1)[0]) || "It didn’t work.");
}

// The server's own message, if it says more than the reason does. Otherwise "".
export function detailsOf(error) {
  const details = error?.message.trim() ?? "";
  const isNews = details && error.code !== "session_ended" && sentence(details) !== reasonOf(error);
  return isNews ? details : "";
}

function stillRunningText(message, before, status) {
  if (!status.url || message.error?.code === "session_ended") return "";
  return status.version === before ? `Version ${before} goes on.` : `Version ${before} went on.`;
}

// The line above the bar while a running app is being changed.
export function changeLine(status) {
  const { kind, restores } = status.change;
  if (kind === "restore") return `Going back to version ${restores}`;
  const text = status.message.trim();
  if (!text) return "Changing your app";
  return text.startsWith("Changing") ? text : `Changing your app: ${text}`;
}

export const runningLine = (status) => `Version ${status.version} is running`;

// The note beside the send button: what will happen to the next message.
export function sendingNote(status) {
  if (status.waiting >= WAITING_MAX) return "Five wait already. Send it when one is done.";
  if (status.change || status.waiting > 0) return "It waits for its turn.";
  if (!status.url) return "It waits until your app runs.";
  return "Your app goes on while Claude works on it.";
}

// Why a message or a restore was refused: one or two sentences that say what to do now.
export function explainRefusal(problem) {
  switch (problem.code) {
    case "message_empty":
      return "Say what should change.";
    case "message_too_large":
    case "body_too_large":
      return `This is too long. Shorten it to ${sizeText(problem.members.limit_bytes ?? 16384)}.`;
    case "message_not_text":
      return "There are characters in it that can’t be shown. Take them out, and send it again.";
    case "messages_full":
      return `Five changes wait already. ${retryAdvice(problem)}`;
    case "session_ending":
      return "This app has ended, or is about to. It can’t be changed any more.";
    case "session_unknown":
      return "This app is not known any more.";
    case "generation_unavailable": {
      const setting = problem.members.setting ?? "the key";
      return `This server has no Claude key (${setting}), so it can’t change apps.`;
    }
    case "version_running":
      return "This version runs already.";
    case "version_unknown":
      return "This version isn’t kept any more.";
    case "version_not_healthy":
      return "This version never ran well. It can only be downloaded.";
    default:
      return explain(problem);
  }
}

function retryAdvice({ retryAfterS }) {
  const wait = retryAfterS ? `, in about ${durationText(Math.ceil(retryAfterS))}` : "";
  return `Try again when one of them is done${wait}.`;
}

export function makerOf(version) {
  if (version.provider === "anthropic") return "made by Claude";
  if (version.provider === "fallback") return "made by the fallback provider";
  if (version.provider === "cache") return "from an earlier, equal prompt";
  return version.provider ? `made by ${version.provider}` : "template";
}

export function sizeText(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const kib = bytes / 1024;
  return kib < 1000 ? `${Math.round(kib)} KB` : `${(kib / 1024).toFixed(1)} MB`;
}

export function costOf({ calls, cost_usd: cost }) {
  return `Claude’s work: ${dollars(cost)}, ${calls} call${calls === 1 ? "" : "s"}`;
}

function dollars(cost) {
  if (cost > 0 && cost < 0.001) return "under $0.001";
  return `$${cost.toFixed(cost < 1 ? 3 : 2)}`;
}
