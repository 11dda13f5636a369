"use strict";

const KEY = "kanban.board";
const LABELS = ["Design", "Code", "Words", "Urgent", "Idea"];
const $ = (id) => document.getElementById(id);
const newId = () => Math.random().toString(36).slice(2, 10) + Date.now().toString(36);
const day = (offset) => localDay(new Date(Date.now() + offset * 86400e3));
const localDay = (d) =>
  `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, "0")}-${String(d.getDate()).padStart(2, "0")}`;

let board = load();
let editing = null; // {card, columnId}; card is null for a new one

function load() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY));
    if (Array.isArray(saved?.columns)) return saved;
  } catch { /* private mode or damaged data: begin with the example */ }
  const card = (title, labels = [], note = "", due = "") => ({ id: newId(), title, labels, note, due });
  return {
    name: "Website relaunch",
    columns: [
      { id: newId(), name: "Ideas", cards: [
        card("Photo of the workshop as the opening picture", ["Idea"]),
        card("Newsletter sign-up in the footer", ["Words", "Idea"]),
      ] },
      { id: newId(), name: "To do", cards: [
        card("Write the “About us” page", ["Words"], "Two paragraphs and one portrait.", day(4)),
        card("Choose a typeface that has Polish accents", ["Design"]),
        card("Redirect the old addresses", ["Code"], "List is in the shared folder.", day(9)),
      ] },
      { id: newId(), name: "Doing", cards: [
        card("Contact form loses line breaks", ["Code", "Urgent"], "Reported twice this week.", day(-1)),
        card("Colour palette with enough contrast", ["Design"], "", day(2)),
      ] },
      { id: newId(), name: "Done", cards: [card("Agree on the sitemap", ["Words"])] },
    ],
  };
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(board));
  } catch { /* the board still works until the page is closed */ }
}

function commit() {
  save();
  render();
}

const say = (text) => { $("live").textContent = text; };
const element = (id) => document.querySelector(`[data-id="${CSS.escape(id)}"]`);

function locate(id) {
  for (const column of board.columns) {
    const index = column.cards.findIndex((c) => c.id === id);
    if (index >= 0) return { column, index, card: column.cards[index] };
  }
  return null;
}

function render() {
  const kept = new Map([...document.querySelectorAll(".column")].map((c) => [c.dataset.id, c.querySelector(".cards").scrollTop]));
  $("board-name").value = board.name;
  document.title = board.name || "Kanban board";
  $("board").replaceChildren(...board.columns.map(columnElement));
  if (!board.columns.length) $("board").append(Object.assign(document.createElement("p"), { textContent: "No columns yet. Add the first one above." }));
  for (const [id, top] of kept) element(id)?.querySelector(".cards")?.scrollTo(0, top);
  applySearch();
}

function columnElement(column) {
  const node = $("column-template").content.firstElementChild.cloneNode(true);
  node.dataset.id = column.id;
  node.setAttribute("aria-label", column.name);
  node.querySelector(".column-name").value = column.name;
  node.querySelector(".count").textContent = column.cards.length;
  node.querySelector(".column-delete").setAttribute("aria-label", `Delete column ${column.name}`);
  node.querySelector(".add-card").setAttribute("aria-label", `Add a card to ${column.name}`);
  node.querySelector(".cards").setAttribute("aria-label", `Cards in ${column.name}`);
  node.querySelector(".cards").append(...column.cards.map(cardElement));
  return node;
}

function cardElement(card) {
  const node = $("card-template").content.firstElementChild.cloneNode(true);
  node.dataset.id = card.id;
  node.querySelector("strong").textContent = card.title;
  for (const name of card.labels) {
    const label = Object.assign(document.createElement("span"), { className: "label", textContent: name });
    label.dataset.label = name;
    node.querySelector(".labels").append(label);
  }
  const meta = node.querySelector(".meta");
  if (card.due) {
    const due = document.createElement("span");
    const late = card.due < day(0);
    due.classList.toggle("late", late);
    const shown = new Date(`${card.due}T12:00`).toLocaleDateString(undefined, { day: "numeric", month: "short" });
    due.textContent = late ? `Overdue since ${shown}` : `Due ${shown}`;
    meta.append(due);
  }
  if (card.note) meta.append(Object.assign(document.createElement("span"), { textContent: "Has notes" }));
  return node;
}

function applySearch() {
  const wanted = $("search").value.trim().toLowerCase();
  for (const { cards } of board.columns) {
    for (const card of cards) {
      const text = [card.title, card.note, ...card.labels].join(" ").toLowerCase();
      element(card.id).classList.toggle("faint", wanted !== "" && !text.includes(wanted));
    }
  }
}

