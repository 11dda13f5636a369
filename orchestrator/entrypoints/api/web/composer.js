// The prompt box: what to ask for, how long to keep it, and what was wrong with it.

import { $, onSendKeys, setAlert, setHidden } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import { explain } from "./words.js";

const DRAFT = "prompt";
const ABOUT_PROMPT = ["prompt_empty", "prompt_too_large", "prompt_not_text", "generation_unavailable"];

// start(request) -> promise; suggest(names, into) fills a box with templates to click.
export function setUpComposer({ start, suggest }) {
  const form = $("composer");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(start, suggest);
  });
  onSendKeys($("prompt"), () => form.requestSubmit());
  $("prompt").addEventListener("input", () => {
    keepDraft(DRAFT, $("prompt").value);
    if ($("prompt").hasAttribute("aria-invalid")) clearProblems();
  });
  $("ttl").addEventListener("change", () => setAlert($("ttl-error"), "", $("ttl")));
  $("examples").addEventListener("click", (event) => {
    const { prompt } = event.target.dataset;
    if (prompt) fillPrompt(prompt);
  });
  $("prompt").value ||= draftOf(DRAFT);
}

export function chosenTtl() {
  return new FormData($("composer")).get("ttl");
}

export function fillPrompt(text) {
  const prompt = $("prompt");
  prompt.value = text;
  keepDraft(DRAFT, text);
  clearProblems();
  prompt.focus();
  prompt.setSelectionRange(text.length, text.length);
}

// Next to the time, if it is about the time. True when it was.
export function showTtlProblem(problem) {
  if (problem.field !== "ttl" && problem.code !== "ttl_out_of_range") return false;
  setAlert($("ttl-error"), explain(problem), $("ttl"));
  $("ttl").querySelector(":checked").focus();
  return true;
}

export function clearProblems() {
  setAlert($("prompt-error"), "", $("prompt"));
  setAlert($("ttl-error"), "", $("ttl"));
  setAlert($("composer-error"), "");
  setHidden($("suggested"), true);
  setHidden($("examples"), false);
}

async function submit(start, suggest) {
  clearProblems();
  const asked = $("prompt").value;
  setBusy(true);
  try {
    await start({ prompt: asked, template: null, ttl: chosenTtl() });
    if ($("prompt").value === asked) $("prompt").value = "";
    keepDraft(DRAFT, $("prompt").value);
  } catch (problem) {
    showProblem(problem, suggest);
  } finally {
    setBusy(false);
  }
}

function showProblem(problem, suggest) {
  if (showTtlProblem(problem)) return;
  const aboutPrompt = problem.field === "prompt" || problem.status === 413;
  if (!aboutPrompt && !ABOUT_PROMPT.includes(problem.code)) {
    setAlert($("composer-error"), explain(problem));
    return;
  }
  setAlert($("prompt-error"), explain(problem), $("prompt"));
  if (problem.code === "generation_unavailable") {
    setHidden($("examples"), true); // they would all be turned down
    suggest(problem.members.templates, $("suggested"));
  }
  $("prompt").focus();
}

// aria-disabled, not disabled: focus stays where it is.
function setBusy(busy) {
  $("submit").setAttribute("aria-disabled", String(busy));
  $("submit").textContent = busy ? "Sending…" : "Make this app";
}
