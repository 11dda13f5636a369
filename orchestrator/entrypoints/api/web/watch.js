// Follows one session by polling its status until it has ended. page.js runs one per session.

import { serverNow, statusOf } from "./api.js";
import { hasEnded, isUnderWay } from "./words.js";

const BUSY_MS = 2000; // something is expected to change
const CALM_MS = 15000; // a running app: it only ends, or is recovered
const BACKOFF_MAX_MS = 30000;

// Calls seen(status) on each change, lost() and found() around an outage, gone() when the server
// doesn't know the session (any more). `isEnding` says whether a visitor asked for its end.
export class Watch {
  #id;
  #calls;
  #etag = null;
  #latest;
  #timer = 0;
  #failures = 0;
  #round = 0; // an answer of an earlier round is out of date
  #stopped = false;

  constructor(status, calls) {
    this.#id = status.session_id;
    this.#latest = status;
    this.#calls = calls;
    document.addEventListener("visibilitychange", this.#resume);
    addEventListener("online", this.#resume);
    this.#plan(this.#pace());
  }

  // After a change made here: what is on its way is older than it.
  update(status) {
    this.#latest = status;
    this.#etag = null;
    this.#round += 1;
    this.#plan(this.#pace());
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#resume);
    removeEventListener("online", this.#resume);
  }

  #resume = () => {
    if (!document.hidden) this.#plan(0);
  };

  #plan(delay_ms) {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => this.#poll(), delay_ms);
  }

  async #poll() {
    if (document.hidden) return; // #resume goes on
    const round = ++this.#round;
    try {
      const { status, etag } = await statusOf(this.#id, this.#etag);
      if (round === this.#round && !this.#stopped) this.#heard(status, etag);
    } catch (problem) {
      if (round === this.#round && !this.#stopped) this.#failed(problem);
    }
  }

  #heard(status, etag) {
    if (this.#failures) this.#calls.found();
    this.#failures = 0;
    this.#etag = etag;
    if (status) {
      this.#latest = status;
      this.#calls.seen(status);
    }
    if (hasEnded(this.#latest)) this.stop();
    else this.#plan(this.#pace());
  }

  #failed(problem) {
    if (problem.status === 404 || problem.status === 401) {
      this.stop();
      this.#calls.gone(problem);
      return;
    }
    this.#failures += 1;
    this.#calls.lost();
    const wait = Math.min(BACKOFF_MAX_MS, BUSY_MS * 2 ** (this.#failures - 1));
    const asked = Math.min(BACKOFF_MAX_MS, (problem.retryAfterS ?? 0) * 1000);
    this.#plan(Math.max(asked, wait * (0.8 + Math.random() * 0.4)));
  }

  #pace() {
    const due = Date.parse(this.#latest.expires_at) - serverNow() < CALM_MS;
    const ending = this.#latest.status === "destroying" || this.#calls.isEnding();
    const expected = isUnderWay(this.#latest) || this.#latest.waiting > 0;
    return expected || due || ending ? BUSY_MS : CALM_MS;
  }
}
