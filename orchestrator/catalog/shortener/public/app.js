"use strict";

const $ = (id) => document.getElementById(id);

async function copy(button) {
  const link = new URL(button.closest("tr").dataset.code, document.baseURI);
  link.search = "";
  try {
    await navigator.clipboard.writeText(link.href);
    button.textContent = "Copied";
    $("live").textContent = `Copied ${link.href}`;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } catch {
    prompt("The short link:", link.href); // plain http has no clipboard
  }
}

async function refreshHits() {
  if (document.hidden || !$("rows")) return;
  let links;
  try {
    const response = await fetch("api/links");
    if (!response.ok) return;
    links = await response.json();
  } catch {
    return; // the next round tries again
  }
  for (const { code, hits } of links) {
    const shown = document.querySelector(`tr[data-code="${CSS.escape(code)}"] .hits b`);
    const text = String(hits).padStart(3, "0");
    if (!shown || shown.textContent === text) continue;
    shown.textContent = text;
    shown.classList.remove("flip");
    void shown.offsetWidth; // restarts the animation
    shown.classList.add("flip");
  }
}

function tick() {
  if ($("clock")) $("clock").textContent = new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// A reload must not announce the link again.
if (location.search) history.replaceState(null, "", location.pathname);

tick();
setInterval(tick, 5000);
setInterval(refreshHits, 4000);
addEventListener("focus", refreshHits);
