"use strict";

const $ = (id) => document.getElementById(id);
const MODES = { focus: "Focus", short: "Short break", long: "Long break" };
const DEFAULTS = { focus: 25, short: 5, long: 15, rounds: 4, auto: false, volume: 60 };
const TICKS = 60;

const settings = { ...DEFAULTS, ...read("pomodoro.settings", {}) };
const history = read("pomodoro.history", {}); // {"2025-03-01": {rounds, minutes}}
const state = {
  mode: "focus", // of MODES
  round: 1, // counts focus rounds up to the long break
  left: settings.focus * 60, // seconds, while paused
  endsAt: null, // ms since the epoch, while running: a sleeping tab can't lose time
  total: settings.focus * 60,
  ...read("pomodoro.state", {}),
};

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch { /* private mode: the timer works, it only forgets */ }
}

const secondsLeft = () =>
  state.endsAt === null ? state.left : Math.max(0, Math.ceil((state.endsAt - Date.now()) / 1000));

function clock(seconds) {
  return `${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(seconds % 60).padStart(2, "0")}`;
}

/* ---- what the user sees ---- */

function drawTicks() {
  for (let i = 0; i < TICKS; i++) {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const angle = (i / TICKS) * 2 * Math.PI - Math.PI / 2;
    const inner = i % 5 === 0 ? 85 : 89;
    line.setAttribute("x1", (Math.cos(angle) * inner).toFixed(2));
    line.setAttribute("y1", (Math.sin(angle) * inner).toFixed(2));
    line.setAttribute("x2", (Math.cos(angle) * 97).toFixed(2));
    line.setAttribute("y2", (Math.sin(angle) * 97).toFixed(2));
    $("ticks").append(line);
  }
}

