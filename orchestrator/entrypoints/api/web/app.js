// Loads page.js, and reloads the page a few times if that fails. If Docker runs on the same machine
// as the browser, each container that starts or stops changes the network. Chromium then aborts what
// it is loading, and another try succeeds.

const RELOADS_KEY = "spawn.reloads";
const RELOADS_MAX = 3; // in a row

import("./page.js").then(
  () => remember(0),
  (error) => {
    const reloads = countReloads() + 1;
    if (reloads > RELOADS_MAX || !remember(reloads)) throw error;
    location.reload();
  },
);

// How often this tab was reloaded in a row.
function countReloads() {
  try {
    return Number(sessionStorage.getItem(RELOADS_KEY));
  } catch {
    return RELOADS_MAX;
  }
}

// Returns false if storage is off: then nothing would end the reloads.
function remember(reloads) {
  try {
    if (reloads) sessionStorage.setItem(RELOADS_KEY, String(reloads));
    else sessionStorage.removeItem(RELOADS_KEY);
    return true;
  } catch {
    return false;
  }
}
