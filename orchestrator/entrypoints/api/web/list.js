// The list "Your apps": one row per session of the visitor, newest first, updated in place.

import { serverNow } from "./api.js";
import { $, fromTemplate, placeRows, setBar, setHidden, setLink, setText } from "./dom.js";
import { emojiOf, hasEnded, isUnderWay, labelOf, queueText, roughTimeText, titleOf } from "./words.js";

const rows = new Map(); // session id -> its row

// Clicks on a row call show(id).
export function setUpList({ show }) {
  for (const list of [$("apps-live"), $("apps-ended")]) {
    list.addEventListener("click", (event) => {
      if (event.target.closest(".row-show")) show(event.target.closest(".row").dataset.session);
    });
  }
}

export function renderList(sessions, templates, shownId) {
  const newest = [...sessions].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
  const ended = newest.filter(hasEnded);
  placeRows($("apps-live"), newest.filter((status) => !hasEnded(status)).map(rowOf));
  placeRows($("apps-ended"), ended.map(rowOf));
  for (const status of newest) renderRow(status, templates, status.session_id === shownId);
  setHidden($("apps-empty"), newest.length > 0);
  setHidden($("apps-earlier"), ended.length === 0);
  setText($("apps-earlier-count"), String(ended.length));
}

function rowOf({ session_id: id }) {
  if (!rows.has(id)) {
    rows.set(id, fromTemplate("row"));
    rows.get(id).dataset.session = id;
  }
  return rows.get(id);
}

function renderRow(status, templates, isShown) {
  const row = rows.get(status.session_id);
  const title = titleOf(status, templates);
  const tint = templates.get(status.template)?.accent;
  if (tint) row.style.setProperty("--tint", tint);
  row.classList.toggle("shown", isShown);
  setText(row.querySelector(".emoji"), emojiOf(status, templates));
  const showButton = row.querySelector(".row-show");
  setText(showButton, title);
  if (isShown) showButton.setAttribute("aria-current", "true");
  else showButton.removeAttribute("aria-current");
  const badge = row.querySelector(".badge");
  setText(badge, labelOf(status));
  badge.dataset.state = status.status;
  setText(row.querySelector(".row-note"), noteOf(status));
  const openLink = row.querySelector(".row-open");
  setHidden(openLink, !status.url);
  setLink(openLink, status.url);
  openLink.setAttribute("aria-label", `Open ${title} (new tab)`);
  const bar = row.querySelector(".bar");
  setHidden(bar, !isUnderWay(status));
  setBar(bar, status.progress);
}

function noteOf(status) {
  if (status.status === "failed") return status.error?.code ?? "";
  if (status.status === "queued") return queueText(status.queue_position);
  if (isUnderWay(status)) return `${status.progress} %`;
  if (status.status === "ready") return `gone in ${roughTimeText(Date.parse(status.expires_at) - serverNow())}`;
  return "";
}
