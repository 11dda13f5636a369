// Small helpers for the document. All modules use them. None makes markup from strings.

export const $ = (id) => document.getElementById(id);

export function fromTemplate(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

// Writes only if the text differs, so that screen readers and selections aren't disturbed.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

// Sets the link only if it is a web address, whatever the API sends.
export function setLink(anchor, address) {
  const isSafe = /^https?:\/\//.test(address ?? "");
  if (!isSafe) anchor.removeAttribute("href");
  else if (anchor.getAttribute("href") !== address) anchor.href = address;
}

export function setBar(bar, percent) {
  bar.firstElementChild.style.setProperty("--done", String(percent / 100));
}

// An empty text hides the alert. The text is set after the alert is shown: otherwise screen readers
// don't read it out.
export function setAlert(alert, text, field = null) {
  setHidden(alert, !text);
  alert.textContent = text;
  if (field && text) field.setAttribute("aria-invalid", "true");
  else field?.removeAttribute("aria-invalid");
}

// Puts rows into a list, in order. Moves only the rows that are out of place: a moved row loses focus.
export function placeRows(list, wanted) {
  for (const row of [...list.children]) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, place) => {
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });
}

// Calls send() on Ctrl+Enter or Cmd+Enter in a text field.
export function onSendKeys(field, send) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    send();
  });
}

let announceTimer = 0;

// Has screen readers read out a text. Of several at once, only the last is read.
export function announce(text) {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => setText($("announcer"), text), 60);
}

export function reveal(element) {
  const prefersNoMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: prefersNoMotion ? "auto" : "smooth", block: "nearest" });
}
