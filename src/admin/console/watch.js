// What the router says about itself, kept fresh: providers, routes, readiness and
// figures by asking every two seconds, what happens by its stream of events. An
// event about a provider or a route asks at once, so that a state change is on the
// page within a moment.

import { follow, get, key, list, metrics, now, ready, Refused } from "./admin.js";

const ASK_EVERY = 2_000;

/** A page that nobody looks at asks seldom. */
const ASK_HIDDEN = 20_000;

/** What the router holds as well. */
const HELD = 1000;

/** "Now" for rates: the last seconds. */
const RATE_OVER = 6_000;

export const seen = {
  providers: null,
  routes: null,
  clients: [],
  ready: null,
  /** Samples of /metrics. */
  figures: [],
  /** Latest first. */
  events: [],
  /** "open" or "closed". */
  stream: "closed",
  /** When the router answered last, and its refusal (`Refused`) since. */
  at: null,
  failing: null,
  /** Why a key is needed, if one is. */
  locked: null,
};

const history = [];
let changed = () => {};
let timer = null;
let asking = null;
let oncemore = false;
let following = null;

/** Begins; `told` is called whenever something may look different. */
export function start(told) {
  changed = told;
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
  return refresh();
}

/** Asks now; resolves with answers to questions that were put after the call. */
export function refresh() {
  clearTimeout(timer);
  oncemore = Boolean(asking);
  asking ??= round();
  return asking;
}

async function round() {
  try {
    do {
      oncemore = false;
      await ask();
    } while (oncemore);
  } finally {
    asking = null;
    if (seen.locked === null) timer = setTimeout(refresh, document.hidden ? ASK_HIDDEN : ASK_EVERY);
    changed();
  }
}

/** Begins anew with another key, or with none. */
export function rekey(secret) {
  if (secret) key.set(secret);
  else key.forget();
  following?.abort();
  following = null;
  Object.assign(seen, { providers: null, routes: null, clients: [], events: [], locked: null, stream: "closed" });
  return refresh();
}

async function ask() {
  try {
    const asked = [list("providers"), list("routes"), list("clients"), ready(), metrics()];
    const [providers, routes, clients, readiness, figures] = await Promise.all(asked);
    Object.assign(seen, { providers, routes, clients, ready: readiness, figures, at: now(), failing: null, locked: null });
    remember(figures);
    following ??= listen();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    const { status } = refused;
    if (status === 401 || status === 403) {
      seen.locked = key.get() ? refused.message : "";
      following?.abort();
      following = null;
    } else {
      seen.failing = refused;
    }
  }
}

function listen() {
  const ended = new AbortController();
  const told = ({ id, type, data }) => {
    if (seen.events.some((event) => event.id === id)) return;
    seen.events.unshift({ id, type, ...data });
    seen.events.length = Math.min(seen.events.length, HELD);
    if (type === "failover") changed();
    else soon();
  };
  const state = (word) => {
    seen.stream = word;
    changed();
  };
  follow("/admin/v1/events", told, state, ended.signal);
  return ended;
}

let due = null;

/** Many events at once are one question. */
function soon() {
  due ??= setTimeout(() => {
    due = null;
    refresh();
  }, 150);
}

function remember(figures) {
  const at = now();
  const counters = figures.filter(({ name }) => COUNTED.includes(name));
  history.push({ at, counters: new Map(counters.map((sample) => [named(sample), sample])) });
  while (history.length > 2 && history[1].at < at - RATE_OVER) history.shift();
}

const COUNTED = ["pushyard_attempts_total", "pushyard_failovers_total", "pushyard_deliveries_total"];
const named = ({ name, labels }) => `${name} ${Object.values(labels).join(" ")}`;

/** What a counter gained each second lately, as {labels, rate}; null before two looks. */
export function rates(name) {
  if (history.length < 2) return null;
  const [first, last] = [history[0], history.at(-1)];
  const seconds = (last.at - first.at) / 1000;
  const gained = (sample) => {
    const before = first.counters.get(named(sample))?.value ?? 0;
    // Below what it was: the router has started anew.
    return Math.max(0, sample.value - before) / seconds;
  };
  const samples = [...last.counters.values()].filter((sample) => sample.name === `pushyard_${name}`);
  return samples.map((sample) => ({ labels: sample.labels, rate: gained(sample) }));
}

/** Calls a second to each provider; null before two looks. */
export function traffic() {
  const found = rates("attempts_total");
  if (!found) return null;
  const calls = new Map();
  for (const { labels, rate } of found) {
    calls.set(labels.provider, (calls.get(labels.provider) ?? 0) + rate);
  }
  return calls;
}

/** The values of a metric, as a list of {labels, value}. */
export const figure = (name) => seen.figures.filter((sample) => sample.name === `pushyard_${name}`);

/** Its only value, or the sum of all. */
export const total = (name) => {
  const samples = figure(name);
  return samples.length ? samples.reduce((sum, { value }) => sum + value, 0) : null;
};

/** Since when a provider has not been healthy: what is on probation and ejected again
 * by turns has been ill since before the latest turn. */
export function illSince({ id, since }) {
  let begun = since;
  for (const { type, provider, part, to, at } of seen.events) {
    if (type !== "provider.state" || provider !== id || part) continue;
    if (to === "healthy") break;
    if (at < begun) begun = at;
  }
  return begun;
}

/** Who ordered what is in force, where the router still holds the event. */
export const orderedBy = (subject, id) =>
  seen.events.find((event) => event.by && event[subject] === id)?.by;

export const providerOf = (id) => seen.providers?.find((provider) => provider.id === id);

/** Once, whatever `get` answers, or the refusal: for views that ask for themselves. */
export async function asked(path) {
  try {
    return { value: await get(path), refused: null };
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    return { value: null, refused };
  }
}
