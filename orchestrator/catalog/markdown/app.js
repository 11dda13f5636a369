"use strict";

const $ = (id) => document.getElementById(id);
const KEY = "markdown.text";
const source = $("source");
const preview = $("preview");

const WELCOME = `# A letter to the typesetter

You write on the left, in **plain text**. On the right it is *set in type*, at once, while you are still typing.

## What it knows

- **Bold**, *italic*, ~~struck out~~ and \`code\`
- Links such as [the story of foolscap](https://en.wikipedia.org/wiki/Foolscap_folio)
- Lists in lists
  1. numbered
  2. like this

## What is left

- [x] Task lists
- [ ] Things still to do

| Paper    | Width  | Height |
|:---------|-------:|-------:|
| Foolscap | 203 mm | 330 mm |
| A4       | 210 mm | 297 mm |

> A page is a promise that somebody will turn it.

\`\`\`python
def greet(name: str) -> str:
    return f"Dear {name},"
\`\`\`

---

Everything stays in this browser. Save it under *File* when you like it.
`;

function load() {
  try {
    return localStorage.getItem(KEY) ?? WELCOME;
  } catch {
    return WELCOME;
  }
}

let saveTimer = 0;

function render() {
  preview.innerHTML = Markdown.render(source.value); // the renderer escapes all that it is given
  const words = source.value.match(/[\p{L}\p{N}’'-]+/gu)?.length ?? 0;
  const minutes = Math.max(1, Math.round(words / 220));
  $("count").textContent = `${words} ${words === 1 ? "word" : "words"}, ${minutes} min to read`;
  document.title = `${title()} – Foolscap`;
}

function changed() {
  render();
  clearTimeout(saveTimer);
  saveTimer = setTimeout(save, 300);
}

function save() {
  try {
    localStorage.setItem(KEY, source.value);
    say("Saved in this browser");
  } catch {
    say("This browser won't keep the text: save it as a file");
  }
}

const say = (text) => { $("status").textContent = text; };
const title = () => preview.querySelector("h1, h2, h3")?.textContent.trim() || "Untitled";
const fileName = () => title().toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "untitled";

/* ---- formatting ---- */

function replaceRange(from, to, text, selectFrom, selectTo) {
  source.focus();
  source.setSelectionRange(from, to);
  // execCommand is old, and still the only way that keeps the browser's own undo.
  if (!document.execCommand("insertText", false, text)) source.setRangeText(text, from, to, "end");
  source.setSelectionRange(selectFrom, selectTo);
  changed();
}

function wrap(mark, otherwise) {
  const { selectionStart: from, selectionEnd: to, value } = source;
  const before = value.slice(from - mark.length, from);
  const after = value.slice(to, to + mark.length);
  const text = value.slice(from, to);
  if (before === mark && after === mark) {
    replaceRange(from - mark.length, to + mark.length, text, from - mark.length, to - mark.length);
  } else {
    const inner = text || otherwise;
    replaceRange(from, to, mark + inner + mark, from + mark.length, from + mark.length + inner.length);
  }
}

function prefix(mark) {
  const { selectionStart, selectionEnd, value } = source;
  const from = value.lastIndexOf("\n", selectionStart - 1) + 1;
  const found = value.indexOf("\n", selectionEnd);
  const to = found < 0 ? value.length : found;
  const lines = value.slice(from, to).split("\n");
  const all = lines.every((line) => line.startsWith(mark));
  const text = lines.map((line) => (all ? line.slice(mark.length) : mark + line)).join("\n");
  replaceRange(from, to, text, from + (all || text !== mark ? 0 : mark.length), from + text.length);
}

function heading() {
  const { selectionStart, value } = source;
  const from = value.lastIndexOf("\n", selectionStart - 1) + 1;
  const found = value.indexOf("\n", selectionStart);
  const to = found < 0 ? value.length : found;
  const [, marks, text] = /^(#{0,6}) ?(.*)$/.exec(value.slice(from, to));
  const next = marks.length >= 3 ? text : `${"#".repeat(marks.length + 1)} ${text}`;
  replaceRange(from, to, next, from + next.length, from + next.length);
}

function insertBlock(text) {
  const { selectionStart: at, value } = source;
  const lead = at === 0 || value.slice(0, at).endsWith("\n\n") ? "" : value[at - 1] === "\n" ? "\n" : "\n\n";
  replaceRange(at, at, `${lead}${text}\n`, at + lead.length, at + lead.length + text.length);
}

function addLink() {
  const { selectionStart: from, selectionEnd: to, value } = source;
  const label = value.slice(from, to) || "text";
  replaceRange(from, to, `[${label}](https://)`, from + label.length + 3, from + label.length + 11);
}

const actions = {
  heading,
  bold: () => wrap("**", "bold"),
  italic: () => wrap("*", "italic"),
  code: () => wrap("`", "code"),
  link: addLink,
  list: () => prefix("- "),
  task: () => prefix("- [ ] "),
  quote: () => prefix("> "),
  table: () => insertBlock("| One | Two |\n|-----|-----|\n|     |     |"),
};

$("tools").addEventListener("click", (event) => {
  const name = event.target.closest("[data-do]")?.dataset.do;
  if (name) actions[name]();
});

source.addEventListener("keydown", (event) => {
  const name = { b: "bold", i: "italic", e: "code", k: "link" }[event.key.toLowerCase()];
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && name) {
    event.preventDefault();
    actions[name]();
  } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    continueList(event);
  }
});

function continueList(event) {
  const { selectionStart: at, selectionEnd, value } = source;
  if (at !== selectionEnd) return;
  const from = value.lastIndexOf("\n", at - 1) + 1;
  const match = /^(\s*)([-*+]|(\d+)([.)]))\s(\[[ xX]\]\s)?(.*)$/.exec(value.slice(from, at));
  if (!match) return;
  event.preventDefault();
  const [, pad, bullet, number, dot, box, text] = match;
  if (!text) return replaceRange(from, at, "", from, from); // an empty item ends the list
  const marker = number ? `${Number(number) + 1}${dot}` : bullet;
  const lead = `\n${pad}${marker} ${box ? "[ ] " : ""}`;
  replaceRange(at, at, lead, at + lead.length, at + lead.length);
}

