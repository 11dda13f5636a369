// The HTTP API as functions. Every failure is thrown as a Problem; status 0 is "no answer at all".

const TRIES = 3; // each request here can be repeated: by its nature, or by its Idempotency-Key
const BETWEEN_TRIES_MS = [0, 500];
const PATIENCE_MS = 20000; // longer than any answer here takes; then it counts as lost
const SKEW_MS = 3000; // less than this is no skew
const HALF_MS = 500; // the Date header is cut to whole seconds

let skew = 0;

// The server's clock: expiry is the server's, and visitors' clocks are often wrong.
export const serverNow = () => Date.now() + skew;

export class Problem extends Error {
  constructor({ status, body = {}, retryAfterS = null }) {
    super(body.detail ?? body.title ?? `HTTP ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.title = body.title ?? "Something went wrong";
    this.detail = body.detail ?? "";
    this.field = body.field ?? null;
    this.retryAfterS = retryAfterS;
    this.members = body;
  }

  get isOutage() {
    return [0, 502, 503, 504].includes(this.status);
  }
}

async function call(method, path, { body, headers = {} } = {}) {
  const answer = await send(method, path, body, headers);
  noteClock(answer.headers.get("date"));
  if (answer.status === 304) return { answer, json: null };
  const json = await answer.json().catch(() => null);
  if (answer.ok && json) return { answer, json };
  throw new Problem({
    status: answer.ok ? 502 : answer.status, // a page of some proxy in between is no answer of ours
    body: json ?? {},
    retryAfterS: Number.parseFloat(answer.headers.get("retry-after")) || null,
  });
}

// Dropped connections are tried again at once: a proxy's reload, or a container that starts beside
// the browser, cuts them without meaning anything.
async function send(method, path, body, headers) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await fetch(path, {
        method,
        cache: "no-store", // the ETag is handled here
        signal: AbortSignal.timeout(PATIENCE_MS),
        headers: { ...headers, ...(body ? { "Content-Type": "application/json" } : {}) },
        body: body ? JSON.stringify(body) : undefined,
      });
    } catch (error) {
      if (tried === TRIES || error.name === "TimeoutError") throw new Problem({ status: 0 });
    }
    const wait_ms = BETWEEN_TRIES_MS[tried - 1];
    if (wait_ms) await new Promise((resolve) => setTimeout(resolve, wait_ms));
  }
}

function noteClock(date) {
  const offset = Date.parse(date ?? "") + HALF_MS - Date.now();
  if (!Number.isNaN(offset)) skew = Math.abs(offset) > SKEW_MS ? offset : 0;
}

// When it arrived: the seconds of a phase go on from there.
const stamped = (status) => ({ ...status, arrived_ms: performance.now() });

const at = (id) => encodeURIComponent(id);

// -> {status, etag}; status is null when nothing has changed since etag.
export async function statusOf(id, etag) {
  const headers = etag ? { "If-None-Match": etag } : {};
  const { answer, json } = await call("GET", `/api/status/${at(id)}`, { headers });
  return { status: json && stamped(json), etag: answer.headers.get("etag") ?? etag };
}

export async function listSessions() {
  const { json } = await call("GET", "/api/sessions?limit=50");
  return json.sessions.map(stamped);
}

export async function listTemplates() {
  return (await call("GET", "/api/templates")).json.templates;
}

export async function extendSession(id, ttl) {
  return stamped((await call("POST", `/api/sessions/${at(id)}/extend`, { body: { ttl } })).json);
}

export async function endSession(id) {
  return stamped((await call("DELETE", `/api/sessions/${at(id)}`)).json);
}

export async function logLines(id) {
  return (await call("GET", `/api/sessions/${at(id)}/logs?limit=200`)).json.lines;
}

export async function listMessages(id) {
  return (await call("GET", `/api/sessions/${at(id)}/messages`)).json.messages;
}

export async function listVersions(id) {
  return (await call("GET", `/api/sessions/${at(id)}/versions`)).json.versions;
}

export async function usageOf(id) {
  return (await call("GET", `/api/sessions/${at(id)}/usage`)).json;
}

// Of the version that runs, or of one that is named.
export function bundleAddress(id, version = null) {
  return `/api/sessions/${at(id)}/bundle${version === null ? "" : `?version=${version}`}`;
}

const unanswered = new Map(); // what was asked for -> its key, until we know what became of it

// A second click joins the first request; a retry after an outage carries the same key, because
// the lost answer may have been a yes.
function once(path, body) {
  const asked = JSON.stringify([path, body]);
  const known = unanswered.get(asked) ?? { key: newKey(), running: null };
  unanswered.set(asked, known);
  const headers = { "Idempotency-Key": known.key };
  known.running ??= call("POST", path, { body, headers }).then(
    ({ json }) => {
      unanswered.delete(asked);
      return json;
    },
    (problem) => {
      known.running = null;
      if (!problem.isOutage) unanswered.delete(asked);
      throw problem;
    },
  );
  return known.running;
}

export async function createSession(request) {
  return stamped(await once("/api/sessions", request));
}

// -> {message, session}
export const sendMessage = (id, text) => change(`/api/sessions/${at(id)}/messages`, { text });

export const restoreVersion = (id, version) =>
  change(`/api/sessions/${at(id)}/versions/${version}/restore`);

async function change(path, body) {
  const { message, session } = await once(path, body);
  return { message, session: stamped(session) };
}

// Not randomUUID: it is missing on plain http.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
