"use strict";

/* Two years of a made-up shop, the same at every visit: everything comes from one seeded generator. */

const REGIONS = ["North", "South", "Coast", "Capital"];
const CHANNELS = ["Web", "Shop", "Wholesale"];
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const PRODUCTS = [
  ["Granite espresso", 0.27, 14.5], ["Slate filter", 0.19, 13], ["Chalk decaf", 0.08, 15],
  ["Basalt dark roast", 0.15, 12.5], ["Marble reserve", 0.06, 29], ["Pebble cold brew", 0.12, 4.5],
  ["Hand grinder", 0.03, 68], ["Brewing class", 0.10, 35],
];
const FIRST_DAY = Date.UTC(2024, 0, 1);
const DAYS = 731; // 2024 and 2025

function seeded(seed) {
  // mulberry32: 32 bits of state are plenty for a demonstration.
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function makeSales() {
  const random = seeded(20251231);
  const size = { North: 0.8, South: 0.65, Coast: 0.95, Capital: 1.5 };
  const share = { Web: 1, Shop: 0.8, Wholesale: 0.35 };
  const basket = { Web: 34, Shop: 13, Wholesale: 142 };
  const growth = { Web: 0.42, Shop: 0.06, Wholesale: 0.2 };
  const rows = [];
  for (let day = 0; day < DAYS; day++) {
    const weekday = new Date(dayToDate(day)).getUTCDay();
    const year = (day % 366) / 366;
    const season = 1 + 0.16 * Math.cos(2 * Math.PI * (year - 0.96)) + (year > 0.9 && year < 0.98 ? 0.3 : 0);
    const mood = 0.9 + random() * 0.2;
    for (const region of REGIONS) {
      for (const channel of CHANNELS) {
        const weekend = weekday === 0 || weekday === 6;
        const rhythm = channel === "Shop" ? (weekend ? 1.45 : 0.85) : channel === "Web" ? (weekday === 1 ? 1.2 : 1) : weekend ? 0.08 : 1.3;
        const trend = 1 + growth[channel] * (day / DAYS) * (region === "South" ? -0.4 : 1);
        const orders = Math.round(42 * size[region] * share[channel] * season * rhythm * trend * mood * (0.8 + random() * 0.4));
        rows.push({
          day, region, channel, orders,
          revenue: orders * basket[channel] * (0.9 + random() * 0.2),
          returning: orders * Math.min(0.8, 0.38 + 0.12 * (day / DAYS) + random() * 0.08),
        });
      }
    }
  }
  return rows;
}

function dayToDate(day) {
  return FIRST_DAY + day * 86400e3;
}

/* Orders of one weekday (0 = Monday) and hour as a share of the week. */
function hourShape(weekday, hour, channel) {
  const bump = (centre, width) => Math.exp(-((hour - centre) ** 2) / (2 * width * width));
  const weekend = weekday > 4;
  if (channel === "Shop") return weekend ? bump(11, 2.2) * 1.5 : bump(8.3, 1.1) + 0.6 * bump(16.5, 1.8);
  if (channel === "Web") return 0.8 * bump(12.5, 1.6) + bump(20.5, 1.9) + (weekday === 0 ? 0.3 : 0.05);
  return weekend ? 0.03 : bump(9.5, 1.3);
}
