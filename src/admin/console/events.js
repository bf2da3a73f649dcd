// What happens, as it happens; and what the router still holds of before.

import { h } from "./dom.js";
import { seen } from "./watch.js";
import { FAILOVER, moment, number, pill, plural, span, WHY } from "./words.js";

export const events = { title: () => "Events", render, on };

const KINDS = {
  "provider.state": "provider states", failover: "failovers", operator: "operators",
  "route.override": "overrides", reload: "reloads", alarm: "alarms",
};

const hidden = new Set();
let about = "";
let frozen = null;

function on(what, { value, checked }) {
  if (what === "kind") hidden[checked ? "delete" : "add"](value);
  else if (what === "about") about = value;
  else if (what === "freeze") frozen = frozen ? null : [...seen.events];
}

function render() {
  const all = frozen ?? seen.events;
  const wanted = all.filter((event) => !hidden.has(event.type) && (!about || concerns(event, about)));
  const fresh = frozen ? seen.events.length - frozen.length : 0;
  return [
    h("h1", null, "Events"),
    h("form", { class: "filters", "data-form": "events" },
      h("fieldset", null, h("legend", null, "Show"), Object.entries(KINDS).map(([kind, words]) =>
        h("label", { class: "check" }, h("input", { type: "checkbox", value: kind, checked: !hidden.has(kind), "data-toggle": "kind" }), ` ${words}`))),
      h("label", null, h("span", null, "About"),
        h("select", { "data-toggle": "about" }, h("option", { value: "" }, "everything"),
          seen.providers.map(({ id }) => h("option", { value: id, selected: id === about }, id)))),
      h("button", { type: "button", "data-do": "freeze", "aria-pressed": String(Boolean(frozen)) },
        frozen ? `Go on${fresh > 0 ? ` (${number(fresh)} new)` : ""}` : "Hold still")),
    h("p", { class: "hint" }, `${plural(wanted.length, "event")}, the latest first. The router holds the last 1,000.`),
    h("div", { role: "log", "aria-live": frozen ? "off" : "polite", "aria-label": "Events" },
      h("ol", { class: "log" }, wanted.map(told))),
  ];
}

const concerns = ({ provider, from, to }, id) => provider === id || from === id || to === id;

/** What repeats within this is one line, in milliseconds: failovers are told once a
 * second, and a vendor that stays ill is tried and ejected again by turns. */
const AGAIN = { failover: 5_000, "provider.state": 600_000 };

/** Events with what repeats made one line, so that it does not hide what led to it. */
export function merged(events) {
  const bursts = new Map();
  const lines = [];
  for (const event of events) {
    const { type, at, provider, part, route, from, to, reason, count } = event;
    const kind = [type, provider, part, route, from, to, reason].join(" ");
    const burst = bursts.get(kind);
    if (burst && Date.parse(burst.first ?? burst.at) - Date.parse(at) < AGAIN[type]) {
      burst.count += count ?? 1;
      burst.first = at;
      continue;
    }
    const line = { ...event, count: count ?? 1 };
    if (AGAIN[type]) bursts.set(kind, line);
    lines.push(line);
  }
  return lines;
}

/** One event as a line. */
export function told(event) {
  const { id, at, type } = event;
  const by = event.by ? h("span", { class: "dim" }, ` by ${event.by}`) : null;
  return h("li", { "data-key": id }, moment(at), h("span", { class: "kind" }, type), h("span", { class: "text" }, WORDS[type]?.(event) ?? type, by));
}

const why = ({ reason }) => (reason ? `: ${reason}` : "");

const WORDS = {
  "provider.state": ({ provider, part, from, to, reason, count, at, first }) => {
    const words = reason ? `: ${WHY[reason] ?? reason}` : "";
    return [link(provider), part ? ` (${part})` : "", ` ${from} → `, pill(to), words, first ? h("span", { class: "dim" }, `, ${number(count)} times`) : null, within(at, first)];
  },
  failover: ({ route, from, to, reason, count, at, first }) => [
    h("strong", null, `${from} → ${to}`), ` ${plural(count, "delivery", "deliveries")} on ${route}: ${from} ${FAILOVER[reason] ?? reason}`,
    within(at, first),
  ],
  operator: (event) => {
    const { provider, route, to } = event;
    return [h("strong", null, to), " ", provider ? link(provider) : route ? `route ${route}` : "", why(event)];
  },
  "route.override": (event) => [h("strong", null, `override ${event.to}`), ` on route ${event.route}`, why(event)],
  reload: (event) => [h("strong", null, "configuration reloaded"), event.to ? `: ${event.to}` : ", nothing had changed", why(event)],
  alarm: ({ reason, to }) => ["alarm ", h("strong", null, reason), ` ${to}`],
};

const within = (at, first) =>
  (first ? h("span", { class: "dim" }, ` within ${span((Date.parse(at) - Date.parse(first)) / 1000)}`) : null);

const link = (id) => h("a", { href: `#/provider/${encodeURIComponent(id)}` }, id);
