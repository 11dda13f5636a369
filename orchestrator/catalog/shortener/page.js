"use strict";

/* The HTML. `html` escapes every value that isn't HTML already. Used by server.js. */

class Html {
  constructor(text) {
    this.text = text;
  }
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function toText(value) {
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(toText).join("");
  return String(value ?? "").replace(/[&<>"']/g, (char) => ENTITIES[char]);
}

function html(strings, ...values) {
  return new Html(strings.map((text, i) => text + (i < values.length ? toText(values[i]) : "")).join(""));
}

function layout({ title, root, body }) {
  return html`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>${title}</title>
  <link rel="icon" href="${root}icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="${root}style.css">
  <script src="${root}app.js" defer></script>
</head>
<body>
${body}
</body>
</html>
`.text;
}

function row(link, base, isNew) {
  const short = base.replace(/^https?:\/\//, "") + link.code;
  const target = link.url.replace(/^https?:\/\/(www\.)?/, "").replace(/\/$/, "");
  return html`<tr data-code="${link.code}"${isNew ? html` class="new"` : ""}>
      <th scope="row"><a class="code" href="${link.code}" title="${short}" rel="noopener" target="_blank">${link.code}</a></th>
      <td class="target"><span title="${link.url}">${target}</span></td>
      <td class="hits"><span class="hidden">Hits: </span><b>${String(link.hits).padStart(3, "0")}</b></td>
      <td class="do">
        <button type="button" class="copy" hidden aria-label="Copy ${short}">Copy</button>
        <form method="post" action="links/${link.code}/delete"><button type="submit" aria-label="Delete ${link.code}">Delete</button></form>
      </td>
    </tr>`;
}

function renderPage({ links, base, created = null, asked = { url: "", code: "" }, problem = "" }) {
  const host = base.replace(/^https?:\/\//, "");
  const body = html`  <header>
    <h1>Departures</h1>
    <p>Long addresses in. Short links out.</p>
    <p class="clock" id="clock" aria-hidden="true"></p>
  </header>
  <main>
    <form class="ticket" method="post" action="links" autocomplete="off" novalidate>
      <div class="field wide">
        <label for="url">Destination</label>
        <input id="url" name="url" type="url" inputmode="url" maxlength="2048" placeholder="https://example.org/a/very/long/way" value="${asked.url}" ${problem ? html`aria-invalid="true" aria-describedby="problem"` : ""}>
      </div>
      <div class="field">
        <label for="code">Name <small>(optional)</small></label>
        <input id="code" name="code" maxlength="32" spellcheck="false" autocapitalize="none" placeholder="summer-trip" value="${asked.code}">
      </div>
      <button type="submit">Shorten</button>
      ${problem ? html`<p class="problem" id="problem" role="alert">${problem}</p>` : ""}
    </form>
    ${created ? html`<p class="done" role="status">Now boarding: <a href="${created.code}" target="_blank" rel="noopener">${host}${created.code}</a></p>` : ""}
    <div class="board">
      <table>
        <caption class="hidden">Short links, the newest first</caption>
        <thead><tr><th scope="col">Name</th><th scope="col">Destination</th><th scope="col" class="hits">Hits</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
        <tbody id="rows">
    ${links.map((link) => row(link, base, created?.code === link.code))}
        </tbody>
      </table>
      ${links.length ? "" : html`<p class="none">No departures. Enter a destination above.</p>`}
    </div>
  </main>
  <footer>For programs: <code>POST api/links</code> with <code>{"url": "…"}</code>, <code>GET api/links</code>, <code>DELETE api/links/name</code>.</footer>
  <p id="live" class="hidden" role="status"></p>`;
  return layout({ title: "Departures: a URL shortener", root: "", body });
}

function renderProblem({ status, message, root }) {
  const body = html`  <main class="lost">
    <p class="flap" aria-hidden="true">${[...String(status)].map((digit) => html`<span>${digit}</span>`)}</p>
    <h1>${message}</h1>
    <p><a href="${root}">Back to the departures</a></p>
  </main>`;
  return layout({ title: message, root, body });
}

module.exports = { renderPage, renderProblem };
