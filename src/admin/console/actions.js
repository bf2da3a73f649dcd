// What an operator can do. Each action says in words what will happen before it
// happens, asks why, and shows what the router answered: a refusal stands in the
// dialog, beside what was typed.
//
// A button carries `data-action` and its subject in `data-*`; so it stays alive
// when the page around it is brought up to date.

import { call, Refused } from "./admin.js";
import { h } from "./dom.js";
import { seen } from "./watch.js";
import { plural } from "./words.js";

const segment = encodeURIComponent;

const provider = (verb, title, words, fields, tone) => ({
  title: ({ id }) => `${title} ${id}?`,
  words: ({ id }) => words(id),
  button: title,
  fields,
  tone,
  call: ({ id }) => ["POST", `providers/${segment(id)}/${verb}`],
  done: ({ id }, answer) => `${id} is ${answer?.state ?? verb} now.`,
});

const pause = (kind, verb, title, words) => ({
  title: ({ id }) => `${title} ${kind} ${id}?`,
  words: ({ id }) => words(id),
  button: title,
  fields: verb === "pause" ? ["why"] : ["note"],
  tone: verb === "pause" ? "danger" : null,
  call: ({ id }) => ["POST", `${kind}s/${segment(id)}/${verb}`],
  done: ({ id }) => `The ${kind} ${id} is ${verb}d.`,
});

const ACTIONS = {
  drain: provider("drain", "Drain", (id) =>
    `No new attempt goes to ${id}. Calls in flight end normally; deliveries that can go elsewhere do, the others wait. This holds over restarts, until someone resumes it or its time ends.`, ["why", "expires_in"], "danger"),
  eject: provider("eject", "Eject", (id) =>
    `No new attempt goes to ${id}, and calls in flight are cut: their end is then unknown, so some devices may get a message twice. Prefer drain unless calls hang. This holds over restarts, until someone resumes it or its time ends.`, ["why", "expires_in"], "danger"),
  resume: provider("resume", "Resume", (id) =>
    `${id} may be used again. If it was ejected it comes back on probation: single deliveries try it, and after three that succeed it takes its share again.`, ["note"]),
  "pause-route": pause("route", "pause", "Pause", (id) =>
    `Nothing is sent on route ${id}. Its deliveries wait, and new messages are still accepted. What reaches the end of its time to live meanwhile expires.`),
  "resume-route": pause("route", "resume", "Resume", (id) => `Deliveries of route ${id} are sent again.`),
  "pause-client": pause("client", "pause", "Pause", (id) =>
    `Nothing of client ${id} is sent, and its new messages are refused with 503. What it has sent before waits.`),
  "resume-client": pause("client", "resume", "Resume", (id) =>
    `Client ${id} may send again, and what waits of it goes out.`),
  override: {
    title: ({ id }) => `Override route ${id}?`,
    words: ({ id }) =>
      `Route ${id} sends as written here instead of as configured, until its time ends or someone removes the override. Deliveries that wait follow the new order. Providers: ${providers()}.`,
    button: "Override",
    fields: ["tiers", "weights", "balance", "expires_in", "why"],
    tone: "danger",
    preset: ({ id }) => present(id),
    call: ({ id }) => ["PUT", `routes/${segment(id)}/override`],
    done: ({ id }) => `The route ${id} is overridden.`,
  },
  "remove-override": {
    title: ({ id }) => `Remove the override of route ${id}?`,
    words: ({ id }) => `Route ${id} sends as configured again.`,
    button: "Remove override",
    call: ({ id }) => ["DELETE", `routes/${segment(id)}/override`],
    done: ({ id }) => `The route ${id} is as configured.`,
  },
  replay: {
    title: () => "Send this delivery again?",
    words: ({ id }) =>
      `Delivery ${id} is queued again at normal priority with a fresh time to live. If a vendor had accepted it after all, the device may get it twice.`,
    button: "Replay",
    call: ({ id }) => ["POST", `dead-letters/${segment(id)}/replay`],
    done: () => "The delivery is queued again.",
  },
  "replay-all": {
    title: () => "Send all of these again?",
    words: ({ filter }) =>
      `Every dead letter with ${filter || "any reason, provider and client"} is queued again at normal priority, the latest first, at most as many as you set. Devices may get some messages twice, and an old push may be worse than none.`,
    button: "Replay all",
    fields: ["limit"],
    tone: "danger",
    given: ({ body }) => JSON.parse(body),
    call: () => ["POST", "dead-letters/replay"],
    done: (_, { replayed }) => `${plural(replayed, "delivery", "deliveries")} queued again.`,
  },
  "delete-letter": {
    title: () => "Delete this dead letter?",
    words: ({ id }) => `Delivery ${id} can then no longer be sent again. This cannot be undone.`,
    button: "Delete",
    tone: "danger",
    call: ({ id }) => ["DELETE", `dead-letters/${segment(id)}`],
    done: () => "The dead letter is deleted.",
  },
  reload: {
    title: () => "Reload the configuration?",
    words: () =>
      "The router reads its configuration file again. Providers that did not change keep their connections and health. A file with faults changes nothing; you will see them here.",
    button: "Reload",
    call: () => ["POST", "reload"],
    done: (_, answer) => reloaded(answer),
  },
  log: {
    title: () => "Change what is logged?",
    words: () => "Until the next start. Tokens, secrets and payloads are in no log at any level.",
    button: "Change log",
    fields: ["filter"],
    call: () => ["PUT", "log"],
    done: () => "The log has another filter.",
  },
};