function place(id, columnId, index) {
  const from = locate(id);
  const to = board.columns.find((c) => c.id === columnId);
  if (!from || !to) return;
  from.column.cards.splice(from.index, 1);
  to.cards.splice(Math.min(index, to.cards.length), 0, from.card);
  commit();
  say(`${from.card.title}: ${to.name}, position ${to.cards.indexOf(from.card) + 1} of ${to.cards.length}`);
}

/* ---- keyboard ---- */

function moveByKey(id, key) {
  const { column, index } = locate(id);
  const at = board.columns.indexOf(column);
  if (key === "ArrowUp" && index > 0) place(id, column.id, index - 1);
  if (key === "ArrowDown" && index < column.cards.length - 1) place(id, column.id, index + 1);
  if (key === "ArrowLeft" && at > 0) place(id, board.columns[at - 1].id, index);
  if (key === "ArrowRight" && at < board.columns.length - 1) place(id, board.columns[at + 1].id, index);
  focusCard(id);
}

function focusByKey(id, key) {
  const { column, index } = locate(id);
  const at = board.columns.indexOf(column);
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
  let next;
  if (sideways) {
    for (let i = at + sideways; board.columns[i] && !next; i += sideways) {
      next = board.columns[i].cards[Math.min(index, board.columns[i].cards.length - 1)];
    }
  } else {
    next = column.cards[index + (key === "ArrowUp" ? -1 : 1)];
  }
  if (next) focusCard(next.id);
}

function focusCard(id) {
  element(id)?.focus();
  element(id)?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

$("board").addEventListener("keydown", (event) => {
  const card = event.target.closest(".card");
  if (card && event.key.startsWith("Arrow")) {
    event.preventDefault();
    (event.altKey ? moveByKey : focusByKey)(card.dataset.id, event.key);
  } else if (card && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    openCard(card.dataset.id);
  } else if (event.target.matches(".column-name") && event.key === "Enter") {
    event.target.blur();
  }
});

/* ---- pointer: mouse moves at once, a finger after a short hold, so that it can still scroll ---- */

let drag = null;

$("board").addEventListener("pointerdown", (event) => {
  const card = event.target.closest(".card");
  if (!card || event.button !== 0) return;
  drag = { card, pointer: event.pointerId, x: event.clientX, y: event.clientY, moved: false, active: false };
  if (event.pointerType !== "mouse") drag.hold = setTimeout(() => lift(drag), 260);
});

addEventListener("pointermove", (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const distance = Math.hypot(event.clientX - drag.x, event.clientY - drag.y);
  if (!drag.active) {
    if (distance < 6) return;
    if (event.pointerType !== "mouse") return cancelDrag();
    lift(drag);
  }
  follow(event.clientX, event.clientY);
});

function lift(d) {
  const box = d.card.getBoundingClientRect();
  d.active = true;
  d.dx = d.x - box.left;
  d.dy = d.y - box.top;
  d.gap = Object.assign(document.createElement("div"), { className: "gap" });
  d.gap.style.height = `${box.height}px`;
  // The card itself stays where it is in the document: touch events end with their first target.
  d.card.before(d.gap);
  d.card.classList.add("lifted");
  d.card.style.width = `${box.width}px`;
  $("board").classList.add("dragging");
  follow(d.x, d.y);
}

function follow(x, y) {
  drag.lastX = x;
  drag.lastY = y;
  drag.card.style.left = `${x - drag.dx}px`;
  drag.card.style.top = `${y - drag.dy}px`;
  const column = document.elementFromPoint(x, y)?.closest(".column");
  if (column) {
    const list = column.querySelector(".cards");
    const after = [...list.querySelectorAll(".card:not(.lifted)")].find((c) => {
      const box = c.getBoundingClientRect();
      return y < box.top + box.height / 2;
    });
    list.insertBefore(drag.gap, after ?? null);
  }
  if (!drag.frame) drag.frame = requestAnimationFrame(scrollAtEdges);
}

function scrollAtEdges() {
  if (!drag?.active) return;
  drag.frame = 0;
  const { lastX: x, lastY: y } = drag;
  const sideways = x < 48 ? -10 : x > innerWidth - 48 ? 10 : 0;
  const list = drag.gap.parentElement;
  const box = list.getBoundingClientRect();
  const upright = y < box.top + 32 ? -8 : y > box.bottom - 32 ? 8 : 0;
  const before = $("board").scrollLeft + list.scrollTop;
  $("board").scrollLeft += sideways;
  list.scrollTop += upright;
  if ($("board").scrollLeft + list.scrollTop !== before) follow(x, y);
}

// Once a card is in the hand, the page must not scroll under it.
$("board").addEventListener("touchmove", (event) => {
  if (drag?.active) event.preventDefault();
}, { passive: false });
$("board").addEventListener("contextmenu", (event) => {
  if (drag && event.target.closest(".card, .gap")) event.preventDefault();
});

addEventListener("pointerup", (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const { active, card, gap } = drag;
  if (!active) {
    cancelDrag();
    return openCard(card.dataset.id);
  }
  const columnId = gap.closest(".column").dataset.id;
  const index = [...gap.parentElement.querySelectorAll(".gap, .card:not(.lifted)")].indexOf(gap);
  cancelDrag();
  place(card.dataset.id, columnId, index);
  focusCard(card.dataset.id);
});
addEventListener("pointercancel", cancelDrag);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && drag?.active) cancelDrag();
});

