// Speaks with the admin API: the key, calls, the stream of events, and the
// metrics, read as text.
//
// The key stays in this tab's sessionStorage: it ends with the tab, and no other
// origin sees it. EventSource cannot send a key, so the stream is read by fetch.

const STORED = "pushyard-key";

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (value) => sessionStorage.setItem(STORED, value),
  forget: () => sessionStorage.removeItem(STORED),
};

/** How far the router's clock is ahead of this browser's, in milliseconds. */
let ahead = 0;

/** Now, by the router's clock: "2 min ago" must not depend on a laptop's. */
export const now = () => Date.now() + ahead;

function keepTime(response) {
  const date = Date.parse(response.headers.get("date") ?? "");
  const off = date - Date.now();
  // The header has whole seconds: below two it says nothing.
  if (Number.isFinite(off)) ahead = Math.abs(off) < 2000 ? 0 : off;
}

function headers(more) {
  const secret = key.get();
  return secret ? { ...more, Authorization: `Bearer ${secret}` } : { ...more };
}

/** A refusal: `status` 0 when the router did not answer at all. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `the router answered ${status}`);
    this.status = status;
    this.code = problem?.code ?? null;
    this.errors = problem?.errors ?? [];
  }

  /** Whether this router does not offer the call at all. */
  get missing() {
    return this.status === 404 || this.status === 405;
  }
}

/** One call, its answer as JSON (null without a body). Throws `Refused`. */
export async function call(method, path, body) {
  const response = await answer(method, path, body);
  const text = await response.text();
  const json = parse(text);
  if (!response.ok) throw new Refused(response.status, json);
  return json;
}

async function answer(method, path, body) {
  const sent = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, headers: headers(sent), cache: "no-store" };
  if (body !== undefined) options.body = JSON.stringify(body);
  // A router that hangs must be told from one that has nothing new. What changes
  // something may take its time: a replay of many is answered when all are on disk.
  options.signal = AbortSignal.timeout(method === "GET" ? 10_000 : 120_000);
  try {
    const response = await fetch(path, options);
    keepTime(response);
    return response;
  } catch {
    const detail = method === "GET" ? "the router does not answer"
      : "no answer came, so it may have been done all the same: look before you try again";
    throw new Refused(0, { detail });
  }
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

export const get = (path) => call("GET", `/admin/v1/${path}`);

/** All items of a list, page by page, at most so many. */
export async function list(path, most = 1000) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(cursor ? `${path}?cursor=${encodeURIComponent(cursor)}` : path);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return items;
}

/** Readiness, whatever its status says. */
export async function ready() {
  return parse(await (await answer("GET", "/readyz")).text());
}

/** The metrics: a list of {name, labels, value}. */
export async function metrics() {
  const response = await answer("GET", "/metrics");
  if (!response.ok) throw new Refused(response.status, null);
  return samples(await response.text());
}

/** Samples of the Prometheus text format. */
function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const parts = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    found.push({ name: parts[1], labels, value: Number(parts[3]) });
  }
  return found;
}

/** Reads the stream of events until `signal` ends it. `told` gets each event as
 * {id, type, data}, `state` the words "open" and "closed". It begins with what the
 * router still holds: why traffic moved was told before this page was opened. */
export async function follow(path, told, state, signal) {
  let last = "0";
  for (let wait = 1000; !signal.aborted; wait = Math.min(wait * 2, 8_000)) {
    try {
      const from = headers({ "Last-Event-ID": last });
      const response = await fetch(path, { headers: from, cache: "no-store", signal });
      if (response.ok) {
        state("open");
        wait = 1000;
        await read(response.body, (event) => {
          last = event.id ?? last;
          told(event);
        });
      }
    } catch {
      // Cut off: come again, from where it was.
    }
    if (signal.aborted) return;
    state("closed");
    await new Promise((done) => setTimeout(done, wait));
  }
}

/** Server-sent events (HTML Standard, "Server-sent events") from a stream. */
async function read(body, told) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replace(/\r\n?/g, "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, type: "message", text: [] };
      for (const line of block.split("\n")) {
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
        if (field === "id") event.id = text;
        else if (field === "event") event.type = text;
        else if (field === "data") event.text.push(text);
      }
      const data = parse(event.text.join("\n"));
      if (data) told({ id: event.id, type: event.type, data });
    }
  }
}
