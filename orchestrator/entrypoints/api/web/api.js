// The HTTP API as functions. Every failure is thrown as a Problem. Status 0 means "no answer".

const TRIES = 3; // every request is safe to repeat: it is idempotent or has an Idempotency-Key
const RETRY_PAUSES_MS = [0, 500];
const TIMEOUT_MS = 20000; // longer than any answer takes; then it counts as lost
const MIN_SKEW_MS = 3000; // a smaller difference is ignored: the countdown must not jump
const CROWDED = [
  "too_many_requests", "too_many_connections", "too_many_polls", "too_many_transfers",
  "too_many_starts", "too_many_changes", "too_many_reads", "too_much_work",
];
const HALF_SECOND_MS = 500; // the Date header is rounded down to whole seconds

let skewMs = 0;

// The time on the server's clock. It decides when an app expires, and visitors' clocks are often wrong.
export const serverNow = () => Date.now() + skewMs;

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

  // Everybody behind this address asks for too much just now.
  get isCrowd() {
    return CROWDED.includes(this.code);
  }
}

async function call(method, path, { body, headers = {} } = {}) {
  const answer = await send(method, path, body, headers);
  updateSkew(answer.headers.get("date"));
  if (answer.status === 304) return { answer, json: null };
  const json = await answer.json().catch(() => null);
  if (answer.ok && json) return { answer, json };
  throw new Problem({
    status: answer.ok ? 502 : answer.status, // not JSON: a page of some proxy in between
    body: json ?? {},
    retryAfterS: Number.parseFloat(answer.headers.get("retry-after")) || null,
  });
}

// Retries at once when a connection drops: the proxy reloaded, or a container that started on the
// browser's machine changed the network. Neither means that the server is down.
async function send(method, path, body, headers) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fetch(path, {
        method,
        cache: "no-store", // the ETag is handled here
        signal: AbortSignal.timeout(TIMEOUT_MS),
        headers: { ...headers, ...(body ? { "Content-Type": "application/json" } : {}) },
        body: body ? JSON.stringify(body) : undefined,
      });
    } catch (error) {
      if (attempt === TRIES || error.name === "TimeoutError") throw new Problem({ status: 0 });
    }
    const pauseMs = RETRY_PAUSES_MS[attempt - 1];
    if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

function updateSkew(date) {
  const offset = Date.parse(date ?? "") + HALF_SECOND_MS - Date.now();
  if (Math.abs(offset - skewMs) > MIN_SKEW_MS) skewMs = offset; // not if it isn't a number
}

// Adds the time of arrival: the card counts the seconds of a phase on from there.
const stamp = (status) => ({ ...status, arrived_ms: performance.now() });

const encode = (id) => encodeURIComponent(id);

// -> {status, etag}; status is null if nothing has changed since etag.
export async function statusOf(id, etag) {
  const headers = etag ? { "If-None-Match": etag } : {};
  const { answer, json } = await call("GET", `/api/status/${encode(id)}`, { headers });
  return { status: json && stamp(json), etag: answer.headers.get("etag") ?? etag };
}

export async function listSessions() {
  const { json } = await call("GET", "/api/sessions?limit=50");
  return json.sessions.map(stamp);
}

export async function listTemplates() {
  return (await call("GET", "/api/templates")).json.templates;
}

export async function extendSession(id, ttl) {
  return stamp((await call("POST", `/api/sessions/${encode(id)}/extend`, { body: { ttl } })).json);
}

export async function endSession(id) {
  return stamp((await call("DELETE", `/api/sessions/${encode(id)}`)).json);
}

export async function logLines(id) {
  return (await call("GET", `/api/sessions/${encode(id)}/logs?limit=200`)).json.lines;
}

export async function listMessages(id) {
  return (await call("GET", `/api/sessions/${encode(id)}/messages`)).json.messages;
}

export async function listVersions(id) {
  return (await call("GET", `/api/sessions/${encode(id)}/versions`)).json.versions;
}

export async function usageOf(id) {
  return (await call("GET", `/api/sessions/${encode(id)}/usage`)).json;
}

// The download of the running version, or of the version with this number.
export function bundleAddress(id, version = null) {
  return `/api/sessions/${encode(id)}/bundle${version === null ? "" : `?version=${version}`}`;
}

const unanswered = new Map(); // request as JSON -> {key, running}, until its result is known

// A second click joins the first request. A retry after an outage sends the same key, because the
// server may have accepted the request whose answer was lost.
function postOnce(path, body) {
  const request = JSON.stringify([path, body]);
  const entry = unanswered.get(request) ?? { key: newKey(), running: null };
  unanswered.set(request, entry);
  const headers = { "Idempotency-Key": entry.key };
  entry.running ??= call("POST", path, { body, headers }).then(
    ({ json }) => {
      unanswered.delete(request);
      return json;
    },
    (problem) => {
      entry.running = null;
      if (!problem.isOutage) unanswered.delete(request);
      throw problem;
    },
  );
  return entry.running;
}

export async function createSession(request) {
  return stamp(await postOnce("/api/sessions", request));
}

// -> {message, session}
export const sendMessage = (id, text) => change(`/api/sessions/${encode(id)}/messages`, { text });

export const restoreVersion = (id, version) =>
  change(`/api/sessions/${encode(id)}/versions/${version}/restore`);

async function change(path, body) {
  const { message, session } = await postOnce(path, body);
  return { message, session: stamp(session) };
}

// Not randomUUID: browsers don't have it on plain http.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