/* ---- views ---- */

function setView(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll("[data-view-to]")) {
    const narrow = name === "both" && button.dataset.viewTo === "write" && innerWidth <= 760;
    button.setAttribute("aria-pressed", String(button.dataset.viewTo === name || narrow));
  }
}

for (const button of document.querySelectorAll("[data-view-to]")) {
  button.addEventListener("click", () => setView(button.dataset.viewTo));
}
addEventListener("resize", () => setView(document.body.dataset.view));

// The side that the reader scrolls leads; the other follows at the same share of its length.
let leader = null;
for (const [one, other] of [[source, preview], [preview, source]]) {
  for (const kind of ["pointerenter", "focus", "touchstart"]) {
    one.addEventListener(kind, () => { leader = one; }, { passive: true });
  }
  one.addEventListener("scroll", () => {
    if (leader !== one) return;
    const share = one.scrollTop / Math.max(1, one.scrollHeight - one.clientHeight);
    other.scrollTop = share * (other.scrollHeight - other.clientHeight);
  }, { passive: true });
}

/* ---- files ---- */

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`Saved as ${name}`);
}

function wholePage() {
  const style = "body{max-width:42rem;margin:3rem auto;padding:0 1.25rem;font:1.1rem/1.65 Charter,Cambria,Georgia,serif;color:#1b1e2e}" +
    "pre,code{font-family:ui-monospace,Menlo,Consolas,monospace;background:#eef0f8}pre{padding:1em;overflow:auto}" +
    "blockquote{margin:0;padding-left:1.2em;border-left:3px solid #2b3a8c}img{max-width:100%}" +
    "table{border-collapse:collapse}th,td{padding:.45em 1em .45em 0;border-bottom:1px solid #ccd}li.task{list-style:none}";
  return `<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n` +
    `<title>${Markdown.escape(title())}</title>\n<style>${style}</style>\n</head>\n<body>\n${Markdown.render(source.value)}\n</body>\n</html>\n`;
}

const files = {
  open: () => $("file").click(),
  "save-md": () => download(`${fileName()}.md`, "text/markdown", source.value),
  "save-html": () => download(`${fileName()}.html`, "text/html", wholePage()),
  "copy-html": copyHtml,
  print: () => print(),
  fresh: () => {
    if (source.value.trim() && !confirm("Start a new page? What you see now is replaced.")) return;
    source.value = "";
    setView("both");
    source.focus();
    changed();
  },
};

async function copyHtml() {
  const html = Markdown.render(source.value);
  try {
    await navigator.clipboard.writeText(html);
    say("HTML copied");
  } catch {
    say("Copying isn't allowed here: save as HTML instead"); // plain http has no clipboard
  }
}

for (const [id, run] of Object.entries(files)) {
  $(id).addEventListener("click", () => {
    $("menu").open = false;
    run();
  });
}

$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  if (file) await openFile(file);
  $("file").value = "";
});

async function openFile(file) {
  if (file.size > 1e6) return say("That file is larger than 1 MB");
  source.value = await file.text();
  changed();
  say(`Opened ${file.name}`);
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  const file = event.dataTransfer?.files[0];
  if (!file) return;
  event.preventDefault();
  openFile(file);
});
document.addEventListener("click", (event) => { if (!event.target.closest("#menu")) $("menu").open = false; });
addEventListener("keydown", (event) => { if (event.key === "Escape") $("menu").open = false; });

source.addEventListener("input", changed);
source.value = load();
setView("both");
render();
