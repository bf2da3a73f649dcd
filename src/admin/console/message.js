// What became of a message: each delivery, each attempt, and why it moved on.

import { get, Refused } from "./admin.js";
import { button } from "./actions.js";
import { facts, h } from "./dom.js";
import { clock, moment, MOVE, ms, number, pill, plural, reasonWords, settled, span, vendorSaid } from "./words.js";

export const message = { title: ({ argument }) => (argument ? `Message ${argument.slice(0, 8)}` : "Message"), render, load, again, on };

/** What was found, and what was asked for. */
let found = null;
let refused = null;
let asked = null;
let pages = 1;

const PAGE = 50;

async function load({ argument: id }) {
  if (id !== asked) [found, refused, asked, pages] = [null, null, id, 1];
  if (!id) return;
  try {
    const path = `messages/${encodeURIComponent(id)}`;
    let answer = await get(`${path}?limit=${PAGE}`);
    for (let page = 1; page < pages && answer.deliveries.next; page += 1) {
      const more = await get(`${path}?limit=${PAGE}&cursor=${encodeURIComponent(answer.deliveries.next)}`);
      more.deliveries.items = [...answer.deliveries.items, ...more.deliveries.items];
      answer = more;
    }
    if (id === asked) [found, refused] = [answer, null];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (id === asked) refused = error;
  }
}

/** Until nothing can happen to it any more. */
function again({ argument }) {
  return Boolean(argument) && (found ? !settled(found.state) || found.state === "sent" : refused?.status !== 404);
}

function on(what) {
  if (what === "more") {
    pages += 1;
    return load({ argument: asked });
  }
}

function render({ argument: id }) {
  return [
    h("h1", null, "Message"),
    h("form", { class: "filters", "data-form": "message", autocomplete: "off" },
      h("label", { class: "grow" }, h("span", null, "Id of a message or of a delivery"),
        h("input", { name: "id", value: id || null, required: true, spellcheck: "false" })),
      h("button", { type: "submit", class: "primary" }, "Look up")),
    !id ? h("p", { class: "hint" }, "A backend has both ids from the answer to its call; a device has the delivery's in the payload, as the first part of “pushyard”.")
      : refused ? h("p", { class: "banner warn", role: "alert" }, sorry(refused))
        : found ? shown(id) : h("p", { class: "hint" }, "Asking …"),
  ].flat();
}

message.submit = ({ id }) => {
  location.hash = `#/message/${encodeURIComponent(id.trim())}`;
};

const sorry = ({ status, message }) => (status === 404
  ? "There is no message or delivery of this id, or it is no longer kept."
  : `Not found out: ${message}.`);

function shown(id) {
  const { state, route, priority, accepted_at: accepted, expires_at: expires, metadata, trace, counts, deliveries } = found;
  const labels = Object.entries(metadata ?? {});
  const one = id !== found.id;
  return [
    h("div", { class: "card" },
      h("p", null, pill(state), " ", Object.entries(counts).map(([word, n]) => `${number(n)} ${word}`).join(", ")),
      facts([
        ["Message", h("code", null, found.id)],
        ["Route", route],
        ["Priority", priority],
        ["Accepted", moment(accepted)],
        [settled(state) ? "Life ends" : "Expires", moment(expires)],
        ["Labels", labels.length ? labels.map(([name, value]) => `${name}=${value}`).join(", ") : null],
        ["Trace", trace ? h("code", null, trace) : null],
      ])),
    one ? h("p", null, "This is one delivery of it. ", h("a", { href: `#/message/${found.id}` }, "All deliveries")) : null,
    deliveries.items.map((item) => delivery(item, found)),
    deliveries.next && !one ? h("button", { type: "button", "data-do": "more" }, "More deliveries") : null,
  ].flat().filter(Boolean);
}

