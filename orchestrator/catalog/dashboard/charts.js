"use strict";

/* Small SVG charts. Each takes its box and its numbers, and draws at the box's real width. */

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function canvasFor(box, label) {
  const width = Math.max(240, box.clientWidth);
  const height = Number(box.dataset.height);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  box.replaceChildren(svg);
  return { svg, width, height };
}

function niceStep(most, lines) {
  const raw = most / lines;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].find((m) => m * power >= raw) * power;
}

function yAxis(svg, most, { left, right, top, bottom }, format) {
  const step = niceStep(most || 1, 4);
  const ceiling = Math.ceil((most || 1) / step) * step;
  const y = (value) => bottom - (value / ceiling) * (bottom - top);
  for (let value = 0; value <= ceiling + step / 2; value += step) {
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  return y;
}

/* points: [{label, value, before}], drawn with a cursor that mouse, finger and arrow keys move. */
function lineChart(box, points, { label, short, full, tip }) {
  const { svg, width, height } = canvasFor(box, label);
  const frame = { left: 46, right: width - 6, top: 8, bottom: height - 26 };
  const y = yAxis(svg, Math.max(...points.flatMap((p) => [p.value, p.before])), frame, short);
  const x = (i) => frame.left + (i / Math.max(1, points.length - 1)) * (frame.right - frame.left);
  const path = (key) => points.map((p, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(p[key]).toFixed(1)}`).join("");

  svg.append(shape("path", { class: "area", d: `${path("value")}L${x(points.length - 1)} ${frame.bottom}L${frame.left} ${frame.bottom}Z` }));
  svg.append(shape("path", { class: "line past", d: path("before") }));
  svg.append(shape("path", { class: "line", d: path("value") }));

  const every = Math.ceil(points.length / Math.max(2, Math.floor(width / 110)));
  points.forEach((p, i) => {
    if (i % every) return;
    const nearEnd = x(i) > frame.right - 30;
    svg.append(shape("text", { x: x(i), y: height - 6, "text-anchor": i === 0 ? "start" : nearEnd ? "end" : "middle" }, p.label));
  });

  const cursor = shape("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" });
  const dot = shape("circle", { class: "dot", r: 5, visibility: "hidden" });
  svg.append(cursor, dot);
  let at = points.length - 1;
  const show = (i) => {
    at = Math.max(0, Math.min(points.length - 1, i));
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    dot.setAttribute("cx", x(at));
    dot.setAttribute("cy", y(points[at].value));
    for (const part of [cursor, dot]) part.setAttribute("visibility", "visible");
    const place = svg.getBoundingClientRect();
    const p = points[at];
    tip(`${p.long}\n${full(p.value)}\nbefore: ${full(p.before)}`, place.left + x(at), place.top + y(p.value));
  };
  const hide = () => {
    for (const part of [cursor, dot]) part.setAttribute("visibility", "hidden");
    tip(null);
  };
  svg.addEventListener("pointermove", (event) => {
    const place = svg.getBoundingClientRect();
    show(Math.round(((event.clientX - place.left - frame.left) / (frame.right - frame.left)) * (points.length - 1)));
  });
  svg.addEventListener("pointerleave", hide);
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(at); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(at + move);
  });
}

/* columns: [{label, long, parts: [number, …]}] */
function stackedBars(box, columns, { label, short, full, names, tip }) {
  const { svg, width, height } = canvasFor(box, label);
  const frame = { left: 46, right: width, top: 8, bottom: height - 26 };
  const sum = (parts) => parts.reduce((a, b) => a + b, 0);
  const y = yAxis(svg, Math.max(...columns.map((c) => sum(c.parts))), frame, short);
  const slot = (frame.right - frame.left) / columns.length;
  const every = Math.ceil(46 / slot);
  columns.forEach((column, i) => {
    const group = shape("g");
    let below = 0;
    column.parts.forEach((part, series) => {
      if (!part) return;
      const top = y(below + part);
      group.append(shape("rect", { class: `s${series}`, x: frame.left + i * slot + slot * 0.15, y: top, width: slot * 0.7, height: Math.max(0, y(below) - top) }));
      below += part;
    });
    const text = [column.long, ...column.parts.map((p, s) => (p ? `${names[s]}: ${full(p)}` : "")).filter(Boolean)].join("\n");
    group.addEventListener("pointermove", (event) => tip(text, event.clientX, event.clientY));
    group.addEventListener("pointerleave", () => tip(null));
    svg.append(group);
    if (i % every === 0) svg.append(shape("text", { x: frame.left + (i + 0.5) * slot, y: height - 6, "text-anchor": "middle" }, column.label));
  });
}

/* rows: [{name, value, change}] */
function rankBars(box, rows, { label, full, percent }) {
  const { svg, width, height } = canvasFor(box, label);
  const most = Math.max(...rows.map((r) => r.value), 1);
  const slot = height / rows.length;
  rows.forEach((row, i) => {
    const y = i * slot + 14;
    svg.append(shape("text", { class: "strong", x: 0, y }, row.name));
    const value = shape("text", { x: width, y, "text-anchor": "end" });
    value.append(shape("tspan", {}, `${full(row.value)}  `));
    value.append(shape("tspan", { class: row.change < 0 ? "down" : "up" }, percent(row.change)));
    svg.append(value);
    svg.append(shape("rect", { class: "track", x: 0, y: y + 9, width, height: 12 }));
    svg.append(shape("rect", { class: "s0", x: 0, y: y + 9, width: (row.value / most) * width, height: 12 }));
  });
}

/* cells[weekday][hour] */
function heatMap(box, cells, { label, rows, hours, text, tip }) {
  const { svg, width, height } = canvasFor(box, label);
  const left = 36;
  const bottom = height - 22;
  const w = (width - left) / hours.length;
  const h = bottom / rows.length;
  const most = Math.max(...cells.flat(), 0.001);
  rows.forEach((name, r) => {
    svg.append(shape("text", { x: 0, y: r * h + h / 2 + 4 }, name));
    hours.forEach((hour, c) => {
      const value = cells[r][c];
      const cell = shape("rect", { class: "s0", x: left + c * w + 1, y: r * h + 1, width: w - 2, height: h - 2, rx: 2, opacity: (0.06 + 0.94 * (value / most)).toFixed(3) });
      cell.addEventListener("pointermove", (event) => tip(text(r, hour, value), event.clientX, event.clientY));
      cell.addEventListener("pointerleave", () => tip(null));
      svg.append(cell);
    });
  });
  hours.forEach((hour, c) => {
    if (c % 3 === 0) svg.append(shape("text", { x: left + (c + 0.5) * w, y: height - 4, "text-anchor": "middle" }, String(hour)));
  });
}

function sparkline(values) {
  const svg = shape("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" });
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const points = values.map((v, i) => `${((i / (values.length - 1)) * 100).toFixed(2)},${(28 - ((v - least) / (most - least || 1)) * 26).toFixed(2)}`);
  svg.append(shape("polyline", { points: points.join(" ") }));
  return svg;
}
