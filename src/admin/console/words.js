// How figures, times and states are said. One wording for all views; the words
// of states, outcomes and reasons are the API's own.

import { now } from "./admin.js";
import { h } from "./dom.js";

/** Worst first. */
const STATES = ["ejected", "drained", "probing", "degraded", "healthy"];
export const rank = (state) => (STATES.includes(state) ? STATES.indexOf(state) : 1);

/** Takes deliveries in its turn. */
export const carries = (provider) =>
  ["healthy", "degraded"].includes(provider.state) && !ahead(provider.paused_until);

/** Nothing will happen to it any more, unless someone replays it. */
export const settled = (state) => !["queued", "sending", "waiting"].includes(state);

const PILL = {
  healthy: "good", Accepted: "good", sent: "good", delivered: "good", writable: "good",
  degraded: "warn", probing: "warn", drained: "warn", Throttled: "warn", waiting: "warn",
  AddressGone: "warn", partial: "warn", cancelled: "warn",
  ejected: "bad", Unavailable: "bad", AuthFailed: "bad", Misconfigured: "bad", Ambiguous: "bad",
  MessageInvalid: "bad", failed: "bad", expired: "bad", unknown: "bad",
};

/** A state or outcome: its word, and a mark that does not need colour. */
export function pill(word, tone = PILL[word] ?? "plain") {
  const mark = { good: "●", warn: "▲", bad: "■", plain: "○" }[tone];
  return h("span", { class: `pill ${tone}` }, h("span", { "aria-hidden": "true" }, mark), ` ${word}`);
}

/** Why a provider or a part of it changed its state. */
export const WHY = {
  consecutive: "too many failures in a row",
  ratio: "too few of its calls succeed",
  latency: "slow answers",
  stall: "silent while calls wait for it",
  auth: "the vendor refuses the credential",
  misconfigured: "the vendor refuses our settings",
  probe: "the probe fails",
  operator: "by an operator",
};

/** Why a provider is in its state; empty when it is healthy. */
export function why(provider) {
  const { reason, operator } = provider;
  if (operator) return [`${operator.wish === "eject" ? "ejected" : "drained"} by an operator`, quoted(operator.reason)].filter(Boolean).join(": ");
  const said = reason && (WHY[reason] ?? reason);
  const error = said && lastError(provider);
  return [said, error && `last answer ${vendorSaid(error)}`].filter(Boolean).join("; ");
}

const quoted = (text) => (text ? `“${text}”` : "");

/** The latest error: the API says that it is a list, not in which order. */
function lastError({ last_errors: errors }) {
  return errors.reduce((last, one) => (!last || one.at > last.at ? one : last), null);
}

/** `503 ServiceUnavailable`; without an answer, `Unavailable (connect)`. */
export function vendorSaid({ outcome, status, code }) {
  if (status) return code ? `${status} ${code}` : String(status);
  return code ? `${outcome} (${code})` : outcome;
}

/** What can be done about a provider, and where the runbook says more. */
export function advice({ state, reason }) {
  if (state === "probing") return "On probation: single deliveries try it, and it takes its share again after three that succeed. While a better tier takes everything, none comes to it.";
  return ADVICE[reason] ?? "";
}

const ADVICE = {
  consecutive: "Look at the vendor's status page. It is tried every few seconds and comes back by itself; drain it to keep it out while it is unsteady. Runbook: Provider ejected.",
  ratio: "Look at the vendor's status page. It comes back by itself when calls succeed again. Runbook: Provider ejected.",
  latency: "It still gets traffic, less where there is another tier. Drain it if the delay hurts more than its absence.",
  stall: "The vendor is silent: connections are open and nothing comes back. It is tried again by itself. Runbook: Provider ejected.",
  auth: "Put a valid credential in place and reload; resume lets it try again at once. Runbook: Credential refused.",
  misconfigured: "Compare environment, app and project with what the devices registered with, then reload. Runbook: Mass gone.",
  probe: "No probe gets through and no call has succeeded lately. Look at the way to the vendor. Runbook: Probe failing.",
  operator: "Resume it when the reason is over; it then starts on probation if it was ejected.",
};

