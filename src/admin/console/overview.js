// What whoever was woken sees first: what is broken, since when, why, what can be
// done; then who takes deliveries, where they go, and what has moved lately.

import { button } from "./actions.js";
import { h, table } from "./dom.js";
import { figure, illSince, orderedBy, rates, seen, total, traffic } from "./watch.js";
import { path } from "./routes.js";
import { merged, told } from "./events.js";
import {
  ADVICE_ROUTE, ALARMS, advice, ago, ahead, carries, clock, moment, ms, number, percent, perSecond, pill,
  plural, rank, span, why,
} from "./words.js";

export const overview = { title: () => "Overview", render };

/** A credential that ends within this is told of. */
const CREDENTIAL_DAYS = 14;

/** Deliveries that may go and wait longer than this, in seconds (runbook, "Queue age"). */
const OLD = { high: 60, normal: 600 };

function render() {
  const found = troubles();
  return [
    h("section", { class: `headline ${tone(found)}`, "aria-label": "State" },
      h("h1", { "aria-live": "polite" }, seen.failing ? "Last known: " : "", headline(found)),
      h("p", null, summary())),
    found.length ? h("ul", { class: "troubles", "aria-label": "What needs attention" }, found.map(trouble)) : null,
    figures(),
    h("section", null, h("h2", null, "Providers"), providerTable()),
    h("section", null, h("h2", null, "Routes: where traffic goes now"), h("div", { class: "cards" }, seen.routes.map(card))),
    h("section", null, h("h2", null, "Last moves"), moves()),
  ].filter(Boolean);
}

/** What is not as it should be, the worst first:
 * {bad, about, kind, href, state, text, since, turn, until, by, advice, buttons},
 * `turn` being when it took this state, where it was ill before. */
function troubles() {
  const [stuck, other] = [true, false].map((bad) => ofRoutes().filter((one) => one.bad === bad));
  return [...ofStore(), ...ofAlarms(), ...stuck, ...ofProviders(), ...other, ...ofClients(), ...ofQueue()]
    .sort((a, b) => Number(b.bad) - Number(a.bad));
}

function ofStore() {
  const { store, draining } = seen.ready ?? {};
  return [
    store && store !== "writable" && {
      bad: true, about: "store", state: store, text: "New messages get 503. What is stored keeps going out.",
      advice: ALARMS.store[1],
    },
    draining && { bad: false, about: "router", state: "draining", text: "It is shutting down: it takes no new messages." },
  ].filter(Boolean);
}

function ofAlarms() {
  const on = figure("alarm").filter(({ value, labels }) => value === 1 && labels.name !== "store");
  return on.map(({ labels: { name } }) => {
    const [text, advice] = ALARMS[name] ?? [name, ""];
    const raised = seen.events.find(({ type, reason, to }) => type === "alarm" && reason === name && to === "on");
    return { bad: true, about: name, state: "alarm", text, advice, since: raised?.at };
  });
}

function ofRoutes() {
  return seen.routes.flatMap((route) => {
    const { name, paused, override, usable_tier: tier } = route;
    const base = { about: name, href: `#/routes`, kind: "route" };
    const found = [];
    if (paused) {
      found.push({ ...base, bad: true, state: "paused", text: "An operator has paused it: its deliveries wait.",
        by: orderedBy("route", name), advice: ADVICE_ROUTE.paused, buttons: [button("resume-route", { id: name })] });
    } else if (tier === null) {
      found.push({ ...base, bad: true, state: "no way out", text: "No provider of it is usable: its deliveries wait, and expire at the end of their time to live.",
        advice: ADVICE_ROUTE.none, buttons: [button("override", { id: name }, "Override route")] });
    } else if (tier > 0) {
      found.push({ ...base, bad: false, state: "fallback", text: `Tier ${tier + 1} carries it: no provider of a better tier is usable.`,
        advice: ADVICE_ROUTE.fallback });
    }
    if (override) {
      const { reason, expires_at: until } = override;
      found.push({ ...base, bad: false, state: "overridden", text: reason ? `An operator sends it another way: “${reason}”` : "An operator sends it another way.",
        until, by: orderedBy("route", name), buttons: [button("remove-override", { id: name })] });
    }
    return found;
  });
}