function render() {
  const left = secondsLeft();
  const running = state.endsAt !== null;
  $("time").textContent = clock(left);
  $("time").classList.toggle("long", left >= 6000);
  $("toggle").textContent = running ? "Pause" : left < state.total ? "Resume" : "Start";
  document.body.dataset.mode = state.mode;
  document.title = running || left < state.total ? `${clock(left)} ${MODES[state.mode]}` : "Pomodoro";
  $("round").textContent =
    state.mode === "focus" ? `Round ${state.round} of ${settings.rounds}` : MODES[state.mode];
  const lit = Math.ceil((left / state.total) * TICKS);
  [...$("ticks").children].forEach((line, i) => line.classList.toggle("left", i < lit));
  for (const button of document.querySelectorAll("[data-set-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.setMode === state.mode));
  }
}

function renderStats() {
  const today = history[dayKey(0)] ?? { rounds: 0, minutes: 0 };
  $("stat-rounds").textContent = today.rounds;
  $("stat-minutes").textContent = today.minutes;
  let streak = today.rounds ? 1 : 0;
  for (let back = 1; history[dayKey(back)]?.rounds; back++) streak++;
  $("stat-streak").textContent = streak;

  const days = Array.from({ length: 7 }, (_, i) => 6 - i);
  const most = Math.max(60, ...days.map((back) => history[dayKey(back)]?.minutes ?? 0));
  $("week").replaceChildren(...days.map((back) => {
    const minutes = history[dayKey(back)]?.minutes ?? 0;
    const date = new Date();
    date.setDate(date.getDate() - back);
    const item = document.createElement("li");
    const bar = document.createElement("i");
    bar.style.height = `${Math.round((minutes / most) * 48)}px`;
    const name = document.createElement("span");
    name.textContent = date.toLocaleDateString(undefined, { weekday: "narrow" });
    name.setAttribute("aria-label", `${date.toLocaleDateString(undefined, { weekday: "long" })}: ${minutes} minutes`);
    name.setAttribute("role", "img");
    item.title = `${minutes} minutes`;
    item.append(bar, name);
    return item;
  }));
}

function dayKey(back) {
  const d = new Date();
  d.setDate(d.getDate() - back);
  return `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, "0")}-${String(d.getDate()).padStart(2, "0")}`;
}

/* ---- the timer ---- */

function keep() {
  write("pomodoro.state", state);
  render();
}

function enter(mode, { start }) {
  state.mode = mode;
  state.total = settings[mode] * 60;
  state.left = state.total;
  state.endsAt = start ? Date.now() + state.total * 1000 : null;
  keep();
}

function toggle() {
  unlockSound();
  if (state.endsAt === null) {
    state.endsAt = Date.now() + state.left * 1000;
  } else {
    state.left = secondsLeft();
    state.endsAt = null;
  }
  keep();
}

function next({ finished }) {
  const wasFocus = state.mode === "focus";
  if (wasFocus && finished) {
    const today = (history[dayKey(0)] ??= { rounds: 0, minutes: 0 });
    today.rounds += 1;
    today.minutes += Math.round(state.total / 60);
    write("pomodoro.history", history);
    renderStats();
  }
  let mode = "focus";
  if (wasFocus) mode = state.round >= settings.rounds ? "long" : "short";
  if (!wasFocus) state.round = state.mode === "long" || state.round >= settings.rounds ? 1 : state.round + 1;
  enter(mode, { start: finished && settings.auto });
  if (finished) {
    bell();
    $("live").textContent = mode === "focus" ? "The break is over. Back to focus." : `Well done. Time for a ${MODES[mode].toLowerCase()}.`;
  }
}

function tick() {
  if (state.endsAt === null) return;
  if (secondsLeft() === 0) next({ finished: true });
  else render();
}

/* ---- the bell: three soft strokes, made on the spot ---- */

let audio = null;

function unlockSound() {
  // Browsers let a page make sound only after a gesture: the Start button is that gesture.
  if (navigator.userActivation && !navigator.userActivation.hasBeenActive) return;
  audio ??= new (window.AudioContext ?? window.webkitAudioContext)();
  audio.resume();
}

function bell() {
  if (!audio || settings.volume === 0) return;
  [0, 0.55, 1.1].forEach((delay) => {
    for (const [ratio, loudness, length] of [[1, 0.5, 1.8], [2.01, 0.22, 1.1], [2.99, 0.12, 0.7]]) {
      const at = audio.currentTime + delay;
      const tone = audio.createOscillator();
      const gain = audio.createGain();
      tone.frequency.value = 587 * ratio;
      gain.gain.setValueAtTime(0.0001, at);
      gain.gain.exponentialRampToValueAtTime((loudness * settings.volume) / 100 + 0.0002, at + 0.012);
      gain.gain.exponentialRampToValueAtTime(0.0001, at + length);
      tone.connect(gain).connect(audio.destination);
      tone.start(at);
      tone.stop(at + length);
    }
  });
}

/* ---- wiring ---- */

$("toggle").addEventListener("click", toggle);
$("reset").addEventListener("click", () => enter(state.mode, { start: false }));
$("skip").addEventListener("click", () => next({ finished: false }));
for (const button of document.querySelectorAll("[data-set-mode]")) {
  button.addEventListener("click", () => enter(button.dataset.setMode, { start: false }));
}

addEventListener("keydown", (event) => {
  if ($("settings").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, button") && event.key === " ") return;
  if (event.target.matches("input")) return;
  if (event.key === " ") { event.preventDefault(); toggle(); }
  if (event.key === "r") $("reset").click();
  if (event.key === "s") $("skip").click();
});

const form = $("settings-form").elements;

$("open-settings").addEventListener("click", () => {
  for (const [name, value] of Object.entries(settings)) {
    if (name === "auto") form.auto.checked = value;
    else if (form[name]) form[name].value = value;
  }
  $("settings").showModal();
});

$("settings-form").addEventListener("submit", () => {
  const untouched = state.endsAt === null && state.left === state.total;
  for (const name of ["focus", "short", "long", "rounds", "volume"]) settings[name] = Number(form[name].value);
  settings.auto = form.auto.checked;
  write("pomodoro.settings", settings);
  state.round = Math.min(state.round, settings.rounds);
  if (untouched) enter(state.mode, { start: false });
  else keep();
});

$("cancel-settings").addEventListener("click", () => $("settings").close());
$("test-sound").addEventListener("click", () => {
  unlockSound();
  const saved = settings.volume;
  settings.volume = Number(form.volume.value);
  bell();
  settings.volume = saved;
});

$("task").value = read("pomodoro.task", "");
$("task").addEventListener("input", () => write("pomodoro.task", $("task").value));
document.addEventListener("visibilitychange", tick);
setInterval(tick, 250);

drawTicks();
renderStats();
render();
