// Who did what, and why; kept over restarts.

import { get, Refused } from "./admin.js";
import { h, table } from "./dom.js";
import { seen } from "./watch.js";
import { moment } from "./words.js";

export const audit = { title: () => "Audit", render, load, on, again };

let actions = null;
let next = null;
let refused = null;
let latest = null;

async function load() {
  latest = lastEvent();
  await page(null);
}

async function on(what) {
  if (what === "more") await page(next);
}

const lastEvent = () => seen.events.find(({ by }) => by)?.id ?? null;

/** Something was done since. */
function again() {
  return lastEvent() !== latest;
}

async function page(cursor) {
  try {
    const answer = await get(`audit?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    actions = cursor ? [...actions, ...answer.items] : answer.items;
    [next, refused] = [answer.next, null];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refused = error;
  }
}

function render() {
  return [
    h("h1", null, "Audit"),
    h("p", { class: "hint" }, "What operators did, the latest first. Each entry was on disk before the call was answered."),
    refused ? h("p", { class: "banner warn", role: "alert" }, `Not listed: ${refused.message}.`) : null,
    actions?.length ? table("Audit", [["When"], ["Who"], ["What", "wide"], ["Why", "wide"]],
      actions.map(({ id, at, who, what, why }) => ({ key: id, cells: [moment(at), who, h("code", null, what), why ?? "–"] })))
      : actions ? h("p", { class: "card" }, "Nobody has done anything yet.") : null,
    next ? h("button", { type: "button", "data-do": "more" }, "More") : null,
  ].filter(Boolean);
}
