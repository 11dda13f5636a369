"use strict";

/*
 * A URL shortener on Node's own http module: a page that works without JavaScript, a JSON API,
 * and the redirects. Started as `node server.js`; listens on $HOST:$PORT; keeps its links in
 * links.json beside this file.
 */

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { LinkStore, Refused } = require("./links.js");
const { renderPage, renderProblem } = require("./page.js");

const PORT = Number(process.env.PORT ?? 3001);
const HOST = process.env.HOST ?? "127.0.0.1";
const MAX_BODY_BYTES = 16 * 1024;
const TYPES = { ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml" };
const HEADERS = {
  "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
};

const links = new LinkStore(path.join(__dirname, "links.json"));

// Read once at the start: only these names are ever served, so no request can reach another file.
const assets = new Map(
  fs.readdirSync(path.join(__dirname, "public")).map((name) => [
    `/${name}`,
    { type: TYPES[path.extname(name)], body: fs.readFileSync(path.join(__dirname, "public", name)) },
  ]),
);

/* ---- answers ---- */

function send(response, status, type, body, headers = {}) {
  response.writeHead(status, { ...HEADERS, "Content-Type": type, "Content-Length": Buffer.byteLength(body), ...headers });
  response.end(response.req.method === "HEAD" ? undefined : body);
}

const sendJson = (response, status, value, headers) =>
  send(response, status, "application/json; charset=utf-8", `${JSON.stringify(value)}\n`, headers);
const sendPage = (response, status, html) =>
  send(response, status, "text/html; charset=utf-8", html, { "Cache-Control": "no-store" });

function redirect(response, status, location) {
  response.writeHead(status, { ...HEADERS, Location: location, "Cache-Control": "no-store", "Content-Length": 0 });
  response.end();
}

/* ---- requests ---- */

function readBody(request) {
  return new Promise((resolve, reject) => {
    let chunks = [];
    let size = 0;
    request.on("data", (chunk) => {
      size += chunk.length;
      if (size <= MAX_BODY_BYTES) return chunks.push(chunk);
      chunks = []; // the rest is read and dropped: a client that still sends wouldn't see the answer
      reject(new Refused(413, "That is more than this service reads."));
    });
    request.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    request.on("error", reject);
  });
}

async function readJson(request) {
  let value;
  try {
    value = JSON.parse(await readBody(request));
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(400, "The body isn't valid JSON.");
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Refused(400, 'The body must be a JSON object, such as {"url": "https://example.org/"}.');
  }
  return value;
}

function baseOf(request) {
  const scheme = request.headers["x-forwarded-proto"] === "https" ? "https" : "http";
  return `${scheme}://${request.headers.host ?? "localhost"}/`;
}

const toPublic = (request, link) => ({ ...link, short_url: baseOf(request) + link.code });

/* ---- routes: [method, pattern, handler(request, response, match, url)] ---- */

const routes = [
  ["GET", /^\/$/, (request, response, match, url) => {
    const created = links.get(url.searchParams.get("new") ?? "");
    sendPage(response, 200, renderPage({ links: links.list(), base: baseOf(request), created }));
  }],
  ["POST", /^\/links$/, createFromForm],
  ["POST", /^\/links\/([^/]+)\/delete$/, (request, response, [, code]) => {
    links.remove(decode(code));
    redirect(response, 303, "../../");
  }],
  ["GET", /^\/api\/links$/, (request, response) => {
    sendJson(response, 200, links.list().map((link) => toPublic(request, link)), { "Cache-Control": "no-store" });
  }],
  ["POST", /^\/api\/links$/, async (request, response) => {
    const { url, code } = await readJson(request);
    const link = toPublic(request, links.add({ url, code, ownHost: request.headers.host }));
    sendJson(response, 201, link, { Location: link.short_url });
  }],
  ["GET", /^\/api\/links\/([^/]+)$/, (request, response, [, code]) => {
    sendJson(response, 200, toPublic(request, links.need(decode(code))));
  }],
  ["DELETE", /^\/api\/links\/([^/]+)$/, (request, response, [, code]) => {
    links.remove(decode(code));
    response.writeHead(204, HEADERS).end();
  }],
  ["GET", /^\/([^/]+)$/, (request, response, [, code]) => {
    const link = links.need(decode(code));
    if (request.method !== "HEAD") links.hit(link.code);
    redirect(response, 302, link.url);
  }],
];

async function createFromForm(request, response) {
  const form = new URLSearchParams(await readBody(request));
  const asked = { url: form.get("url") ?? "", code: form.get("code") ?? "" };
  try {
    const link = links.add({ ...asked, ownHost: request.headers.host });
    redirect(response, 303, `./?new=${link.code}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const values = { links: links.list(), base: baseOf(request), asked, problem: error.message };
    sendPage(response, error.status, renderPage(values));
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Refused(400, "That address isn't spelled correctly.");
  }
}

function parseTarget(target) {
  try {
    return new URL(`http://localhost${target}`);
  } catch {
    throw new Refused(400, "That address isn't spelled correctly.");
  }
}

async function answer(request, response) {
  const url = parseTarget(request.url);
  const asset = assets.get(url.pathname);
  const method = request.method === "HEAD" ? "GET" : request.method;
  if (asset && method === "GET") return send(response, 200, asset.type, asset.body, { "Cache-Control": "no-cache" });

  const here = routes.filter(([, pattern]) => pattern.test(url.pathname));
  const route = here.find(([allowed]) => allowed === method);
  if (route) return route[2](request, response, route[1].exec(url.pathname), url);
  if (here.length) {
    response.setHeader("Allow", here.map(([allowed]) => allowed).join(", "));
    throw new Refused(405, `This address doesn't take ${request.method}.`);
  }
  throw new Refused(404, "There is nothing at this address.");
}

function refuse(request, response, error) {
  const status = error instanceof Refused ? error.status : 500;
  const message = error instanceof Refused ? error.message : "Something went wrong here. Please try again.";
  if (status === 500) console.error(error);
  if (response.headersSent) return response.destroy();
  if (status === 413) response.setHeader("Connection", "close");
  if (request.url.startsWith("/api/")) return sendJson(response, status, { error: message });
  const depth = request.url.split("?")[0].split("/").length - 2;
  return sendPage(response, status, renderProblem({ status, message, root: "../".repeat(Math.max(0, depth)) || "./" }));
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => refuse(request, response, error));
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    links.saveNow();
    server.close(() => process.exit(0));
    server.closeIdleConnections();
    setTimeout(() => process.exit(0), 1000).unref(); // a slow reader doesn't hold up the stop
  });
}

server.listen(PORT, HOST, () => console.log(`Listening on http://${HOST}:${PORT}`));
