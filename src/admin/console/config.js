// The configuration in force, secrets masked; reloading it, and the log's filter.

import { button } from "./actions.js";
import { h } from "./dom.js";
import { asked } from "./watch.js";

export const config = { title: () => "Configuration", render, load };

let effective = null;
let refused = null;

async function load() {
  ({ value: effective, refused } = await asked("config"));
}

function render() {
  return [
    h("div", { class: "title" }, h("h1", null, "Configuration"),
      h("div", { class: "buttons" }, button("reload", {}), button("log", {}))),
    h("p", { class: "hint" }, "As in force now, defaults included, secrets masked. ",
      "A change is made in the file, which a reload reads as a whole: a file with faults changes nothing."),
    refused ? h("p", { class: "banner warn", role: "alert" }, `Not shown: ${refused.message}.`) : null,
    effective ? h("div", { class: "sections" }, Object.entries(effective).map(section)) : null,
  ].filter(Boolean);
}

function section([name, value]) {
  const many = Array.isArray(value) ? ` (${value.length})` : "";
  return h("details", { class: "card", "data-key": name }, h("summary", null, h("strong", null, name), many),
    h("pre", { tabindex: "0", "aria-label": name }, JSON.stringify(value, null, 2)));
}
