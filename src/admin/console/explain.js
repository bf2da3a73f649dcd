// Why a message would go where: the router's own plan, asked and not guessed. It
// sends and stores nothing.

import { call, Refused } from "./admin.js";
import { faults, said } from "./actions.js";
import { bar, h, table } from "./dom.js";
import { seen } from "./watch.js";
import { clock, number, percent, pill } from "./words.js";

export const explain = { title: () => "Explain", render, load, submit };

let answer = null;
let refused = null;

/** What an address of a kind is called, where that is not `token`. */
const NAMES = {
  ntfy: "topic", stream: "topic", mqtt: "topic", gotify: "app_token", webhook: "id",
  xiaomi: "reg_id", vivo: "reg_id", oppo: "registration_id", adm: "registration_id", meizu: "push_id",
  wns: "channel_uri",
};

/** Another place, another question. */
async function load({ parameters: { delivery } }) {
  [answer, refused] = [null, null];
  if (delivery) await ask(`explain?delivery=${encodeURIComponent(delivery)}`);
}

async function submit({ to, route, body }) {
  if (body?.trim()) {
    try {
      return await ask("explain", JSON.parse(body));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      [answer, refused] = [null, new Refused(400, { detail: `the message is not JSON: ${error.message}` })];
      return;
    }
  }
  const addresses = to.split(",").map((text) => text.trim()).filter(Boolean).map(address);
  await ask("explain", { to: [{ addresses }], notification: { title: "Explain" }, ...(route ? { route } : {}) });
}

/** `fcm:TOKEN`, as `pushyard send --to` takes it. */
function address(text) {
  const [kind, ...rest] = text.split(":");
  return { kind, [NAMES[kind] ?? "token"]: rest.join(":") };
}

async function ask(path, body) {
  [answer, refused] = [null, null];
  try {
    answer = await call("POST", `/admin/v1/${path}`, body);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refused = error;
  }
}

