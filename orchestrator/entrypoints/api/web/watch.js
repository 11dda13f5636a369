// Polls the status of one session until it has ended. page.js starts one Watch per session.

import { serverNow, statusOf } from "./api.js";
import { hasEnded, isUnderWay } from "./words.js";

const BUSY_MS = 2000; // a change is expected soon
const CALM_MS = 15000; // a running app: it can only end, or be recovered
const BACKOFF_MAX_MS = 30000;

// Calls changed(status) on each change, lost() and reconnected() around an outage, and gone() if the
// server doesn't know the session (any more). isEnding() says whether the visitor asked for its end.
export class Watch {
  #id;
  #callbacks;
  #etag = null;
  #latest;
  #timer = 0;
  #failures = 0;
  #round = 0; // an answer to an earlier round is out of date
  #stopped = false;

  constructor(status, callbacks) {
    this.#id = status.session_id;
    this.#latest = status;
    this.#callbacks = callbacks;
    document.addEventListener("visibilitychange", this.#resume);
    addEventListener("online", this.#resume);
    this.#schedule(this.#interval());
  }

  // Call it after a change made on this page: an answer still on its way is older than that.
  update(status) {
    this.#latest = status;
    this.#etag = null;
    this.#round += 1;
    this.#schedule(this.#interval());
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#resume);
    removeEventListener("online", this.#resume);
  }

  #resume = () => {
    if (!document.hidden) this.#schedule(0);
  };

  #schedule(delayMs) {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => this.#poll(), delayMs);
  }

  async #poll() {
    if (document.hidden) return; // #resume polls again once the page is visible
    const round = ++this.#round;
    try {
      const { status, etag } = await statusOf(this.#id, this.#etag);
      if (round === this.#round && !this.#stopped) this.#handleAnswer(status, etag);
    } catch (problem) {
      if (round === this.#round && !this.#stopped) this.#handleFailure(problem);
    }
  }

  #handleAnswer(status, etag) {
    if (this.#failures) this.#callbacks.reconnected();
    this.#failures = 0;
    this.#etag = etag;
    if (status) {
      this.#latest = status;
      this.#callbacks.changed(status);
    }
    if (hasEnded(this.#latest)) this.stop();
    else this.#schedule(this.#interval());
  }

  #handleFailure(problem) {
    if (problem.status === 404 || problem.status === 401) {
      this.stop();
      this.#callbacks.gone(problem);
      return;
    }
    this.#failures += 1;
    this.#callbacks.lost();
    const backoffMs = Math.min(BACKOFF_MAX_MS, BUSY_MS * 2 ** (this.#failures - 1));
    const retryAfterMs = Math.min(BACKOFF_MAX_MS, (problem.retryAfterS ?? 0) * 1000);
    this.#schedule(Math.max(retryAfterMs, backoffMs * (0.8 + Math.random() * 0.4)));
  }

  #interval() {
    const isExpiring = Date.parse(this.#latest.expires_at) - serverNow() < CALM_MS;
    const isEnding = this.#latest.status === "destroying" || this.#callbacks.isEnding();
    const isChanging = isUnderWay(this.#latest) || this.#latest.waiting > 0;
    return isChanging || isExpiring || isEnding ? BUSY_MS : CALM_MS;
  }
}
