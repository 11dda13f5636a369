"use strict";

/* The links: what is a valid one, and how they are kept. Used by server.js. */

const { randomInt } = require("node:crypto");
const fs = require("node:fs");

const MAX_URL = 2048;
const MAX_LINKS = 5000;
const SAVE_DELAY_MS = 300; // hits come in bursts: write the file once for all of them
const ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"; // nothing that looks like something else
const CODE = /^[A-Za-z0-9_-]{2,32}$/;
const RESERVED = new Set(["api", "links", "favicon", "robots"]);

/** A request that can't be granted: `status` is the HTTP status, the message is for the user. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function checkUrl(text, ownHost) {
  if (typeof text !== "string" || !text.trim()) throw new Refused(422, "Please give the address to shorten.");
  if (text.length > MAX_URL) throw new Refused(422, `An address may have ${MAX_URL} characters.`);
  const trimmed = text.trim();
  const hasScheme = /^[a-z][a-z0-9+.-]*:/i.test(trimmed) && !/^[^/:]+\.[^/:]+:\d+/.test(trimmed);
  let url;
  try {
    url = new URL(hasScheme ? trimmed : `https://${trimmed}`);
  } catch {
    throw new Refused(422, "That doesn't look like a web address.");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Refused(422, "Only addresses that begin with http:// or https:// can be shortened.");
  }
  if (url.username || url.password) throw new Refused(422, "Please leave the user name and password out of the address.");
  if (!hasScheme && !url.hostname.includes(".")) throw new Refused(422, "That doesn't look like a web address.");
  if (ownHost && url.host === ownHost.toLowerCase()) throw new Refused(422, "That address is already one of ours.");
  return url.href;
}

class LinkStore {
  #file;
  #links = new Map(); // code -> {code, url, hits, created_at}
  #timer = null;

  constructor(file) {
    this.#file = file;
    if (fs.existsSync(file)) {
      for (const link of JSON.parse(fs.readFileSync(file, "utf8"))) this.#links.set(link.code, link);
    } else {
      this.add({ url: "https://en.wikipedia.org/wiki/Split-flap_display", code: "flaps" });
      this.add({ url: "https://www.openstreetmap.org/#map=5/47.5/9.0", code: "map" });
    }
  }

  /** Newest first. */
  list() {
    return [...this.#links.values()].reverse();
  }

  get(code) {
    return this.#links.get(code) ?? null;
  }

  need(code) {
    const link = this.get(code);
    if (!link) throw new Refused(404, `There is no short link “${code}”.`);
    return link;
  }

  add({ url, code, ownHost }) {
    const target = checkUrl(url, ownHost);
    if (this.#links.size >= MAX_LINKS) throw new Refused(409, "The board is full. Delete a link first.");
    const name = code === undefined || code === null || code === "" ? this.#freeCode() : this.#checkCode(code);
    const link = { code: name, url: target, hits: 0, created_at: new Date().toISOString() };
    this.#links.set(name, link);
    this.#saveSoon();
    return link;
  }

  remove(code) {
    this.need(code);
    this.#links.delete(code);
    this.#saveSoon();
  }

  hit(code) {
    this.need(code).hits += 1;
    this.#saveSoon();
  }

  saveNow() {
    clearTimeout(this.#timer);
    this.#timer = null;
    // Written beside and renamed: a crash in the middle leaves the old file whole.
    fs.writeFileSync(`${this.#file}.new`, JSON.stringify([...this.#links.values()]));
    fs.renameSync(`${this.#file}.new`, this.#file);
  }

  #saveSoon() {
    this.#timer ??= setTimeout(() => this.saveNow(), SAVE_DELAY_MS).unref();
  }

  #checkCode(code) {
    if (typeof code !== "string" || !CODE.test(code.trim())) {
      throw new Refused(422, "A name has 2 to 32 letters, digits, hyphens or underscores.");
    }
    const name = code.trim();
    if (RESERVED.has(name.toLowerCase())) throw new Refused(422, `The name “${name}” is reserved.`);
    if (this.#links.has(name)) throw new Refused(409, `The name “${name}” is taken.`);
    return name;
  }

  #freeCode() {
    for (;;) {
      const code = Array.from({ length: 5 }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");
      if (!this.#links.has(code)) return code;
    }
  }
}

module.exports = { LinkStore, Refused };