function render({ parameters: { delivery } }) {
  return [
    h("h1", null, "Explain"),
    h("p", { class: "hint" }, "Why a message would go where, as things are now. Nothing is sent or stored."),
    h("div", { class: "cards" }, h("form", { class: "ask card", "data-to": "explain", autocomplete: "off" },
      h("label", null, h("span", null, "A delivery that is there"),
        h("input", { name: "delivery", value: delivery, required: true, placeholder: "delivery id", spellcheck: "false" })),
      h("p", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Explain delivery"))),
    h("form", { class: "ask card", "data-form": "explain", autocomplete: "off" },
      h("label", null, h("span", null, "Or a recipient that might be sent to"),
        h("input", { name: "to", placeholder: "apns:5c1f09ab…, fcm:e1dJ7…", spellcheck: "false" }),
        h("small", null, "kind:token, a comma between the addresses of one recipient")),
      h("label", null, h("span", null, "Route"),
        h("select", { name: "route" }, h("option", { value: "" }, "the default"),
          seen.routes.map(({ name }) => h("option", { value: name }, name)))),
      h("details", null, h("summary", null, "Or a whole message, as JSON"),
        h("label", null, h("span", null, "Message"),
          h("textarea", { name: "body", rows: 10, spellcheck: "false", placeholder: '{"to":[{"addresses":[{"kind":"fcm","token":"…"}]}],"notification":{"title":"…"}}' }))),
      h("p", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Explain")))),
    h("div", { class: "stack", "aria-live": "polite" }, refused ? sorry(refused) : answer ? plan(answer) : null),
  ];
}

function sorry(error) {
  return h("div", { class: "banner warn" }, h("p", null, said(error)), faults(error));
}

/** Beside what the contract promises, a router may say more: what has been tried,
 * whether an operator has paused it, what could not be done as asked. */
function plan({ route, paused, deliveries, warnings = [], unresolved = [] }) {
  const asides = [
    ...warnings.map(({ pointer, detail }) => `${pointer} ${detail}`),
    ...unresolved.map(({ user, reason }) => `${user}: ${reason}`),
  ];
  return [
    h("h2", null, `On route ${route}`),
    paused ? h("p", { class: "banner warn" }, `An operator has paused the ${paused}: it would wait.`) : null,
    asides.length ? h("div", { class: "banner warn" }, h("ul", null, asides.map((text) => h("li", null, text)))) : null,
    deliveries.map(delivery),
  ];
}

function delivery({ ref, id, state, next_at: next, attempts = [], panic, candidates: list, excluded: out }, at) {
  return h("article", { class: "card" },
    h("h3", null, ref ?? `Recipient ${at + 1}`, state ? [" ", pill(state)] : null,
      id ? [" ", h("a", { class: "button", href: `#/message/${id}` }, "Timeline")] : null),
    attempts.length ? [h("h4", null, "How it came here"), tried(attempts)] : null,
    next ? h("p", null, `It is tried again at ${clock(next)}.`) : null,
    h("h4", null, "Where it would go now"),
    panic ? h("p", { class: "banner warn" }, "Every candidate is out; the first is tried to see whether it is back.") : null,
    candidates(list),
    out.length ? [h("h4", null, "Left out"), excluded(out)] : null);
}

function tried(attempts) {
  const columns = [["Attempt", "number"], ["Provider"], ["Outcome"], ["Why there", "wide"]];
  return table("Attempts", columns, attempts.map(({ n, provider, outcome, moved }) =>
    [number(n), provider, pill(outcome), moved ? moved.detail : n === 1 ? "the first candidate" : "–"]));
}

function candidates(list) {
  if (!list.length) return h("p", { class: "banner bad" }, "No candidate: it would wait, or fail when none can come.");
  const columns = [["Order", "number"], ["Provider"], ["Address", "wide"], ["Tier", "number"], ["Share"], ["State", "wide"], ["Score", "wide"], ["Request"]];
  return table("Candidates", columns, list.map((one) => [
    number(one.position), [h("a", { href: `#/provider/${encodeURIComponent(one.provider)}` }, one.provider), one.kind === one.provider ? null : h("span", { class: "dim" }, ` ${one.kind}`)],
    h("code", null, one.address), number(one.tier + 1),
    one.share === null || one.share === undefined ? "–" : [bar(one.share), percent(one.share)],
    [pill(one.state), h("div", { class: "dim" }, (one.keys ?? []).map(({ part, state }) => `${part || "whole"}: ${state}`).join(", "))],
    score(one.score),
    one.request ? h("details", null, h("summary", null, "show"), h("pre", { tabindex: "0" }, JSON.stringify(one.request, null, 2))) 
      : one.request_problem ?? "–",
  ]));
}

const score = (of) => (of ? Object.entries(of).map(([name, value]) => `${name} ${value}`).join(", ") : "–");

const LEFT_OUT = {
  kind: "the provider does not serve this kind of address", app: "the provider serves another app",
  region: "the recipient must stay in another region", address_gone: "the vendor gave this address up",
  address_paused: "this address rests", excluded_by_delivery: "this delivery has ruled it out",
  budget: "its budget is spent", drained: "an operator drained it", ejected: "it is ejected",
  probing: "it is on probation and its canary is taken", throttled: "the vendor asked to wait",
  saturated: "it has no room now",
};

function excluded(list) {
  const columns = [["Provider"], ["Address", "wide"], ["Reason"], ["What it means", "wide"]];
  return table("Left out", columns, list.map(({ provider, kind, address, reason, detail, until }) => [
    [provider, kind === provider ? null : h("span", { class: "dim" }, ` ${kind}`)], h("code", null, address ?? "–"), pill(reason, "warn"),
    [LEFT_OUT[reason] ?? "", detail ? `; ${detail}` : "", until ? `, until ${clock(until)}` : ""],
  ]));
}
