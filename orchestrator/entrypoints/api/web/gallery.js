// The templates: a click starts one at once, or puts its description into the prompt to change it.

import { listTemplates } from "./api.js";
import { chosenTtl, fillPrompt, showTtlProblem } from "./composer.js";
import { $, fromTemplate, reveal, setAlert, setHidden } from "./dom.js";
import { explain, KINDS } from "./words.js";

const RETRY_MS = 5000;

export const templates = new Map(); // name -> template; empty until the answer is there

// start(request) -> promise; loaded() is called once `templates` is filled.
export function setUpGallery({ start, loaded }) {
  $("templates").addEventListener("click", (event) => {
    const tile = event.target.closest("[data-template]");
    const template = templates.get(tile?.dataset.template);
    if (!template) return;
    if (event.target.closest(".tile-fill")) fillPrompt(`${template.title}: ${template.description}`);
    else if (event.target.closest(".tile-start")) startTemplate(start, template.name, tile);
  });
  load(loaded);
}

async function load(loaded) {
  try {
    for (const template of await listTemplates()) templates.set(template.name, template);
    render();
    loaded();
  } catch {
    setAlert($("gallery-error"), "The templates can’t be loaded. Reconnecting…");
    setTimeout(() => load(loaded), RETRY_MS);
  }
}

// Buttons for templates that an error named. Unknown names are shown as they are.
export function suggestTemplates(names, into, start) {
  const buttons = (names ?? []).map((name) => {
    const known = templates.get(name);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = known ? `${known.emoji} ${known.title}` : name;
    button.addEventListener("click", () => startTemplate(start, name, button));
    return button;
  });
  into.replaceChildren(...buttons);
  setHidden(into, buttons.length === 0);
}

async function startTemplate(start, name, busy) {
  setAlert($("gallery-error"), "");
  busy.setAttribute("aria-busy", "true");
  try {
    await start({ prompt: "", template: name, ttl: chosenTtl() });
  } catch (problem) {
    if (showTtlProblem(problem)) return;
    setAlert($("gallery-error"), explain(problem));
    reveal($("gallery-error"));
  } finally {
    busy.removeAttribute("aria-busy");
  }
}

function render() {
  setAlert($("gallery-error"), "");
  $("templates").removeAttribute("aria-busy");
  $("templates").replaceChildren(...Array.from(templates.values(), tileOf));
}

function tileOf(template) {
  const tile = fromTemplate("tile");
  tile.dataset.template = template.name;
  tile.style.setProperty("--tint", template.accent);
  tile.querySelector(".emoji").textContent = template.emoji;
  const start = tile.querySelector(".tile-start");
  start.textContent = template.title;
  start.setAttribute("aria-label", `${template.title}: start now`);
  const text = tile.querySelector(".tile-text");
  text.textContent = template.description;
  text.id = `about-${template.name}`;
  start.setAttribute("aria-describedby", text.id);
  tile.querySelector(".kind").textContent = KINDS[template.kind] ?? template.kind;
  tile.querySelector(".tile-fill").setAttribute("aria-label", `Edit as prompt: ${template.title}`);
  return tile;
}
