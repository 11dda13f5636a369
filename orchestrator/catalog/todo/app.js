"use strict";

const KEY = "todo.tasks";
const $ = (id) => document.getElementById(id);

let tasks = load();
let filter = "all";
let removed = null; // what "Undo" puts back: [{task, index}, …]
let dragged = null;
let toastTimer = 0;

function load() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY));
    if (Array.isArray(saved)) return saved.filter((t) => t && typeof t.text === "string");
  } catch { /* private mode or damaged data: begin afresh */ }
  return [
    { id: newId(), text: "Buy bread and good butter", done: true },
    { id: newId(), text: "Answer Marta about Thursday", done: false },
    { id: newId(), text: "Book the train to Lisbon", done: false },
    { id: newId(), text: "Double-click or tap me to change me", done: false },
  ];
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(tasks));
  } catch { /* the list still works until the page is closed */ }
}

function newId() {
  return Math.random().toString(36).slice(2) + Date.now().toString(36);
}

const shows = { all: () => true, open: (t) => !t.done, done: (t) => t.done };
const nothing = {
  all: "Nothing to do. Enjoy it.",
  open: "All done. Put the kettle on.",
  done: "Nothing finished yet.",
};

function render() {
  const visible = tasks.filter(shows[filter]);
  $("list").replaceChildren(...visible.map(row));
  $("empty").hidden = visible.length > 0;
  $("empty").textContent = nothing[filter];
  const open = tasks.filter(shows.open).length;
  const done = tasks.length - open;
  $("summary").textContent =
    tasks.length === 0 ? "A blank page" : `${open} open, ${done} done`;
  $("clear").disabled = done === 0;
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
  }
  document.title = open ? `(${open}) To-do` : "To-do";
}

function row(task) {
  const li = $("row").content.firstElementChild.cloneNode(true);
  li.dataset.id = task.id;
  li.classList.toggle("done", task.done);
  const box = li.querySelector("input");
  box.checked = task.done;
  box.setAttribute("aria-label", `Done: ${task.text}`);
  li.querySelector(".text").textContent = task.text;
  li.querySelector(".text").title = "Double-click or press Enter to edit";
  li.querySelector(".remove").setAttribute("aria-label", `Delete: ${task.text}`);
  return li;
}

function change(next) {
  tasks = next;
  save();
  render();
}

function remove(ids) {
  removed = tasks.map((task, index) => ({ task, index })).filter(({ task }) => ids.has(task.id));
  change(tasks.filter((t) => !ids.has(t.id)));
  $("toast-text").textContent =
    removed.length === 1 ? `Deleted “${removed[0].task.text}”` : `Deleted ${removed.length} tasks`;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

function move(id, toIndex) {
  const from = tasks.findIndex((t) => t.id === id);
  if (from < 0 || toIndex < 0 || toIndex >= tasks.length) return;
  const next = tasks.slice();
  next.splice(toIndex, 0, ...next.splice(from, 1));
  change(next);
}

function moveByKey(id, step) {
  // Step over what the filter hides, so that the move is always one that can be seen.
  const visible = tasks.filter(shows[filter]);
  const neighbour = visible[visible.findIndex((t) => t.id === id) + step];
  if (neighbour) move(id, tasks.indexOf(neighbour));
  find(id)?.querySelector(".text").focus();
}

const find = (id) => document.querySelector(`.task[data-id="${CSS.escape(id)}"]`);

function edit(li) {
  const task = tasks.find((t) => t.id === li.dataset.id);
  const field = document.createElement("input");
  field.className = "edit";
  field.value = task.text;
  field.maxLength = 300;
  field.setAttribute("aria-label", "Edit task");
  li.draggable = false;
  li.querySelector(".text").replaceWith(field);
  field.focus();
  field.select();

  let finished = false; // Enter and Escape also cause a blur: only the first of them counts
  const finish = (keep, refocus) => {
    if (finished) return;
    finished = true;
    const text = field.value.trim();
    if (keep && !text) return remove(new Set([task.id]));
    change(tasks.map((t) => (t.id === task.id && keep ? { ...t, text } : t)));
    if (refocus) find(task.id)?.querySelector(".text").focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") finish(true, true);
    if (event.key === "Escape") finish(false, true);
  });
  field.addEventListener("blur", () => finish(true, false));
}

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("new-task").value.trim();
  $("new-task").value = "";
  $("new-task").focus();
  if (!text) return;
  if (filter === "done") filter = "all";
  change([{ id: newId(), text, done: false }, ...tasks]);
});

$("list").addEventListener("change", (event) => {
  if (event.target.type !== "checkbox") return;
  const { id } = event.target.closest(".task").dataset;
  const done = event.target.checked;
  change(tasks.map((t) => (t.id === id ? { ...t, done } : t)));
  find(id)?.querySelector("input").focus();
});

$("list").addEventListener("click", (event) => {
  const li = event.target.closest(".task");
  if (event.target.closest(".remove")) {
    const next = (li.nextElementSibling ?? li.previousElementSibling)?.dataset.id;
    remove(new Set([li.dataset.id]));
    (next ? find(next).querySelector(".text") : $("new-task")).focus();
  } else if (event.target.closest(".text") && event.detail === 0) {
    edit(li); // a "click" with detail 0 comes from the keyboard or a screen reader
  }
});

$("list").addEventListener("dblclick", (event) => {
  if (event.target.closest(".text")) edit(event.target.closest(".task"));
});

// A long list is easier to edit with one tap where there is no double-click.
if (matchMedia("(hover: none)").matches) {
  $("list").addEventListener("click", (event) => {
    if (event.target.closest(".text") && event.detail > 0) edit(event.target.closest(".task"));
  });
}

$("list").addEventListener("keydown", (event) => {
  if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
  if (event.target.matches(".edit")) return;
  event.preventDefault();
  moveByKey(event.target.closest(".task").dataset.id, event.key === "ArrowUp" ? -1 : 1);
});

$("list").addEventListener("dragstart", (event) => {
  dragged = event.target.closest(".task");
  dragged.classList.add("dragged");
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", dragged.querySelector(".text").textContent);
});

$("list").addEventListener("dragover", (event) => {
  const over = event.target.closest(".task");
  if (!dragged || !over) return;
  event.preventDefault();
  for (const li of $("list").children) li.classList.toggle("over", li === over && li !== dragged);
});

$("list").addEventListener("drop", (event) => {
  const over = event.target.closest(".task");
  if (!dragged || !over) return;
  event.preventDefault();
  move(dragged.dataset.id, tasks.findIndex((t) => t.id === over.dataset.id));
});

$("list").addEventListener("dragend", () => {
  for (const li of $("list").children) li.classList.remove("over", "dragged");
  dragged = null;
});

$("footer").addEventListener("click", (event) => {
  if (!event.target.dataset.filter) return;
  filter = event.target.dataset.filter;
  render();
});

$("clear").addEventListener("click", () => remove(new Set(tasks.filter(shows.done).map((t) => t.id))));

$("undo").addEventListener("click", () => {
  const next = tasks.slice();
  for (const { task, index } of removed ?? []) next.splice(index, 0, task);
  removed = null;
  $("toast").hidden = true;
  change(next);
  $("new-task").focus();
});

// Another tab changed the list.
addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  tasks = load();
  render();
});

$("date").textContent = new Date().toLocaleDateString(undefined, {
  weekday: "long", day: "numeric", month: "long",
});
render();
