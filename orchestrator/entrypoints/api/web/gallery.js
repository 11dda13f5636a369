// The templates. A click starts one at once, or copies its description into the prompt for editing.

import { listTemplates } from "./api.js";
import { chosenTtl, fillPrompt, showTtlProblem } from "./composer.js";
import { $, fromTemplate, reveal, setAlert, setHidden } from "./dom.js";
import { explain, KINDS } from "./words.js";

const RETRY_MS = 5000;

export const templates = new Map(); // name -> template; empty until they are loaded

// start(request) -> promise. loaded() is called as soon as `templates` is filled.
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

// Puts buttons for the templates that an error named into an element. Unknown names appear as they are.
export function suggestTemplates(names, container, start) {
  const buttons = (names ?? []).map((name) => {
    const template = templates.get(name);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = template ? `${template.emoji} ${template.title}` : name;
    button.addEventListener("click", () => startTemplate(start, name, button));
    return button;
  });
  container.replaceChildren(...buttons);
  setHidden(container, buttons.length === 0);
}

async function startTemplate(start, name, element) {
  setAlert($("gallery-error"), "");
  element.setAttribute("aria-busy", "true");
  try {
    await start({ prompt: "", template: name, ttl: chosenTtl() });
  } catch (problem) {
    if (showTtlProblem(problem)) return;
    setAlert($("gallery-error"), explain(problem));
    reveal($("gallery-error"));
  } finally {
    element.removeAttribute("aria-busy");
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
  const startButton = tile.querySelector(".tile-start");
  startButton.textContent = template.title;
  startButton.setAttribute("aria-label", `${template.title}: start now`);
  const description = tile.querySelector(".tile-text");
  description.textContent = template.description;
  description.id = `about-${template.name}`;
  startButton.setAttribute("aria-describedby", description.id);
  tile.querySelector(".kind").textContent = KINDS[template.kind] ?? template.kind;
  tile.querySelector(".tile-fill").setAttribute("aria-label", `Edit as prompt: ${template.title}`);
  return tile;
}
