// What people read: names of states, times, titles, and what an error means. Pure.

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

// While a change is made, the version before goes on: that is no new app being generated.
export function labelOf(status) {
  return status.change ? "Changing" : (LABELS[status.status] ?? status.status);
}

export function titleOf(status, templates) {
  const known = templates.get(status.template);
  if (known) return known.title;
  const line = status.prompt.trim().split("\n", 1)[0] || status.template || "Untitled app";
  return line.length > 90 ? `${line.slice(0, 88).trimEnd()}…` : line;
}

export const emojiOf = (status, templates) => templates.get(status.template)?.emoji ?? SPARK;

export function queuePlace(position) {
  if (position === null || position === undefined) return "";
  return position === 1 ? "you are next" : `number ${position} in the queue`;
}

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.floor(value)} s`;
  const whole = Math.floor(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// 24:00:00, as a clock that runs down.
export function clock(ms) {
  const left = Math.max(0, Math.ceil(ms / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(left / 3600);
  return `${two(hours)}:${two(Math.floor((left % 3600) / 60))}:${two(left % 60)}`;
}

// The same, for lists: its text changes once a minute.
export function roughly(ms) {
  const minutes = Math.ceil(Math.max(0, ms) / 60000);
  if (minutes < 1) return "any moment";
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
}

export function dayAndTime(date) {
  return date.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
}

export function ttlMs(ttl) {
  return Number.parseInt(ttl, 10) * (ttl.endsWith("m") ? 60000 : 3600000);
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

export function span(value) {
  const [name, size] = UNITS.find(([, length]) => value >= length && value % length === 0) ?? UNITS[3];
  const count = Math.ceil(value / size);
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

export function sentence(text) {
  const whole = text.trim();
  const capital = whole.charAt(0).toUpperCase() + whole.slice(1);
  return !whole || /[.!?…]$/.test(whole) ? capital : `${capital}.`;
}

// One or two sentences that say what to do now.
export function explain(problem) {
  if (problem.status === 0 || problem.status >= 500) return unreachable(problem);
  if (problem.status === 429) return tooMany(problem);
  const { min_s: least, max_s: most } = problem.members;
  if (problem.code === "ttl_out_of_range" && least && most) {
    return `Choose a time between ${span(least)} and ${span(most)}.`;
  }
  if (problem.code === "generation_unavailable") {
    const setting = problem.members.setting ?? "the key";
    return `This server has no Claude key (${setting}), so it can’t write new apps yet. `
      + "These templates run right away:";
  }
  return sentence(problem.detail || problem.title);
}

function tooMany(problem) {
  const { limit } = problem.members;
  const what = limit
    ? `You have reached the limit of ${limit} apps at a time. Delete one below`
    : "That was a lot at once. Wait a moment";
  if (!problem.retryAfterS) return `${what}, then try again.`;
  const at = new Date(Date.now() + problem.retryAfterS * 1000);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return `${what}, or try again in ${span(Math.ceil(problem.retryAfterS))} (${time}).`;
}

export function unreachable(problem) {
  const wait = problem.retryAfterS ? ` in ${span(Math.ceil(problem.retryAfterS))}` : "";
  const why = problem.detail ? ` ${sentence(problem.detail)}` : "";
  return `The server can’t take this just now.${why} Nothing is lost: try again${wait}.`;
}
