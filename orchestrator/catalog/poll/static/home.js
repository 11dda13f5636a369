"use strict";

const list = document.getElementById("options");
const more = document.getElementById("more");
const max = Number(list.dataset.max);

function addOption() {
  const count = list.children.length + 1;
  const item = document.createElement("li");
  const input = Object.assign(document.createElement("input"), { name: "option", maxLength: 120 });
  input.setAttribute("aria-label", `Answer ${count}`);
  item.append(input);
  list.append(item);
  more.hidden = count >= max;
  input.focus();
}

more.hidden = list.children.length >= max;
more.addEventListener("click", addOption);
list.addEventListener("keydown", (event) => {
  // Enter goes on to the next answer: sending half a poll by accident helps nobody.
  if (event.key !== "Enter" || event.isComposing) return;
  const next = event.target.closest("li").nextElementSibling?.querySelector("input");
  if (next) next.focus();
  else if (event.target.value.trim() && !more.hidden) addOption();
  else return;
  event.preventDefault();
});