function cancelDrag() {
  if (!drag) return;
  clearTimeout(drag.hold);
  cancelAnimationFrame(drag.frame);
  const wasActive = drag.active;
  drag = null;
  $("board").classList.remove("dragging");
  if (wasActive) render();
}

/* ---- the card's dialog ---- */

function openCard(id) {
  const { card, column } = locate(id);
  openDialog(card, column.id);
}

function openDialog(card, columnId) {
  editing = { card, columnId };
  $("dialog-title").textContent = card ? "Edit card" : "New card";
  $("card-title").value = card?.title ?? "";
  $("card-note").value = card?.note ?? "";
  $("card-due").value = card?.due ?? "";
  $("card-column").replaceChildren(...board.columns.map((c) => new Option(c.name, c.id, false, c.id === columnId)));
  $("card-labels").replaceChildren(...LABELS.map((name) => labelChoice(name, card?.labels.includes(name))));
  $("card-delete").hidden = !card;
  $("dialog").showModal();
  if (!card) $("card-title").focus();
}

function labelChoice(name, checked) {
  const label = document.createElement("label");
  label.dataset.label = name;
  const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name, checked: Boolean(checked) });
  label.append(box, name);
  return label;
}

$("card-form").addEventListener("submit", (event) => {
  const title = $("card-title").value.trim();
  if (!title) {
    event.preventDefault();
    $("card-title").value = "";
    $("card-title").reportValidity();
    return;
  }
  const fields = {
    title,
    note: $("card-note").value.trim(),
    due: $("card-due").value,
    labels: [...$("card-labels").querySelectorAll(":checked")].map((box) => box.value),
  };
  const target = board.columns.find((c) => c.id === $("card-column").value);
  const card = editing.card ?? { id: newId() };
  Object.assign(card, fields);
  if (!editing.card) target.cards.push(card);
  else if (target.id !== editing.columnId) place(card.id, target.id, target.cards.length);
  commit();
  focusCard(card.id);
});

$("card-cancel").addEventListener("click", () => $("dialog").close());
$("dialog").addEventListener("close", () => { if (editing?.card) focusCard(editing.card.id); });
$("dialog").addEventListener("click", (event) => {
  if (event.target === $("dialog")) {
    const box = $("dialog").getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) $("dialog").close();
  }
});

$("card-delete").addEventListener("click", () => {
  const { column, index, card } = locate(editing.card.id);
  column.cards.splice(index, 1);
  editing = null;
  $("dialog").close();
  commit();
  say(`${card.title} deleted`);
});

/* ---- columns and board ---- */

$("board").addEventListener("click", (event) => {
  const column = board.columns.find((c) => c.id === event.target.closest(".column")?.dataset.id);
  if (!column) return;
  if (event.target.closest(".add-card")) openDialog(null, column.id);
  if (event.target.closest(".column-delete")) {
    const count = column.cards.length;
    if (count && !confirm(`Delete “${column.name}” and its ${count} card${count > 1 ? "s" : ""}?`)) return;
    board.columns = board.columns.filter((c) => c !== column);
    commit();
    say(`Column ${column.name} deleted`);
  }
});

$("board").addEventListener("change", (event) => {
  if (!event.target.matches(".column-name")) return;
  const column = board.columns.find((c) => c.id === event.target.closest(".column").dataset.id);
  column.name = event.target.value.trim() || column.name;
  event.target.value = column.name;
  event.target.closest(".column").setAttribute("aria-label", column.name);
  save();
});

$("add-column").addEventListener("click", () => {
  const column = { id: newId(), name: "New column", cards: [] };
  board.columns.push(column);
  commit();
  const name = element(column.id).querySelector(".column-name");
  name.scrollIntoView({ inline: "center", block: "nearest" });
  name.select();
});

$("board-name").addEventListener("change", (event) => {
  board.name = event.target.value.trim() || board.name;
  commit();
});
$("board-name").addEventListener("keydown", (event) => { if (event.key === "Enter") event.target.blur(); });
$("search").addEventListener("input", applySearch);
addEventListener("storage", (event) => {
  if (event.key === KEY && !drag && !$("dialog").open) {
    board = load();
    render();
  }
});

render();
