// Texts that were typed and not sent yet. They outlive a reload, and a look at another session.

const texts = new Map(); // what for -> text; of use where storage is switched off

const placeOf = (what) => `spawn.draft.${what}`;

export function keepDraft(what, text) {
  texts.set(what, text);
  try {
    if (text) sessionStorage.setItem(placeOf(what), text);
    else sessionStorage.removeItem(placeOf(what));
  } catch {
    // then a reload loses the draft
  }
}

export function draftOf(what) {
  if (texts.has(what)) return texts.get(what);
  try {
    return sessionStorage.getItem(placeOf(what)) ?? "";
  } catch {
    return "";
  }
}
