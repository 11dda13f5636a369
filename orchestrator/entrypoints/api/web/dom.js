// Small helpers around the document; every other module uses them. No markup is made from strings.

export const $ = (id) => document.getElementById(id);

export function fromTemplate(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

// Writes only what differs, so that screen readers and selections aren't disturbed.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

// Only web addresses become links, whatever an answer says.
export function setLink(anchor, address) {
  const safe = /^https?:\/\//.test(address ?? "");
  if (!safe) anchor.removeAttribute("href");
  else if (anchor.getAttribute("href") !== address) anchor.href = address;
}

export function setBar(bar, percent) {
  bar.firstElementChild.style.setProperty("--done", String(percent / 100));
}

// An empty text hides the box. The text arrives after the box is shown, or alerts stay silent.
export function setAlert(box, text, field = null) {
  setHidden(box, !text);
  box.textContent = text;
  if (field && text) field.setAttribute("aria-invalid", "true");
  else field?.removeAttribute("aria-invalid");
}

// Puts rows into a list, in order. Moves only what isn't in its place: a moved row loses its focus.
export function placeRows(list, wanted) {
  for (const row of [...list.children]) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, place) => {
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });
}

// Ctrl or Cmd with Enter, while something is typed.
export function onSendKeys(field, send) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    send();
  });
}

let speaking = 0;

export function announce(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => setText($("announcer"), text), 60);
}

export function reveal(element) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
}
