"use strict";

const $ = (id) => document.getElementById(id);
const sales = makeSales();
const form = $("filters");
let order = { key: "revenue", down: true };
let current = null; // what the page shows now: also what is exported

/* ---- numbers ---- */

const euro = (value) => value.toLocaleString("en", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
const whole = (value) => Math.round(value).toLocaleString("en");
const short = (value) => (value >= 1e6 ? `${+(value / 1e6).toFixed(1)}m` : value >= 1e3 ? `${+(value / 1e3).toFixed(1)}k` : `${+value.toFixed(1)}`);
const percent = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value * 100).toFixed(1)}%`;
const change = (now, before) => (before ? now / before - 1 : 0);
const total = (rows, key) => rows.reduce((sum, row) => sum + row[key], 0);
const dateText = (day, options) => new Date(dayToDate(day)).toLocaleDateString("en-GB", { timeZone: "UTC", ...options });

/* ---- choosing ---- */

function chosen() {
  const days = Number(form.elements.days.value);
  const region = form.elements.region.value;
  const channels = [...form.querySelectorAll("[name=channel]:checked")].map((box) => box.value);
  const fits = (row) => (!region || row.region === region) && channels.includes(row.channel);
  const between = (from, to) => sales.filter((row) => row.day >= from && row.day < to && fits(row));
  return {
    days, region, channels,
    first: DAYS - days,
    now: between(DAYS - days, DAYS),
    before: between(DAYS - 2 * days, DAYS - days),
  };
}

function byDay(rows, first, days, key) {
  const sums = new Array(days).fill(0);
  for (const row of rows) sums[row.day - first] += row[key];
  return sums;
}

/* ---- drawing ---- */

function render() {
  current = chosen();
  const { days, first } = current;
  const dates = { day: "numeric", month: "long", year: "numeric" };
  $("period").textContent = `Sales from ${dateText(first, dates)} to ${dateText(DAYS - 1, dates)}`;
  renderFigures(current);
  renderProducts();
  renderCharts();
  const params = new URLSearchParams({ days, region: current.region, channels: current.channels.join(",") });
  history.replaceState(null, "", `#${params}`);
}