function reloaded({ changed, restart_needed: restart, unchanged }) {
  if (unchanged) return "Nothing had changed.";
  const parts = [
    changed.length && `Changed: ${changed.join(", ")}.`,
    restart.length && `Needs a restart: ${restart.join(", ")}.`,
  ];
  return parts.filter(Boolean).join(" ");
}

const providers = () => (seen.providers ?? []).map(({ id, state }) => `${id} (${state})`).join(", ");

/** The route as it is now: one changes it instead of writing it anew. */
function present(id) {
  const route = seen.routes?.find(({ name }) => name === id);
  if (!route) return {};
  return { tiers: route.tiers.map((tier) => tier.join(", ")).join(" / "), expires_in: "1h" };
}

const names = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);

// `name` is the key of the body, where it is not the field's own.
const FIELDS = {
  why: { name: "reason", label: "Why? Kept in the audit list.", required: true },
  note: { name: "reason", label: "Why? Kept in the audit list. (optional)" },
  expires_in: { label: "Ends by itself after", hint: "30m, 2h, 1d; empty: never" },
  limit: { label: "At most", value: "1000", type: "number", read: Number },
  filter: { label: "Filter", value: "info", hint: "info, debug, pushyard=debug", required: true },
  tiers: {
    label: "Tiers, best first",
    hint: "a comma between members, a slash between tiers: apns, fcm / ntfy",
    read: (text) => text.split("/").map(names).filter((tier) => tier.length),
  },
  weights: {
    label: "Weights",
    hint: "apns=3, fcm=1; empty: as configured",
    read: (text) => Object.fromEntries(names(text).map((pair) => {
      const [name, weight] = pair.split("=").map((part) => part.trim());
      return [name, Number(weight)];
    })),
  },
  balance: {
    label: "Balance within a tier",
    options: ["", "weighted", "round_robin", "least_latency", "cheapest", "broadcast"],
  },
};

/** A button for an action; `subject` becomes its `data-*`. */
export function button(action, subject, label = ACTIONS[action].button) {
  const data = Object.entries(subject).map(([name, value]) => [`data-${name}`, value]);
  const whose = subject.id ? `${label} ${subject.id}` : label;
  return h("button", {
    type: "button", class: ACTIONS[action].tone, "aria-haspopup": "dialog", "aria-label": whose,
    "data-action": action, ...Object.fromEntries(data),
  }, label);
}

/** Asks, acts, and tells what was done; resolves when the dialog is closed, with
 * whether something was done. */
export function act(action, subject, tell) {
  const { title, words, button, fields = [], tone, preset, given, call: target, done } = ACTIONS[action];
  const filled = preset?.(subject) ?? {};
  const fault = h("div", { class: "fault", role: "alert" });
  const go = h("button", { type: "submit", class: tone ?? "primary" }, button);
  const form = h("form", { autocomplete: "off" },
    h("h2", { id: "dialog-title" }, title(subject)),
    h("p", { id: "dialog-words" }, words(subject)),
    fields.map((name) => field(name, filled[name])),
    fault,
    h("p", { class: "buttons" }, h("button", { type: "button", "data-cancel": true }, "Cancel"), go));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-words" }, form);
  document.body.append(dialog);

  let acted = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // A second press must not do it twice.
    go.disabled = true;
    fault.replaceChildren();
    const values = { ...given?.(subject), ...read(form, fields) };
    const [method, path] = target(subject);
    const body = method === "DELETE" || !Object.keys(values).length ? undefined : values;
    try {
      const answer = await call(method, `/admin/v1/${path}`, body);
      acted = true;
      dialog.close();
      tell(done(subject, answer));
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      fault.replaceChildren(h("p", null, said(refused)), faults(refused) ?? "");
      go.disabled = false;
    }
  });
  form.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(acted);
    }, { once: true });
    dialog.showModal();
    (form.querySelector("input, select") ?? form.querySelector("[data-cancel]")).focus();
  });
}

/** A refusal in a line; its faults stand below it, where it has any. */
export const said = ({ status, message, errors }) =>
  (errors.length ? "Not done:" : status ? `Not done: ${message}.` : `Not known: ${message}.`);

/** The faults of a refused body or file, each with its place. */
export function faults({ errors }) {
  if (!errors.length) return null;
  const line = ({ file, line, column, pointer, key, detail }) => {
    const place = [file, line, column].filter(Boolean).join(":") || pointer;
    return h("li", null, place && h("code", null, place), " ", key && [h("code", null, key), " "], detail);
  };
  return h("ul", null, errors.map(line));
}

function field(id, preset) {
  const { name = id, label, hint, options, value, type = "text", required } = FIELDS[id];
  const input = options
    ? h("select", { name }, options.map((word) => h("option", { value: word }, word || "as configured")))
    : h("input", { name, type, required, value: preset ?? value, spellcheck: "false" });
  return h("label", null, h("span", null, label), input, hint && h("small", null, hint));
}

/** What was filled in; an empty field is absent. */
function read(form, fields) {
  const data = new FormData(form);
  const values = fields.map((id) => {
    const { name = id, read: as = (text) => text } = FIELDS[id];
    const text = data.get(name).trim();
    return [name, text ? as(text) : undefined];
  });
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}
