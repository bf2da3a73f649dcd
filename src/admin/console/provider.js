// One provider: all that is known of it, and what operators did with it.

import { asked, illSince, providerOf, seen } from "./watch.js";
import { buttons } from "./overview.js";
import { facts, h, table } from "./dom.js";
import { merged, told } from "./events.js";
import {
  advice, ago, ahead, clock, moment, ms, number, percent, pill, span, WHY, why,
} from "./words.js";

export const provider = { title: ({ argument }) => argument ?? "Provider", render, load };

/** Operators' actions, the latest first. */
let actions = [];

async function load() {
  const { value } = await asked("audit?limit=1000");
  actions = value?.items ?? [];
}

function render({ argument: id }) {
  const provider = providerOf(id);
  if (!provider) {
    return [h("h1", null, id), h("p", { class: "hint" }, "No provider of this id is configured. ", h("a", { href: "#/overview" }, "To the overview"))];
  }
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/overview" }, "Overview"), " / provider"),
    h("div", { class: "title" },
      h("h1", null, id, " ", provider.kind === id ? null : h("span", { class: "dim" }, `${provider.kind} `), pill(provider.state)),
      h("div", { class: "buttons" }, buttons(provider))),
    standing(provider),
    h("div", { class: "columns" },
      h("section", { class: "card" }, h("h2", null, "Calls"), calls(provider)),
      h("section", { class: "card" }, h("h2", null, "Login and probe"), login(provider)),
      h("section", { class: "card" }, h("h2", null, "Used by"), usedBy(id))),
    h("section", null, h("h2", null, "Parts"), parts(provider)),
    h("section", null, h("h2", null, "Last errors"), errors(provider)),
    h("section", null, h("h2", null, "What happened to it"), story(id)),
    h("section", null, h("h2", null, "What operators did"), deeds(id)),
  ];
}

function standing(provider) {
  const { state, since, until, operator, paused_until: paused } = provider;
  const end = operator?.until ?? until;
  return h("div", { class: "card" },
    h("p", null, h("strong", null, state === "healthy" ? "It takes its share." : why(provider) || "It is not healthy.")),
    facts([
      ["Not healthy since", state === "healthy" ? null : [moment(illSince(provider)), ` (${ago(illSince(provider))})`]],
      [`${state[0].toUpperCase()}${state.slice(1)} since`, [moment(since), ` (${ago(since)})`]],
      ["Until", state !== "healthy" && end ? [moment(end), ahead(end) ? ` (in ${span(ahead(end))})` : ""] : null],
      ["Pause of the vendor", ahead(paused) ? `until ${clock(paused)}` : null],
      ["Ordered", operator ? `${operator.wish}, ${clock(operator.since)}` : null],
    ]),
    advice(provider) ? h("p", { class: "advice" }, advice(provider)) : null);
}

function calls({ window, latency_ms: latency, in_flight: flying, limit, rate, connections, parked, cost }) {
  const many = window.successes + window.failures;
  return facts([
    [`Success of ${window.seconds} s`, many ? `${percent(window.ratio)} (${number(window.successes)} of ${number(many)})` : "no calls"],
    ["Latency p50 · p95 · p99", latency.p50 || many ? `${ms(latency.p50)} · ${ms(latency.p95)} · ${ms(latency.p99)}` : "–"],
    ["In flight", `${number(flying)} of ${number(limit)}`],
    ["Rate", rate ? `at most ${number(rate)}/s` : "not limited"],
    ["Connections", number(connections)],
    ["Parked", number(parked)],
    ["Cost", cost ? cost.toFixed(2) : null],
  ]);
}

function login({ credential, last_probe: probe }) {
  const { kind, ok, expires_at: end } = credential;
  return facts([
    ["Credential", kind || "none"],
    ["State", ok ? pill("usable", "good") : pill("unusable", "bad")],
    ["Ends", end ? [moment(end), ` (in ${span(ahead(end))})`] : "never"],
    ["Last probe", probe ? [pill(probe.ok ? "ok" : "failed", probe.ok ? "good" : "bad"), ` ${ago(probe.at)}`, probe.detail ? h("div", { class: "dim" }, probe.detail) : null] : "none yet"],
  ]);
}

function usedBy(id) {
  const routes = seen.routes.filter(({ tiers }) => tiers.flat().includes(id));
  if (!routes.length) return h("p", { class: "hint" }, "No route sends through it now.");
  return h("ul", null, routes.map(({ name, tiers }) => {
    const tier = tiers.findIndex((members) => members.includes(id));
    return h("li", null, h("a", { href: "#/routes" }, name), `, tier ${tier + 1}`);
  }));
}

function parts({ keys }) {
  return table("Parts", [["Part"], ["State"], ["Why", "wide"]],
    keys.map(({ part, state, reason }) => [part || "the whole", pill(state), reason ? WHY[reason] ?? reason : "–"]));
}

function errors({ last_errors: list }) {
  if (!list.length) return h("p", { class: "hint" }, "None since the router started.");
  const latest = [...list].sort((a, b) => b.at.localeCompare(a.at));
  return table("Last errors", [["When"], ["Outcome", "pair"], ["Status"], ["Code", "wide"], ["What the vendor said", "wide"]],
    latest.map(({ at, outcome, status, code, detail }) => [moment(at), pill(outcome), status ?? "–", code ?? "–", detail && detail !== code ? detail : "–"]));
}

function story(id) {
  const about = seen.events.filter(({ provider, from, to, type }) =>
    provider === id || (type === "failover" && (from === id || to === id)));
  if (!about.length) return h("p", { class: "hint" }, "Nothing that the router still holds.");
  return h("ol", { class: "log" }, merged(about).slice(0, 20).map(told));
}

function deeds(id) {
  const done = actions.filter(({ what }) => what.endsWith(` providers/${id}`)).slice(0, 20);
  if (!done.length) return h("p", { class: "hint" }, "Nothing.");
  return table("What operators did", [["When"], ["Who"], ["What"], ["Why", "wide"]],
    done.map(({ at, who, what, why }) => [moment(at), who, what.split(" ")[0], why ?? "–"]));
}
