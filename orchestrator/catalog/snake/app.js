"use strict";

const $ = (id) => document.getElementById(id);
const SIZE = 18; // cells along a side
const STEP_MS = { 1: 190, 2: 130, 3: 85 };
const TURNS = { up: [0, -1], down: [0, 1], left: [-1, 0], right: [1, 0] };
const KEYS = {
  ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right",
  w: "up", s: "down", a: "left", d: "right",
};

const canvas = $("canvas");
const pen = canvas.getContext("2d");

let game = newGame();
let phase = "ready"; // ready, playing, paused, over
let best = Number(stored("best", 0));
let last = 0;
let waited = 0;

function stored(name, otherwise) {
  try {
    return localStorage.getItem(`snake.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(`snake.${name}`, value);
  } catch { /* private mode: the score lives as long as the page */ }
}

function newGame() {
  const middle = Math.floor(SIZE / 2);
  const fresh = {
    body: [[middle, middle], [middle - 1, middle], [middle - 2, middle]], // head first
    turn: "right",
    queue: [], // turns asked for and not yet taken: quick double turns are not lost
    food: null,
    score: 0,
    grow: 0,
  };
  fresh.food = freeCell(fresh.body);
  return fresh;
}

function freeCell(body) {
  const taken = new Set(body.map(String));
  const free = [];
  for (let x = 0; x < SIZE; x++) {
    for (let y = 0; y < SIZE; y++) if (!taken.has(`${x},${y}`)) free.push([x, y]);
  }
  return free.length ? free[Math.floor(Math.random() * free.length)] : null;
}

/* ---- rules ---- */

function steer(turn) {
  if (phase === "ready" || phase === "paused") start();
  if (phase !== "playing") return;
  const lastTurn = game.queue.at(-1) ?? game.turn;
  const [x, y] = TURNS[turn];
  const [lx, ly] = TURNS[lastTurn];
  const reverseOrSame = turn === lastTurn || (x === -lx && y === -ly);
  if (!reverseOrSame && game.queue.length < 3) game.queue.push(turn);
}

function step() {
  game.turn = game.queue.shift() ?? game.turn;
  const [dx, dy] = TURNS[game.turn];
  let [x, y] = [game.body[0][0] + dx, game.body[0][1] + dy];
  const outside = x < 0 || y < 0 || x >= SIZE || y >= SIZE;
  if (outside && $("walls").checked) return end();
  [x, y] = [(x + SIZE) % SIZE, (y + SIZE) % SIZE];

  const eats = game.food && x === game.food[0] && y === game.food[1];
  if (eats) game.grow += 1;
  if (game.grow > 0) game.grow -= 1;
  else game.body.pop(); // the tail leaves first, so following it closely is allowed
  if (game.body.some(([bx, by]) => bx === x && by === y)) return end();
  game.body.unshift([x, y]);

  if (eats) {
    game.score += Number($("speed").value);
    beep(520, 0.07);
    game.food = freeCell(game.body);
    if (!game.food) return end();
    showScore();
  }
}

function end() {
  phase = "over";
  beep(160, 0.35);
  const record = game.score > best;
  if (record) {
    best = game.score;
    store("best", best);
  }
  showScore();
  const title = game.food ? (record ? "New best!" : "Game over") : "You won!";
  message(title, `You scored ${game.score}.`, "Play again");
}

/* ---- phases ---- */

function start() {
  unlockSound();
  if (phase === "over") game = newGame();
  if (phase === "playing") return;
  phase = "playing";
  last = performance.now();
  waited = 0;
  $("message").hidden = true;
  $("pause").textContent = "Pause";
  document.body.classList.add("playing");
  showScore();
  canvas.focus({ preventScroll: true });
  requestAnimationFrame(frame);
}

function pause() {
  if (phase !== "playing") return start();
  phase = "paused";
  message("Paused", "Take your time.", "Go on");
}

function message(title, text, button) {
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("play").textContent = button;
  $("message").hidden = false;
  $("pause").textContent = button;
  $("live").textContent = `${title}. ${text}`;
  document.body.classList.remove("playing");
}

function frame(now) {
  if (phase !== "playing") return draw();
  waited += Math.min(now - last, 250);
  last = now;
  // A longer snake is a little faster: at most a third.
  const pace = STEP_MS[$("speed").value] * Math.max(0.67, 1 - game.body.length / 220);
  while (waited >= pace && phase === "playing") {
    waited -= pace;
    step();
  }
  draw();
  if (phase === "playing") requestAnimationFrame(frame);
}

/* ---- the screen ---- */

function showScore() {
  $("score").textContent = game.score;
  $("best").textContent = Math.max(best, game.score);
}

function fit() {
  // Whole pixels for each cell, or the gaps between the cells shimmer.
  const cell = Math.max(4, Math.floor((canvas.clientWidth * devicePixelRatio) / SIZE));
  canvas.width = canvas.height = cell * SIZE;
  draw();
}

function draw() {
  const cell = canvas.width / SIZE;
  const gap = Math.max(1, Math.round(cell / 12));
  const styles = getComputedStyle(document.documentElement);
  const ink = styles.getPropertyValue("--lcd-ink").trim();
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = ink;

  pen.globalAlpha = 0.06; // the cells of an LCD that are "off"
  for (let x = 0; x < SIZE; x++) {
    for (let y = 0; y < SIZE; y++) pen.fillRect(x * cell + gap, y * cell + gap, cell - 2 * gap, cell - 2 * gap);
  }
  pen.globalAlpha = 1;
  if ($("walls").checked) {
    pen.lineWidth = gap * 2;
    pen.strokeStyle = ink;
    pen.strokeRect(gap, gap, canvas.width - 2 * gap, canvas.height - 2 * gap);
  }

  game.body.forEach(([x, y], i) => {
    pen.fillRect(x * cell + gap, y * cell + gap, cell - 2 * gap, cell - 2 * gap);
    if (i === 0) drawEye(x, y, cell, styles.getPropertyValue("--lcd").trim(), ink);
  });
  if (game.food) {
    const [x, y] = game.food;
    const arm = (cell - 2 * gap) / 3;
    pen.fillRect(x * cell + gap + arm, y * cell + gap, arm, arm * 3);
    pen.fillRect(x * cell + gap, y * cell + gap + arm, arm * 3, arm);
    pen.clearRect(x * cell + gap + arm, y * cell + gap + arm, arm, arm);
  }
}

function drawEye(x, y, cell, lcd, ink) {
  const [dx, dy] = TURNS[game.turn];
  const size = Math.max(2, cell / 5);
  pen.fillStyle = lcd;
  for (const side of [-1, 1]) {
    const cx = (x + 0.5 + dx * 0.15 + dy * side * 0.2) * cell - size / 2;
    const cy = (y + 0.5 + dy * 0.15 + dx * side * 0.2) * cell - size / 2;
    pen.fillRect(cx, cy, size, size);
  }
  pen.fillStyle = ink;
}

/* ---- sound ---- */

let audio = null;

function unlockSound() {
  // Browsers let a page make sound only after a gesture; without one this would log a warning.
  if (!$("sound").checked || navigator.userActivation?.hasBeenActive === false) return;
  audio ??= new (window.AudioContext ?? window.webkitAudioContext)();
  audio.resume();
}

function beep(pitch, length) {
  if (!audio || !$("sound").checked) return;
  const tone = audio.createOscillator();
  const gain = audio.createGain();
  tone.type = "square";
  tone.frequency.value = pitch;
  gain.gain.setValueAtTime(0.05, audio.currentTime);
  gain.gain.exponentialRampToValueAtTime(0.0001, audio.currentTime + length);
  tone.connect(gain).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + length);
}

/* ---- wiring ---- */

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("select, input")) return;
  const turn = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (turn) {
    event.preventDefault();
    steer(turn);
  } else if (event.key === " " && !event.target.matches("button")) {
    event.preventDefault();
    pause();
  }
});

for (const button of document.querySelectorAll("[data-turn]")) {
  button.addEventListener("pointerdown", () => steer(button.dataset.turn));
  button.addEventListener("click", (event) => { if (event.detail === 0) steer(button.dataset.turn); });
}

let touch = null;
$("screen").addEventListener("pointerdown", (event) => { touch = [event.clientX, event.clientY]; });
addEventListener("pointermove", (event) => {
  if (!touch) return;
  const [dx, dy] = [event.clientX - touch[0], event.clientY - touch[1]];
  if (Math.max(Math.abs(dx), Math.abs(dy)) < 24) return;
  steer(Math.abs(dx) > Math.abs(dy) ? (dx > 0 ? "right" : "left") : dy > 0 ? "down" : "up");
  touch = [event.clientX, event.clientY]; // one long stroke may turn several times
});
addEventListener("pointerup", () => { touch = null; });
addEventListener("pointercancel", () => { touch = null; });

$("play").addEventListener("click", start);
$("pause").addEventListener("click", pause);
$("walls").addEventListener("change", () => { store("walls", $("walls").checked); draw(); });
$("sound").addEventListener("change", () => store("sound", $("sound").checked));
$("speed").addEventListener("change", () => store("speed", $("speed").value));
document.addEventListener("visibilitychange", () => { if (document.hidden && phase === "playing") pause(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(fit).observe(canvas);

$("walls").checked = stored("walls", "true") === "true";
$("sound").checked = stored("sound", "true") === "true";
if (STEP_MS[stored("speed", 2)]) $("speed").value = stored("speed", 2);
message("Snake", "Eat. Grow. Mind the tail.", "Play");
showScore();
fit();
