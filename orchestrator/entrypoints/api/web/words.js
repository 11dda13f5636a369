// The texts that people read: names of states, times, titles, and explanations of errors. Pure.

const LABELS = {
  queued: "Queued",
  provisioning: "Provisioning",
  generating: "Generating",
  deploying: "Deploying",
  ready: "Ready",
  destroying: "Ending",
  destroyed: "Gone",
  failed: "Failed",
};
export const STEPS = ["queued", "provisioning", "generating", "deploying", "ready"];
export const KINDS = { static: "Web page", python: "Python app", node: "Node app" };
const ENDED = ["destroyed", "failed"];
const SPARK = "✨";

export const hasEnded = (status) => ENDED.includes(status.status);
export const isUnderWay = (status) => STEPS.indexOf(status.status) >= 0 && status.status !== "ready";

// During a change the current version stays up, so the page doesn't call it "Generating".
export function labelOf(status) {
  return status.change ? "Changing" : (LABELS[status.status] ?? status.status);
}

export function titleOf(status, templates) {
  const template = templates.get(status.template);
  if (template) return template.title;
  const line = status.prompt.trim().split("\n", 1)[0] || status.template || "Untitled app";
  return line.length > 90 ? `${line.slice(0, 88).trimEnd()}…` : line;
}

export const emojiOf = (status, templates) => templates.get(status.template)?.emoji ?? SPARK;

export function queueText(position) {
  if (position === null || position === undefined) return "";
  return position === 1 ? "you are next" : `number ${position} in the queue`;
}

export function secondsText(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const whole = Math.floor(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// 23:59:59, for a clock that counts down.
export function clockText(ms) {
  const total = Math.max(0, Math.ceil(ms / 1000));
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(total / 3600);
  return `${pad(hours)}:${pad(Math.floor((total % 3600) / 60))}:${pad(total % 60)}`;
}

// A rounded time for lists. It changes only once a minute.
export function roughTimeText(ms) {
  const minutes = Math.ceil(Math.max(0, ms) / 60000);
  if (minutes < 1) return "any moment";
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
}

export function dayAndTimeText(date) {
  return date.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
}

export function ttlMs(ttl) {
  return Number.parseInt(ttl, 10) * (ttl.endsWith("m") ? 60000 : 3600000);
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

// "2 hours": in the largest unit that gives a whole number.
export function durationText(seconds) {
  const fits = ([, length]) => seconds >= length && seconds % length === 0;
  const [name, length] = UNITS.find(fits) ?? UNITS[3];
  const count = Math.ceil(seconds / length);
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

export function sentence(text) {
  const whole = text.trim();
  const capital = whole.charAt(0).toUpperCase() + whole.slice(1);
  return !whole || /[.!?…]$/.test(whole) ? capital : `${capital}.`;
}

// One or two sentences that say what the visitor can do now.
export function explain(problem) {
  if (problem.status === 0 || problem.status >= 500) return unreachable(problem);
  if (problem.isCrowd || problem.code === "too_many_sessions") return tooMany(problem);
  const { min_s: min, max_s: max } = problem.members;
  if (problem.field === "ttl" && min && max) {
    return `Choose a time between ${durationText(min)} and ${durationText(max)}.`;
  }
  if (problem.code === "generation_unavailable") {
    const setting = problem.members.setting ?? "the key";
    return `This server has no Claude key (${setting}), so it can’t write new apps yet. `
      + "These templates run right away:";
  }
  return sentence(problem.detail || problem.title);
}

function tooMany(problem) {
  const advice = problem.isCrowd
    ? "Your network asks for a lot at once. Wait a moment"
    : `You have reached the limit of ${problem.members.limit} apps at a time. Delete one below`;
  if (!problem.retryAfterS) return `${advice}, then try again.`;
  const retryAt = new Date(Date.now() + problem.retryAfterS * 1000);
  const time = retryAt.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return `${advice}, or try again in ${durationText(Math.ceil(problem.retryAfterS))} (${time}).`;
}

export function unreachable(problem) {
  const wait = problem.retryAfterS ? ` in ${durationText(Math.ceil(problem.retryAfterS))}` : "";
  const reason = problem.detail ? ` ${sentence(problem.detail)}` : "";
  return `The server can’t take this just now.${reason} Nothing is lost: try again${wait}.`;
}