function ofProviders() {
  return seen.providers.flatMap((provider) => {
    const { id, state, since, until, reason, paused_until: paused, keys, credential } = provider;
    const base = { about: id, href: `#/provider/${encodeURIComponent(id)}`, kind: "provider" };
    const found = [];
    if (state !== "healthy") {
      found.push({ ...base, bad: state === "ejected", state, text: why(provider), since: illSince(provider), turn: since, until: provider.operator?.until ?? until,
        by: provider.operator ? orderedBy("provider", id) : null, advice: advice(provider), buttons: buttons(provider) });
    }
    if (ahead(paused)) {
      found.push({ ...base, bad: false, state: "paused", text: "The vendor asked us to wait.", until: paused,
        advice: "Nothing goes there until then; what can goes elsewhere." });
    }
    const parts = keys.filter((key) => key.part !== "" && key.state !== "healthy");
    if (parts.length && state === "healthy") {
      const list = parts.slice(0, 3).map(({ part, state }) => `${part} is ${state}`).join(", ");
      found.push({ ...base, bad: false, state: "in part", text: parts.length > 3 ? `${list}, and ${parts.length - 3} more` : list,
        advice: "The rest of the provider carries on." });
    }
    if (!credential.ok && reason !== "auth") {
      found.push({ ...base, bad: true, state: "credential", text: "Its credential cannot be used.", advice: "Look at the log and at the file that the configuration names. Runbook: Credential refused." });
    } else if (credential.expires_at && ahead(credential.expires_at) < CREDENTIAL_DAYS * 86_400) {
      const over = !ahead(credential.expires_at);
      found.push({ ...base, bad: over, state: "credential", text: over ? "Its credential has ended." : `Its credential ends in ${span(ahead(credential.expires_at))}.`,
        until: credential.expires_at, advice: "Put a new one in place and reload. Runbook: Credential expires." });
    }
    return found;
  });
}

function ofClients() {
  return seen.clients.filter(({ paused }) => paused).map(({ name }) => ({
    bad: false, about: name, href: "#/routes", kind: "client", state: "paused", text: "An operator has paused it: its new messages get 503.",
    buttons: [button("resume-client", { id: name })],
  }));
}

function ofQueue() {
  return figure("queue_oldest_seconds")
    .filter(({ labels, value }) => value > (OLD[labels.priority] ?? Infinity))
    .map(({ labels: { route, priority }, value }) => ({
      bad: false, about: route, href: "#/routes", kind: "route", state: "old queue",
      text: `Its oldest ${priority} delivery has waited for ${span(value)}.`,
      advice: "Parked: see the providers below. Else the providers are at their limit. Runbook: Queue age.",
    }));
}

const tone = (found) => (found.some(({ bad }) => bad) ? "bad" : found.length ? "warn" : "good");

function headline(found) {
  const stuck = seen.routes.filter(({ paused, usable_tier: tier }) => paused || tier === null);
  if (stuck.length) return `Nothing goes out on ${stuck.map(({ name }) => name).join(", ")}`;
  const out = seen.providers.filter(({ state }) => state !== "healthy");
  if (out.length) {
    const list = out.map(({ id, state }) => `${id} is ${state}`).join(", ");
    return `Deliveries go out; ${list}`;
  }
  if (found.some(({ bad }) => bad)) return "Deliveries go out, but something needs you";
  return found.length ? "Deliveries go out; look at what stands below" : "All is well";
}

function summary() {
  const usable = seen.providers.filter(carries).length;
  const sum = (name) => rates(name)?.reduce((total, { rate }) => total + rate, 0);
  const moves = sum("failovers_total");
  return [
    `${usable} of ${plural(seen.providers.length, "provider")} usable`,
    `${perSecond(sum("attempts_total"))} calls`,
    moves ? `${perSecond(moves)} failovers` : "no failovers now",
  ].join(" · ");
}

function trouble({ bad, about, kind, href, state, text, since, turn, until, by, advice, buttons }) {
  const times = [
    since && h("span", null, "since ", moment(since), ` (${ago(since)})`),
    turn && turn !== since && h("span", null, `${state} at `, moment(turn)),
    until && h("span", null, "until ", moment(until)),
    by && h("span", null, `by ${by}`),
  ].filter(Boolean);
  return h("li", { class: `trouble ${bad ? "bad" : "warn"}`, "data-key": `${kind} ${about} ${state}` },
    h("div", { class: "what" },
      h("p", null, pill(state, bad ? "bad" : "warn"), " ",
        h("strong", null, href ? h("a", { href }, about) : about), kind && kind !== "provider" ? h("span", { class: "dim" }, ` ${kind}`) : null, ": ", text),
      times.length ? h("p", { class: "dim" }, times.flatMap((time, at) => (at ? [" · ", time] : [time]))) : null,
      advice ? h("p", { class: "advice" }, advice) : null),
    buttons?.length ? h("div", { class: "buttons" }, buttons) : null);
}

