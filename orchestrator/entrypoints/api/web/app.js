// Loads page.js, and reloads the page once if that fails. If Docker runs on the same machine as the
// browser, each container that starts or stops changes the network. Chromium then aborts what it is
// loading, and a second try succeeds.

const RELOADED_KEY = "spawn.reloaded";

import("./page.js").then(
  () => remember(false),
  (error) => {
    if (!remember(true)) throw error;
    location.reload();
  },
);

// Stores whether this tab was reloaded. Returns false if nothing changed or storage is off, so that
// a reload never follows a reload.
function remember(reloaded) {
  try {
    const wasReloaded = sessionStorage.getItem(RELOADED_KEY) !== null;
    if (reloaded) sessionStorage.setItem(RELOADED_KEY, "1");
    else sessionStorage.removeItem(RELOADED_KEY);
    return wasReloaded !== reloaded;
  } catch {
    return false;
  }
}
