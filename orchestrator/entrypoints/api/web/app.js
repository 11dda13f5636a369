// Loads the page. Where Docker runs beside the browser, each container that comes or goes is a
// network change, and Chromium then drops what it is loading: one more try repairs that.

const RELOADED = "spawn.reloaded";

import("./page.js").then(
  () => remember(false),
  (error) => {
    if (!remember(true)) throw error;
    location.reload();
  },
);

// False when it was so already, or can't be remembered: a reload must not follow a reload.
function remember(reloaded) {
  try {
    const before = sessionStorage.getItem(RELOADED) !== null;
    if (reloaded) sessionStorage.setItem(RELOADED, "1");
    else sessionStorage.removeItem(RELOADED);
    return before !== reloaded;
  } catch {
    return false;
  }
}