function figures() {
  const letters = total("dead_letters");
  const oldest = figure("queue_oldest_seconds").map(({ value }) => value);
  // A delivery is parked for each provider that could take it.
  const parked = Math.max(0, ...seen.providers.map((provider) => provider.parked));
  const sent = rates("deliveries_total")?.filter(({ labels }) => labels.state === "sent")
    .reduce((sum, { rate }) => sum + rate, 0);
  const tile = (name, value, note, href) =>
    h(href ? "a" : "div", { class: "tile", href },
      h("span", { class: "name" }, name), h("span", { class: "value" }, value), h("span", { class: "note" }, note));
  return h("section", { class: "tiles", "aria-label": "Figures" },
    tile("Sent", perSecond(sent), "accepted by a vendor"),
    tile("Unsettled", number(total("queue_deliveries")), "queued, sending, waiting"),
    tile("Oldest", oldest.length ? span(Math.max(...oldest)) : "–", "delivery that waits"),
    tile("Parked", number(parked), "no usable provider"),
    tile("Dead letters", number(letters), "could not be delivered", "#/dead-letters"));
}

/** The buttons that fit a provider's state. */
export function buttons({ id, state, operator }) {
  const resumable = operator || ["ejected", "drained"].includes(state);
  return [
    resumable ? button("resume", { id }) : null,
    operator?.wish === "drain" ? null : button("drain", { id }),
    operator?.wish === "eject" ? null : button("eject", { id }),
  ].filter(Boolean);
}

function providerTable() {
  const calls = traffic();
  const columns = [
    ["Provider"], ["State and why", "wide"], ["Since"], ["Now", "number"], ["Success", "number"],
    ["p50 · p95 · p99", "number"], ["In flight", "number"], ["Parked", "number"], ["Actions", "act"],
  ];
  const order = [...seen.providers].sort((a, b) => rank(a.state) - rank(b.state));
  return table("Providers", columns, order.map((provider) => {
    const { id, kind, state, until, paused_until: paused, window, latency_ms: latency, in_flight, limit, parked, operator } = provider;
    const end = operator?.until ?? until;
    const called = window.successes + window.failures > 0;
    return {
      key: id,
      class: state,
      cells: [
        [h("a", { href: `#/provider/${encodeURIComponent(id)}`, class: "name" }, id), kind === id ? null : h("span", { class: "dim" }, ` ${kind}`)],
        [pill(state), " ", h("span", { class: "why" }, why(provider)), end && state !== "healthy" ? h("span", { class: "dim" }, ` until ${clock(end)}`) : null,
          ahead(paused) ? [" ", pill("paused", "warn"), h("span", { class: "dim" }, ` by the vendor until ${clock(paused)}`)] : null],
        [moment(illSince(provider), ago(illSince(provider)))],
        calls ? perSecond(calls.get(id) ?? 0) : "–",
        called ? percent(window.ratio) : h("span", { class: "dim" }, "no calls"),
        called || latency.p50 ? `${number(latency.p50)} · ${number(latency.p95)} · ${ms(latency.p99)}` : "–",
        `${number(in_flight)} / ${number(limit)}`,
        number(parked),
        h("div", { class: "buttons" }, buttons(provider)),
      ],
    };
  }));
}

function card(route) {
  const { name, paused, usable_tier: tier } = route;
  const state = paused ? pill("paused", "bad") : tier === null ? pill("no way out", "bad")
    : tier > 0 ? pill("fallback", "warn") : pill("first tier", "good");
  return h("article", { class: "card", "data-key": name },
    h("h3", null, h("a", { href: "#/routes" }, name), " ", state),
    path(route));
}

function moves() {
  const kinds = ["failover", "provider.state", "operator", "route.override", "alarm"];
  const last = merged(seen.events.filter(({ type }) => kinds.includes(type))).slice(0, 8);
  if (!last.length) return h("p", { class: "hint" }, "Nothing has moved since the router started.");
  return [
    h("ol", { class: "log" }, last.map(told)),
    h("p", null, h("a", { href: "#/events" }, "All events")),
  ];
}
