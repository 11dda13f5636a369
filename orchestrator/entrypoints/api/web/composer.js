// The form for a new app: the prompt, how long to keep the app, and what was wrong with the input.

import { $, onSendKeys, setAlert, setHidden } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import { explain } from "./words.js";

const DRAFT_KEY = "prompt";
const PROMPT_ERRORS = ["prompt_empty", "prompt_too_large", "prompt_not_text", "generation_unavailable"];

// start(request) -> promise. suggest(names, container) fills an element with buttons for templates.
export function setUpComposer({ start, suggest }) {
  const form = $("composer");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(start, suggest);
  });
  onSendKeys($("prompt"), () => form.requestSubmit());
  $("prompt").addEventListener("input", () => {
    keepDraft(DRAFT_KEY, $("prompt").value);
    if ($("prompt").hasAttribute("aria-invalid")) clearProblems();
  });
  $("ttl").addEventListener("change", () => setAlert($("ttl-error"), "", $("ttl")));
  $("examples").addEventListener("click", (event) => {
    const { prompt } = event.target.dataset;
    if (prompt) fillPrompt(prompt);
  });
  $("prompt").value ||= draftOf(DRAFT_KEY);
}

export function chosenTtl() {
  return new FormData($("composer")).get("ttl");
}

export function fillPrompt(text) {
  const prompt = $("prompt");
  prompt.value = text;
  keepDraft(DRAFT_KEY, text);
  clearProblems();
  prompt.focus();
  prompt.setSelectionRange(text.length, text.length);
}

// Shows a problem with the time to live next to that field. Returns false for other problems.
export function showTtlProblem(problem) {
  if (problem.field !== "ttl") return false;
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
  const prompt = $("prompt").value;
  setBusy(true);
  try {
    await start({ prompt, template: null, ttl: chosenTtl() });
    if ($("prompt").value === prompt) $("prompt").value = "";
    keepDraft(DRAFT_KEY, $("prompt").value);
  } catch (problem) {
    showProblem(problem, suggest);
  } finally {
    setBusy(false);
  }
}

function showProblem(problem, suggest) {
  if (showTtlProblem(problem)) return;
  const isAboutPrompt = problem.field === "prompt" || problem.status === 413;
  if (!isAboutPrompt && !PROMPT_ERRORS.includes(problem.code)) {
    setAlert($("composer-error"), explain(problem));
    return;
  }
  setAlert($("prompt-error"), explain(problem), $("prompt"));
  if (problem.code === "generation_unavailable") {
    setHidden($("examples"), true); // they would all be refused
    suggest(problem.members.templates, $("suggested"));
  }
  $("prompt").focus();
}

// aria-disabled, not disabled: a disabled button would lose the focus.
function setBusy(isBusy) {
  $("submit").setAttribute("aria-disabled", String(isBusy));
  $("submit").textContent = isBusy ? "Sending…" : "Make this app";
}
