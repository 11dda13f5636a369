"use strict";

const poll = document.getElementById("poll");
const copy = document.getElementById("copy");
const live = document.getElementById("live");
let source = null;

function show({ options, voters }) {
  for (const { id, votes, share } of options) {
    const row = poll.querySelector(`[data-option="${id}"]`);
    if (!row) continue;
    row.querySelector("progress").value = share;
    row.querySelector("b").textContent = `${share}%`;
    row.querySelector("small").textContent = votes;
  }
  document.getElementById("voters").textContent = voters;
  document.getElementById("voters-word").textContent = voters === 1 ? "person has" : "people have";
}

// A browser opens only a few connections to one host: a tab that nobody sees gives its own back.
function follow() {
  source?.close();
  source = null;
  live.hidden = true;
  if (document.hidden) return;
  source = new EventSource(poll.dataset.events);
  source.addEventListener("message", (event) => {
    live.hidden = false;
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", () => { live.hidden = true; });
}

async function copyLink() {
  const status = document.getElementById("status");
  try {
    await navigator.clipboard.writeText(location.href);
    copy.textContent = "Copied";
    status.textContent = "The link is in the clipboard.";
  } catch {
    prompt("The link of this poll:", location.href); // plain http has no clipboard
  }
}

copy.hidden = false;
copy.addEventListener("click", copyLink);
document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => source?.close());
follow();
