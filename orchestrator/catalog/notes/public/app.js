"use strict";

const $ = (id) => document.getElementById(id);
const COLORS = ["plain", "sun", "coral", "sage", "sky", "lilac"];

let tag = "";
let editing = null; // the note in the dialog; null for a new one
let asked = 0; // number of the newest list request: answers to older ones are dropped

/* ---- talking to the server ---- */

async function api(method, path, body) {
  const response = await fetch(`api/${path}`, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({}));
  throw new Error(typeof problem.detail === "string" ? problem.detail : `The server answered ${response.status}.`);
}

async function refresh() {
  const mine = ++asked;
  const query = new URLSearchParams({ q: $("search").value.trim(), tag });
  try {
    const [notes, tags] = await Promise.all([api("GET", `notes?${query}`), api("GET", "tags")]);
    if (mine !== asked) return;
    if (tag && !tags.some((t) => t.name === tag)) {
      tag = "";
      return refresh();
    }
    show(notes);
    showTags(tags);
    $("message").hidden = true;
  } catch (error) {
    $("message").textContent = `The notes can't be read: ${error.message}`;
    $("message").hidden = false;
  }
}

/* ---- the page ---- */

function show(notes) {
  $("notes").replaceChildren(...notes.map(card));
  $("notes").setAttribute("aria-busy", "false");
  $("empty").hidden = notes.length > 0;
  $("empty").textContent = $("search").value.trim() || tag ? "No note says that. Yet." : "Nothing here. What is on your mind?";
}

function card(note) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "note";
  button.dataset.color = note.color;
  if (note.title) button.append(element("h2", note.title));
  if (note.body) button.append(element("p", note.body));
  const small = element("small", "");
  if (note.pinned) small.append(element("span", "Pinned", "pinned"));
  small.append(...note.tags.map((name) => element("span", `#${name}`)));
  small.append(element("span", when(note.updated_at)));
  button.append(small);
  button.addEventListener("click", () => open(note));
  item.append(button);
  return item;
}

function element(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function when(iso) {
  const minutes = Math.floor((Date.now() - new Date(iso)) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 60 * 24) return `${Math.floor(minutes / 60)} h ago`;
  return new Date(iso).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

function showTags(tags) {
  const focused = document.activeElement?.dataset?.tag;
  const all = tags.length ? [{ name: "", count: null }, ...tags] : [];
  $("tags").replaceChildren(...all.map(({ name, count }) => {
    const button = element("button", name || "All");
    button.type = "button";
    button.dataset.tag = name;
    button.setAttribute("aria-pressed", String(name === tag));
    if (count) button.append(element("sup", String(count)));
    return button;
  }));
  if (focused !== undefined) $("tags").querySelector(`[data-tag="${CSS.escape(focused)}"]`)?.focus();
}

/* ---- the dialog ---- */

function open(note) {
  editing = note;
  $("title").value = note?.title ?? "";
  $("body").value = note?.body ?? "";
  $("tag-field").value = note?.tags.join(", ") ?? tag;
  $("pinned").checked = note?.pinned ?? false;
  $("problem").textContent = "";
  $("delete").hidden = !note;
  setColor(note?.color ?? COLORS[1 + Math.floor(Math.random() * 5)]);
  $("dialog").showModal();
  $(note ? "body" : "title").focus();
}

function setColor(color) {
  $("dialog").dataset.color = color;
  $("colors").querySelector(`[value="${color}"]`).checked = true;
}

function readForm() {
  return {
    title: $("title").value,
    body: $("body").value,
    color: $("colors").querySelector(":checked").value,
    pinned: $("pinned").checked,
    tags: $("tag-field").value.split(/[,#\s]+/).filter(Boolean),
  };
}

async function attempt(work) {
  try {
    await work();
    $("dialog").close();
    await refresh();
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => (editing ? api("PUT", `notes/${editing.id}`, readForm()) : api("POST", "notes", readForm())));
});
$("delete").addEventListener("click", () => {
  if (confirm("Delete this note?")) attempt(() => api("DELETE", `notes/${editing.id}`));
});
$("cancel").addEventListener("click", () => $("dialog").close());
$("body").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});

$("colors").append(...COLORS.map((name) => {
  const label = document.createElement("label");
  label.dataset.color = name;
  label.append(Object.assign(document.createElement("input"), { type: "radio", name: "color", value: name, ariaLabel: name }));
  return label;
}));
$("colors").addEventListener("change", (event) => setColor(event.target.value));

/* ---- wiring ---- */

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(refresh, 150);
});
$("new").addEventListener("click", () => open(null));
$("tags").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  tag = button.dataset.tag;
  refresh();
});
addEventListener("keydown", (event) => {
  if ($("dialog").open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
  if (event.key === "n") { event.preventDefault(); open(null); }
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
});

refresh();
