"use strict";

/*
 * A small Markdown renderer. Safe by construction: every piece of the source is escaped before it
 * is put into HTML, tags come from this file alone, and links may only use the schemes below.
 */
const Markdown = (() => {
  const SAFE_URL = /^(https?:|mailto:|tel:|#|\.{0,2}\/|[^:/?#\s]+(?:[/?#]|$))/i;
  const SAFE_IMAGE = /^(https?:|data:image\/(png|jpeg|gif|webp);base64,|\.{0,2}\/|[^:/?#\s]+(?:[/?#]|$))/i;

  const escape = (text) =>
    text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&#39;");

  /* ---- inside a line ---- */

  function inline(source) {
    // What is finished is parked under a private mark, so that later rules can't touch it again.
    // An attribute must never get a parked tag: there the mark becomes its source text, escaped.
    const parked = [];
    const park = (html, raw) => `\uE000${parked.push({ html, raw }) - 1}\uE001`;
    const resolve = (text, pick) => {
      while (/\uE000/.test(text)) text = text.replace(/\uE000(\d+)\uE001/g, (_, i) => pick(parked[Number(i)]));
      return text;
    };
    const attribute = (text) => resolve(text, ({ raw }) => escape(raw));
    const link = (url, label, title) =>
      `<a href="${attribute(url)}"${title ? ` title="${attribute(title)}"` : ""} rel="noopener noreferrer" target="_blank">${label}</a>`;

    let text = source.replace(/[\uE000\uE001]/g, "");
    text = text.replace(/\\([\\`*_{}[\]()#+\-.!~|>"'<&])/g, (_, char) => park(escape(char), char));
    text = text.replace(/(`+)(.+?)\1(?!`)/g, (whole, ticks, code) => {
      const shown = resolve(code, ({ raw }) => `\\${raw}`); // no escapes inside code
      return park(`<code>${escape(shown.trim() || shown)}</code>`, `${ticks}${shown}${ticks}`);
    });
    text = text.replace(/<(https?:\/\/[^\s<>]+|[^\s<>@:]+@[^\s<>@:]+\.[a-z]+)>/gi, (whole, target) => {
      const url = escape(target.includes("://") ? target : `mailto:${target}`);
      return park(link(url, escape(target)), target);
    });
    text = escape(text);

    text = text.replace(/!\[([^\]]*)\]\(\s*([^\s)]+)(?:\s+&quot;(.*?)&quot;)?\s*\)/g, (whole, alt, url, title) => {
      if (!SAFE_IMAGE.test(plain(attribute(url)))) return whole;
      const tail = title ? ` title="${attribute(title)}"` : "";
      return park(`<img src="${attribute(url)}" alt="${attribute(alt)}"${tail}>`, plain(attribute(alt)));
    });
    text = text.replace(/\[([^\]]+)\]\(\s*([^\s()]+(?:\([^\s()]*\)[^\s()]*)?)(?:\s+&quot;(.*?)&quot;)?\s*\)/g, (whole, label, url, title) =>
      SAFE_URL.test(plain(attribute(url))) ? park(link(url, emphasis(label), title), plain(attribute(label))) : whole);
    text = text.replace(/(^|[\s(])(https?:\/\/[^\s<]*[^\s<.,;:!?)\]}'"&])/g, (_, lead, url) => lead + park(link(url, url), plain(attribute(url))));
    return resolve(emphasis(text), ({ html }) => html);
  }

  // Before a scheme is judged: undo escaping, drop what browsers ignore in URLs.
  const plain = (url) =>
    url.replace(/&quot;/g, '"').replace(/&#39;/g, "'").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&").replace(/[\u0000-\u0020\uE000-\uE001]/g, "");

  function emphasis(text) {
    return text
      .replace(/\*\*(?=\S)(.{1,1500}?[*_]*)(?<=\S)\*\*/g, "<strong>$1</strong>")
      .replace(/(?<![\p{L}\p{N}_])__(?=\S)(.{1,1500}?[*_]*)(?<=\S)__(?![\p{L}\p{N}_])/gu, "<strong>$1</strong>")
      .replace(/\*(?=\S)(.{1,1500}?)(?<=\S)\*/g, "<em>$1</em>")
      .replace(/(?<![\p{L}\p{N}_])_(?=\S)(.{1,1500}?)(?<=\S)_(?![\p{L}\p{N}_])/gu, "<em>$1</em>")
      .replace(/~~(?=\S)(.{1,1500}?)(?<=\S)~~/g, "<del>$1</del>");
  }

  /* ---- blocks ---- */

  const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
  const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
  const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:\s+(.*)|\s*)$/;
  const QUOTE = /^ {0,3}> ?/;
  const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

  const startsBlock = (line) => RULE.test(line) || HEADING.test(line) || FENCE.test(line) || QUOTE.test(line);

  function blocks(lines, depth, used) {
    const out = [];
    let i = 0;
    while (i < lines.length) {
      const line = lines[i];
      let match;
      if (!line.trim()) {
        i++;
      } else if ((match = FENCE.exec(line))) {
        const body = [];
        const close = new RegExp(`^ {0,3}${match[1][0]}{${match[1].length},}\\s*$`);
        for (i++; i < lines.length && !close.test(lines[i]); i++) body.push(lines[i]);
        i++;
        const language = match[2] ? ` class="language-${escape(match[2])}"` : "";
        out.push(`<pre><code${language}>${escape(body.join("\n"))}\n</code></pre>`);
      } else if ((match = HEADING.exec(line))) {
        const level = match[1].length;
        out.push(`<h${level} id="${slug(match[2] ?? "", used)}">${inline(match[2] ?? "")}</h${level}>`);
        i++;
      } else if (RULE.test(line)) {
        out.push("<hr>");
        i++;
      } else if (QUOTE.test(line) && depth < 20) {
        const body = [];
        while (i < lines.length && lines[i].trim() && (QUOTE.test(lines[i]) || !startsBlock(lines[i]))) {
          body.push(lines[i++].replace(QUOTE, ""));
        }
        out.push(`<blockquote>\n${blocks(body, depth + 1, used)}\n</blockquote>`);
      } else if (ITEM.test(line) && depth < 20) {
        const [html, next] = list(lines, i, depth, used);
        out.push(html);
        i = next;
      } else if (line.includes("|") && DIVIDER.test(lines[i + 1] ?? "") && (lines[i + 1].includes("|") || line.trim().startsWith("|"))) {
        const [html, next] = table(lines, i);
        out.push(html);
        i = next;
      } else {
        const body = [line];
        for (i++; i < lines.length && lines[i].trim() && !startsBlock(lines[i]) && !ITEM.test(lines[i]); i++) body.push(lines[i]);
        out.push(`<p>${paragraph(body)}</p>`);
      }
    }
    return out.join("\n");
  }

  function paragraph(lines) {
    const text = lines.map((line) => line.trimStart()).join("\n");
    return inline(text).replace(/(?: {2,}|\\)\n/g, "<br>\n").trim();
  }

  function list(lines, start, depth, used) {
    const [, pad, marker] = ITEM.exec(lines[start]);
    const ordered = /\d/.test(marker);
    const same = (line) => {
      const m = ITEM.exec(line);
      return m && m[1].length <= pad.length + 1 && /\d/.test(m[2]) === ordered && !RULE.test(line);
    };
    const items = [];
    let loose = false;
    let i = start;
    while (i < lines.length && same(lines[i])) {
      const [, itemPad, itemMarker, first = ""] = ITEM.exec(lines[i]);
      const indent = itemPad.length + itemMarker.length + 1;
      const body = [first];
      for (i++; i < lines.length; i++) {
        const line = lines[i];
        const inside = line.startsWith(" ".repeat(Math.min(indent, itemPad.length + 2)));
        if (!line.trim()) {
          const following = lines.slice(i + 1).find((l) => l.trim());
          if (following === undefined || !(following.startsWith("  ".padEnd(itemPad.length + 2)) || same(following))) break;
          body.push("");
        } else if (inside) {
          body.push(line.slice(Math.min(indent, line.search(/\S/))));
        } else if (ITEM.test(line) || startsBlock(line) || body.at(-1) === "") {
          break;
        } else {
          body.push(line.trimStart());
        }
      }
      while (body.length > 1 && body.at(-1) === "") {
        body.pop();
        if (i < lines.length && same(lines[i])) loose = true;
      }
      items.push(body);
      if (i < lines.length && !lines[i].trim()) break;
    }
    const html = items.map((body) => listItem(body, loose, depth, used)).join("\n");
    const first = parseInt(marker, 10);
    const open = ordered ? (first === 1 ? "<ol>" : `<ol start="${first}">`) : "<ul>";
    return [`${open}\n${html}\n${ordered ? "</ol>" : "</ul>"}`, i];
  }

  function listItem(body, loose, depth, used) {
    const task = /^\[([ xX])\]\s+(.*)$/.exec(body[0]);
    let box = "";
    if (task) {
      body = [task[2], ...body.slice(1)];
      box = `<input type="checkbox" disabled${task[1] === " " ? "" : " checked"}> `;
    }
    let html = blocks(body, depth + 1, used);
    if (!loose) html = html.replace(/^<p>([\s\S]*?)<\/p>/, "$1");
    else if (box) html = html.replace(/^<p>/, `<p>${box}`);
    return `<li${task ? ' class="task"' : ""}>${loose ? "" : box}${html}</li>`;
  }

  function table(lines, start) {
    const cells = (line) => {
      const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
      return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
    };
    const align = cells(lines[start + 1]).map((c) => (/^:.*:$/.test(c) ? "center" : c.endsWith(":") ? "right" : c.startsWith(":") ? "left" : ""));
    const row = (line, tag) => {
      const values = cells(line);
      const tds = align.map((side, n) => `<${tag}${side ? ` align="${side}"` : ""}>${inline(values[n] ?? "")}</${tag}>`);
      return `<tr>${tds.join("")}</tr>`;
    };
    let i = start + 2;
    const body = [];
    for (; i < lines.length && lines[i].trim() && lines[i].includes("|"); i++) body.push(row(lines[i], "td"));
    return [`<table>\n<thead>${row(lines[start], "th")}</thead>\n<tbody>\n${body.join("\n")}\n</tbody>\n</table>`, i];
  }

  function slug(text, used) {
    const base = text.toLowerCase().replace(/[^\p{L}\p{N}\s-]/gu, "").trim().replace(/\s+/g, "-") || "section";
    const count = used.get(base) ?? 0;
    used.set(base, count + 1);
    return count ? `${base}-${count}` : base;
  }

  const render = (source) =>
    blocks(source.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0, new Map());

  return { render, escape };
})();

if (typeof module !== "undefined") module.exports = Markdown;
