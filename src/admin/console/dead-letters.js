// What could not be delivered: to look at, to try again, to let go of.

import { get, Refused } from "./admin.js";
import { button } from "./actions.js";
import { h, table } from "./dom.js";
import { seen } from "./watch.js";
import { moment, number, pill, reasonWords, REASONS, vendorSaid } from "./words.js";

export const deadLetters = { title: () => "Dead letters", render, load, on };

const FILTERS = ["reason", "provider", "client", "since", "until"];

let letters = null;
let next = null;
let refused = null;

const filterOf = (parameters) =>
  Object.fromEntries(FILTERS.filter((name) => parameters[name]).map((name) => [name, parameters[name]]));

let wanted = {};

async function load({ parameters }) {
  wanted = filterOf(parameters);
  await page(null);
}

async function on(what) {
  if (what === "more") await page(next);
}

async function page(cursor) {
  try {
    const query = new URLSearchParams({ ...wanted, limit: "50", ...(cursor ? { cursor } : {}) });
    const answer = await get(`dead-letters?${query}`);
    letters = cursor ? [...letters, ...answer.items] : answer.items;
    [next, refused] = [answer.next, null];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    [letters, next, refused] = [null, null, error];
  }
}

function render({ parameters }) {
  const filter = filterOf(parameters);
  const words = Object.entries(filter).map(([name, value]) => `${name} ${value}`).join(", ");
  const all = { filter: words, body: JSON.stringify(filter) };
  return [
    h("h1", null, "Dead letters"),
    h("p", { class: "hint" }, "What could not be delivered, and why. Mend the cause first, then replay what is still worth sending."),
    form(parameters),
    refused ? h("p", { class: "banner warn", role: "alert" }, `Not listed: ${refused.message}.`)
      : !letters ? h("p", { class: "hint" }, "Asking …")
        : letters.length ? h("section", null,
          h("div", { class: "title" }, h("h2", null, `${number(letters.length)}${next ? " and more" : ""}, the latest first`),
            h("div", { class: "buttons" }, button("replay-all", all, words ? "Replay all of these" : "Replay all"))),
          list(), next ? h("button", { type: "button", "data-do": "more" }, "More") : null)
          : h("p", { class: "card" }, words ? `There is none with ${words}.` : "There is none. Everything that was accepted has been delivered or is on its way."),
  ];
}

function form(parameters) {
  const select = (name, label, options) =>
    h("label", null, h("span", null, label), h("select", { name }, h("option", { value: "" }, "any"),
      options.map((value) => h("option", { value, selected: value === parameters[name] }, value))));
  const since = (name, label) =>
    h("label", null, h("span", null, label), h("input", { name, value: parameters[name], placeholder: "2026-12-01T08:00:00Z", spellcheck: "false" }));
  return h("form", { class: "filters", "data-to": "dead-letters", autocomplete: "off" },
    select("reason", "Reason", REASONS),
    select("provider", "Provider", seen.providers.map(({ id }) => id)),
    select("client", "Client", seen.clients.map(({ name }) => name)),
    since("since", "Since"), since("until", "Until"),
    h("button", { type: "submit", class: "primary" }, "Filter"),
    Object.keys(filterOf(parameters)).length ? h("a", { class: "button", href: "#/dead-letters" }, "Clear") : null);
}

function list() {
  const columns = [["When"], ["Delivery", "wide"], ["Client"], ["State"], ["Why", "wide"], ["Last answer"], ["Actions", "act"]];
  return table("Dead letters", columns, letters.map((letter) => {
    const { id, client, ref, state, reason, at, attempts, replayable } = letter;
    const last = attempts.at(-1);
    return {
      key: id,
      cells: [
        moment(at),
        [ref ? h("strong", null, `${ref} `) : null, h("a", { href: `#/message/${id}`, title: "Its timeline" }, h("code", null, id))],
        client,
        pill(state),
        reason ? [h("code", null, reason), ` ${reasonWords(reason)}`] : "–",
        last ? [`${last.provider}: `, vendorSaid(last)] : "no attempt",
        h("div", { class: "buttons" },
          replayable ? button("replay", { id }) : null, button("delete-letter", { id })),
      ],
    };
  }));
}