function delivery(item, of) {
  const { id, ref, state, reason, attempts } = item;
  return h("article", { class: "card delivery", "data-key": id, "aria-label": `Delivery ${ref ?? id}` },
    h("div", { class: "title" },
      h("h2", null, ref ?? "Delivery", " ", pill(state)),
      h("div", { class: "buttons" },
        ["failed", "expired", "unknown"].includes(state) ? button("replay", { id }) : null,
        h("a", { class: "button", href: `#/explain?delivery=${id}` }, "Explain"))),
    h("p", { class: "dim" }, h("code", null, id)),
    reason ? h("p", null, h("code", null, reason), `: ${reasonWords(reason)}.`) : null,
    timeline(item, of, attempts));
}

/** Acceptance, attempts, the moves between them, and the end. */
function timeline(item, of, attempts) {
  const begun = Date.parse(of.accepted_at);
  const step = (at, kind, ...content) =>
    h("li", { class: kind },
      h("span", { class: "at" }, at ? [moment(at), h("span", { class: "dim" }, offset(Date.parse(at) - begun))] : ""),
      h("div", { class: "text" }, content));
  const steps = [step(of.accepted_at, "accepted", "Accepted")];
  if (attempts.length && attempts[0].n > 1) {
    steps.push(step(null, "move", `The first ${plural(attempts[0].n - 1, "attempt")} are no longer kept.`));
  }
  attempts.forEach((attempt, at) => {
    const before = attempts[at - 1];
    if (before) steps.push(step(null, "move", move(before, attempt)));
    const { n, provider, kind, outcome, status, code, detail, started_at: started, latency_ms: latency } = attempt;
    steps.push(step(started, `attempt ${outcome === "Accepted" ? "good" : "bad"}`,
      h("p", null, h("strong", null, `${n}. `, h("a", { href: `#/provider/${encodeURIComponent(provider)}` }, provider)),
        kind !== provider ? h("span", { class: "dim" }, ` ${kind}`) : null, " ", pill(outcome), " ",
        [status, code].filter(known).join(" "), h("span", { class: "dim" }, ` in ${ms(latency)}`)),
      detail ? h("p", { class: "dim" }, detail) : null));
  });
  steps.push(...end(item, attempts).map((content) => step(null, "end", content)));
  return h("ol", { class: "timeline" }, steps);
}

const known = (value) => value !== null && value !== undefined;

/** Why the next attempt was made, where, and how much later. */
function move(before, next) {
  const { provider, outcome } = before;
  const gap = Date.parse(next.started_at) - Date.parse(before.started_at) - (before.latency_ms ?? 0);
  const when = gap < 500 ? "at once" : `after ${gap < 10_000 ? `${(gap / 1000).toFixed(1)} s` : span(gap / 1000)}`;
  const said = before.status || before.code ? ` (${vendorSaid(before)})` : "";
  const where = next.provider === provider ? `tried at ${provider} again` : `moved to ${next.provider}`;
  return [h("strong", null, where), ` ${when}: ${provider} ${MOVE[outcome] ?? outcome}${said}.`];
}

function end({ state, provider, provider_message_id: vendorId, next_at: next }, attempts) {
  switch (state) {
    case "queued":
      return [["Not tried yet."]];
    case "sending":
      return [["An attempt is in flight, or its outcome is not on disk yet."]];
    case "waiting":
      return [[next ? `Next attempt at ${clock(next)}.` : "It goes when a provider is usable again."]];
    case "sent":
    case "delivered":
      return [[h("strong", null, state === "sent" ? `Sent by ${provider}` : `Delivered by ${provider}; the device said so`),
        vendorId ? [". The vendor's id: ", h("code", null, vendorId)] : ""]];
    default:
      return [[h("strong", null, `It ended as ${state}`), attempts.length ? "." : " without an attempt."]];
  }
}

const offset = (milliseconds) =>
  ` +${milliseconds < 10_000 ? `${number(milliseconds)} ms` : span(milliseconds / 1000)}`;
