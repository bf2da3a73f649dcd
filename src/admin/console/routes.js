// Routes: their tiers as they are in force, who carries traffic now, and the
// kill switches of routes and clients.

import { button } from "./actions.js";
import { bar, h, table } from "./dom.js";
import { asked, providerOf, rates, seen, traffic } from "./watch.js";
import { ahead, carries, clock, FAILOVER, percent, perSecond, pill } from "./words.js";

export const routes = { title: () => "Routes", render, load };

/** By route: what an override stands in for. */
let configured = new Map();

async function load() {
  const { value } = await asked("config");
  configured = new Map((value?.routes ?? []).map((route) => [route.name, route]));
}

function render() {
  return [
    h("h1", null, "Routes"),
    h("div", { class: "stack" }, seen.routes.map(card)),
    h("section", null, h("h2", null, "Clients"), clients()),
  ];
}

function card(route) {
  const { name, balance, override, paused } = route;
  return h("article", { class: "card", "data-key": name, "aria-label": `Route ${name}` },
    h("div", { class: "title" },
      h("h2", null, name, " ", paused ? pill("paused", "bad") : null, override ? [" ", pill("overridden", "warn")] : null),
      h("div", { class: "buttons" },
        button("override", { id: name }, override ? "Change override" : "Override"),
        override ? button("remove-override", { id: name }) : null,
        button(paused ? "resume-route" : "pause-route", { id: name }))),
    h("p", { class: "dim" }, `Balance within a tier: ${balance}.`),
    override ? overridden(route) : null,
    path(route),
    flows(name));
}

function overridden({ name, override: { reason, expires_at: end } }) {
  const was = configured.get(name);
  return h("p", { class: "advice" },
    "An operator sends it this way", end ? ` until ${clock(end)}` : ", without an end", reason ? `: “${reason}”` : "", ". ",
    was ? `As configured: ${was.tiers.map((tier) => tier.join(", ")).join(" / ")}, ${was.balance}.` : null);
}

/** The tiers of a route, best first: who is in them, and what goes to each now. */
export function path(route) {
  const { tiers, weights, balance } = route;
  const calls = traffic();
  const all = calls && tiers.flat().reduce((sum, id) => sum + (calls.get(id) ?? 0), 0);
  return h("ol", { class: "tiers" }, tiers.map((members, at) => {
    const used = !route.paused && route.usable_tier === at;
    return h("li", { class: used ? "tier used" : "tier" },
      h("p", { class: "dim" }, `Tier ${at + 1}`, used ? h("strong", null, " · in use") : null),
      h("ul", null, members.map((id) => member(id, members.length > 1 && balance !== "cheapest" ? weights[id] : null, calls?.get(id) ?? 0, all))));
  }));
}

function member(id, weight, rate, all) {
  const provider = providerOf(id);
  const share = all ? rate / all : 0;
  return h("li", { class: provider && carries(provider) ? "member" : "member out" },
    h("a", { href: `#/provider/${encodeURIComponent(id)}`, class: "name" }, id), " ",
    provider ? h("span", null, pill(provider.state), ahead(provider.paused_until) ? [" ", pill("paused", "warn")] : null) : null,
    weight !== null && weight !== 1 ? h("span", { class: "dim" }, ` weight ${weight}`) : null,
    bar(share),
    h("span", { class: "rate" }, all === null ? "–" : `${perSecond(rate)}${all ? ` · ${percent(share)}` : ""}`));
}

/** Failovers of the last seconds: from where to where, and why. */
function flows(name) {
  const now = (rates("failovers_total") ?? []).filter(({ labels, rate }) => labels.route === name && rate > 0);
  if (!now.length) return null;
  return h("div", null, h("h3", null, "Failovers of the last seconds"), h("ul", { class: "flows" }, now.map(({ labels: { from, to, reason }, rate }) =>
    h("li", null, h("strong", null, from, " → ", to), ` ${perSecond(rate)}: ${from} ${FAILOVER[reason] ?? reason}`))));
}

function clients() {
  if (!seen.clients.length) return h("p", { class: "hint" }, "None.");
  const line = ({ name, admin, paused }) => [
    h("strong", null, name),
    paused ? pill("paused", "bad") : pill("may send", "good"),
    admin ? "admin" : "–",
    h("div", { class: "buttons" }, button(paused ? "resume-client" : "pause-client", { id: name })),
  ];
  return table("Clients", [["Client"], ["State"], ["Rights"], ["Actions", "act"]], seen.clients.map(line));
}
