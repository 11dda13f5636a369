// Keeps texts that were typed but not sent. They survive a reload and a visit to another session.

const texts = new Map(); // key -> text; the only copy if storage is switched off

const storageKey = (key) => `spawn.draft.${key}`;

export function keepDraft(key, text) {
  texts.set(key, text);
  try {
    if (text) sessionStorage.setItem(storageKey(key), text);
    else sessionStorage.removeItem(storageKey(key));
  } catch {
    // Storage is off: a reload loses the draft.
  }
}

export function draftOf(key) {
  if (texts.has(key)) return texts.get(key);
  try {
    return sessionStorage.getItem(storageKey(key)) ?? "";
  } catch {
    return "";
  }
}