function renderFigures({ now, before, days, first }) {
  const orders = byDay(now, first, days, "orders");
  const revenue = byDay(now, first, days, "revenue");
  const average = (rows) => total(rows, "revenue") / (total(rows, "orders") || 1);
  const returning = (rows) => total(rows, "returning") / (total(rows, "orders") || 1);
  const back = byDay(now, first, days, "returning");
  const figures = [
    ["Revenue", euro(total(now, "revenue")), change(total(now, "revenue"), total(before, "revenue")), revenue],
    ["Orders", whole(total(now, "orders")), change(total(now, "orders"), total(before, "orders")), orders],
    ["Average order", `€${average(now).toFixed(2)}`, change(average(now), average(before)), revenue.map((r, i) => r / (orders[i] || 1))],
    ["Returning customers", `${(returning(now) * 100).toFixed(1)}%`, change(returning(now), returning(before)), back.map((r, i) => r / (orders[i] || 1))],
  ];
  $("kpis").replaceChildren(...figures.map(([name, value, delta, series]) => {
    const box = document.createElement("div");
    box.className = "kpi";
    box.append(element("h2", name), element("p", value, "value"), element("p", `${percent(delta)} on the period before`, delta < 0 ? "down" : "up"));
    box.append(sparkline(smooth(series, days > 28 ? 7 : 1)));
    return box;
  }));
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

function smooth(values, window) {
  const out = [];
  for (let i = 0; i + window <= values.length; i += window) {
    out.push(values.slice(i, i + window).reduce((a, b) => a + b, 0) / window);
  }
  return out;
}

function gather(values, step) {
  const sums = [];
  values.forEach((value, i) => { sums[Math.floor(i / step)] = (sums[Math.floor(i / step)] ?? 0) + value; });
  return sums;
}

function renderCharts() {
  const { now, before, days, first, channels, region } = current;
  if (!now.length) {
    for (const box of document.querySelectorAll(".chart")) box.replaceChildren(element("p", "Choose at least one channel.", "none"));
    return;
  }
  // A year of single days is a hedge of weekends: show its weeks.
  const step = days > 91 ? 7 : 1;
  const revenue = gather(byDay(now, first, days, "revenue"), step);
  const past = gather(byDay(before, first - days, days, "revenue"), step);
  const points = revenue.map((value, i) => ({
    value, before: past[i],
    label: dateText(first + i * step, { day: "numeric", month: "short" }),
    long: (step > 1 ? "Week of " : "") + dateText(first + i * step, { weekday: step > 1 ? undefined : "long", day: "numeric", month: "long" }),
  }));
  $("revenue-title").textContent = step > 1 ? "Revenue by week" : "Revenue by day";
  lineChart($("revenue"), points, { short, full: euro, tip, label: `Revenue, ${euro(Math.min(...revenue))} to ${euro(Math.max(...revenue))}. Use the arrow keys to read the values.` });
  renderChannels(now, days, first);
  renderRegions(now, before, region);
  renderHours(now, days, first, channels);
}

function renderChannels(now, days, first) {
  const slice = days > 91 ? 28 : 7;
  const count = days / slice;
  const columns = Array.from({ length: count }, (_, i) => {
    const day = first + i * slice;
    return {
      label: dateText(day, { day: "numeric", month: "short" }),
      long: `${slice / 7 > 1 ? "Four weeks" : "Week"} from ${dateText(day, { day: "numeric", month: "long" })}`,
      parts: CHANNELS.map(() => 0),
    };
  });
  for (const row of now) {
    columns[Math.floor((row.day - first) / slice)].parts[CHANNELS.indexOf(row.channel)] += row.revenue;
  }
  stackedBars($("channels"), columns, { short, full: euro, names: CHANNELS, tip, label: `Revenue by channel: ${CHANNELS.map((c) => `${c} ${euro(total(now.filter((r) => r.channel === c), "revenue"))}`).join(", ")}` });
}

function renderRegions(now, before, region) {
  const rows = REGIONS.filter((name) => !region || name === region).map((name) => {
    const of = (list) => total(list.filter((row) => row.region === name), "revenue");
    return { name, value: of(now), change: change(of(now), of(before)) };
  });
  rows.sort((a, b) => b.value - a.value);
  $("regions").dataset.height = rows.length === 1 ? 70 : 250;
  rankBars($("regions"), rows, { full: euro, percent, label: rows.map((r) => `${r.name} ${euro(r.value)}, ${percent(r.change)}`).join("; ") });
}

function renderHours(now, days, first, channels) {
  const hours = Array.from({ length: 17 }, (_, i) => i + 6);
  const weeks = days / 7;
  const perChannel = Object.fromEntries(channels.map((c) => [c, new Array(7).fill(0)]));
  for (const row of now) perChannel[row.channel][(new Date(dayToDate(row.day)).getUTCDay() + 6) % 7] += row.orders / weeks;
  const cells = WEEKDAYS.map((_, weekday) => hours.map((hour) => channels.reduce((sum, channel) => {
    const all = hours.reduce((s, h) => s + hourShape(weekday, h, channel), 0);
    return sum + (perChannel[channel][weekday] * hourShape(weekday, hour, channel)) / all;
  }, 0)));
  heatMap($("hours"), cells, {
    rows: WEEKDAYS, hours, tip, label: "Orders by weekday and hour, from 6 to 22 o'clock",
    text: (weekday, hour, value) => `${WEEKDAYS[weekday]}, ${hour}:00\n${value.toFixed(1)} orders`,
  });
}

/* ---- products ---- */

const COLUMNS = [["name", "Product"], ["sold", "Sold"], ["revenue", "Revenue"], ["delta", "Change"]];

function productRows() {
  const revenue = total(current.now, "revenue");
  const past = total(current.before, "revenue");
  const random = seeded(current.days * 7 + current.region.length + 1);
  const weight = PRODUCTS.reduce((sum, [, share]) => sum + share, 0);
  return PRODUCTS.map(([name, share, price]) => {
    const drift = 0.85 + random() * 0.3;
    const own = (revenue * share) / weight;
    return { name, revenue: own, sold: own / price, delta: past ? change(own, (past * share * drift) / weight) : 0 };
  });
}

function renderProducts() {
  const rows = productRows();
  const sign = order.down ? -1 : 1;
  rows.sort((a, b) => sign * (order.key === "name" ? a.name.localeCompare(b.name) : a[order.key] - b[order.key]));
  const most = Math.max(...rows.map((row) => row.revenue), 1);

  $("columns").replaceChildren(...COLUMNS.map(([key, name]) => {
    const th = document.createElement("th");
    th.scope = "col";
    const button = element("button", name + (order.key === key ? (order.down ? " ↓" : " ↑") : ""));
    button.type = "button";
    button.dataset.key = key;
    if (order.key === key) th.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    th.append(button);
    return th;
  }));
  $("products").replaceChildren(...rows.map((row) => {
    const tr = document.createElement("tr");
    const th = element("th", row.name);
    th.scope = "row";
    const money = element("td", euro(row.revenue));
    const bar = element("span", "", "bar");
    const fill = document.createElement("i");
    fill.style.width = `${(row.revenue / most) * 100}%`;
    bar.append(fill);
    money.append(bar);
    tr.append(th, element("td", whole(row.sold)), money, element("td", percent(row.delta), row.delta < 0 ? "down" : "up"));
    return tr;
  }));
}

$("columns").addEventListener("click", (event) => {
  const key = event.target.closest("button")?.dataset.key;
  if (!key) return;
  order = { key, down: order.key === key ? !order.down : key !== "name" };
  renderProducts();
  $("columns").querySelector(`[data-key="${key}"]`).focus();
});

/* ---- the rest ---- */

function tip(text, x, y) {
  const box = $("tip");
  box.hidden = text === null;
  if (text === null) return;
  box.textContent = text;
  const left = x + 14 + box.offsetWidth > innerWidth ? x - 14 - box.offsetWidth : x + 14;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${Math.max(4, y - box.offsetHeight - 10)}px`;
}

$("export").addEventListener("click", () => {
  const lines = ["date,region,channel,orders,revenue"];
  for (const row of current.now) {
    lines.push([new Date(dayToDate(row.day)).toISOString().slice(0, 10), row.region, row.channel, row.orders, row.revenue.toFixed(2)].join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/csv" }));
  link.download = `sales-${current.days}-days.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  try {
    localStorage.setItem("dashboard.theme", name);
  } catch { /* private mode: it lasts as long as the page */ }
}

$("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});

function restore() {
  let theme = "auto";
  try {
    theme = localStorage.getItem("dashboard.theme") ?? theme;
  } catch { /* as above */ }
  setTheme(THEMES.includes(theme) ? theme : "auto");
  form.elements.region.append(...REGIONS.map((name) => new Option(name, name)));
  $("channel-legend").append(...CHANNELS.flatMap((name, i) => [element("span", "", `key box s${i}`), `${name} `]));
  const saved = new URLSearchParams(location.hash.slice(1));
  if (["28", "91", "364"].includes(saved.get("days"))) form.elements.days.value = saved.get("days");
  if (REGIONS.includes(saved.get("region"))) form.elements.region.value = saved.get("region");
  if (saved.has("channels")) {
    for (const box of form.querySelectorAll("[name=channel]")) box.checked = saved.get("channels").split(",").includes(box.value);
  }
}

form.addEventListener("change", render);
form.addEventListener("submit", (event) => event.preventDefault());

restore();
render();

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar changes only the height
  width = innerWidth;
  renderCharts();
});