/** What can be done about a route. */
export const ADVICE_ROUTE = {
  paused: "Resume it when the reason is over.",
  none: "Undo a drain or a pause below, or send it through a healthy provider that reaches the same addresses. Runbook: No tier usable.",
  fallback: "Pushes arrive. See why the better tier is out; mind the cost of this one.",
};

/** An alarm that is on: what it means, what to do. */
export const ALARMS = {
  network: ["No vendor can be reached: names, connections or TLS fail for all.", "Look at this machine's network: DNS, firewall, proxy. Runbook: Network."],
  mass_gone: ["A vendor says of most addresses that they are gone. None of it is believed.", "Compare environment, app and project with what the devices registered with. Runbook: Mass gone."],
  clock_step: ["The system's clock jumped; the router holds the jump back.", "Look at the time service of this machine. Runbook: Clock step."],
  store: ["The store takes no new messages.", "Free space on its disk, or look at the log. Runbook: Store not writable."],
};

/** What an attempt's outcome says about the next step, after the provider's name. */
export const MOVE = {
  Accepted: "accepted it",
  AddressGone: "says that this address is gone, so the recipient's next address is tried",
  MessageInvalid: "cannot take this message, so another kind is tried",
  Throttled: "asked to slow down",
  Unavailable: "could not take it",
  AuthFailed: "refused our credential",
  Misconfigured: "called our settings wrong",
  Ambiguous: "gave no complete answer, so it may have arrived there",
};

/** Why deliveries went to another provider, after the name of the first: by an
 * outcome, or by a state. */
export const FAILOVER = {
  AddressGone: "says that the addresses are gone",
  MessageInvalid: "cannot take the message",
  Throttled: "asked to slow down",
  Unavailable: "could not take them",
  AuthFailed: "refused our credential",
  Misconfigured: "called our settings wrong",
  Ambiguous: "gave no complete answer",
  ejected: "is ejected",
  paused: "asked for a pause",
  saturated: "has no room",
};

const REASON = {
  parked: "every provider that could take it is out; it goes when one is back",
  no_candidate: "the configuration has no provider for it any more",
  throttled: "the vendor asked to wait",
  backoff: "waits before the next round",
  invalid: "no vendor can take this message",
  unreachable: "every address of the recipient is gone",
  no_route: "no provider of the route could ever serve it",
  attempts_exhausted: "tried as often as allowed",
  poison: "the process died on it repeatedly",
  ttl: "its life ended",
  superseded: "a newer message with the same collapse key took its place",
  cancelled_by_client: "the backend took it back",
  ambiguous: "nobody knows whether it arrived, and the message forbids a resend",
  internal: "a fault of the router; see its log",
};

/** A delivery's reason in words. */
export const reasonWords = (reason) => REASON[reason] ?? reason;
export const REASONS = Object.keys(REASON);

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const number = (value) => (known(value) ? count.format(value) : "–");
export const known = (value) => value !== null && value !== undefined && Number.isFinite(Number(value));

export function percent(ratio) {
  if (!known(ratio)) return "–";
  // Below 100 % there was a failure: rounding must not hide it.
  const shown = ratio < 1 ? Math.min(Math.floor(ratio * 1000) / 10, 99.9) : 100;
  return `${shown} %`;
}

export function ms(value) {
  if (!known(value)) return "–";
  return value < 10_000 ? `${number(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function perSecond(value) {
  if (!known(value)) return "–";
  return `${value > 0 && value < 10 ? value.toFixed(1) : number(value)}/s`;
}

/** Seconds as people say them. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} days`;
}

export const ago = (at) => (at ? `${span((now() - Date.parse(at)) / 1000)} ago` : "–");

/** Seconds until then; 0 when it is over or not set. */
export const ahead = (at) => (at ? Math.max(0, (Date.parse(at) - now()) / 1000) : 0);

/** A moment in the reader's own time zone, with the date when it is not today. */
export function clock(at) {
  const time = new Date(at);
  const day = time.toDateString() === new Date(now()).toDateString() ? "" : `${date(time)} `;
  return day + time.toLocaleTimeString("en-GB");
}

const date = (time) => time.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** A moment: its time, and in the tooltip what the API said. */
export const moment = (at, text = clock(at)) => (at ? h("time", { datetime: at, title: at }, text) : "–");

export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
