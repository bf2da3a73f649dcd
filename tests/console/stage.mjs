// What stands behind the page: simulated vendors, a router that uses them, and a
// backend that sends. Each process is ours and ends with us.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const { PUSHYARD } = process.env;
const children = [];
const folder = mkdtempSync(join(tmpdir(), "pushyard-console-"));

// However this process ends.
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** Starts it, and resolves with the first line of its output that `wanted` takes. */
function begin(name, args, wanted) {
  const child = spawn(PUSHYARD, args, { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let log = "";
  child.stderr.on("data", (text) => {
    log = (log + text).slice(-4000);
  });
  const lines = createInterface({ input: child.stdout });
  return new Promise((resolve, reject) => {
    lines.on("line", (line) => wanted(line) && resolve({ child, line }));
    child.on("exit", (code) => reject(new Error(`${name} ended with ${code}: ${log}`)));
  });
}

export async function simulator() {
  const { line } = await begin("the simulator", ["simulate", "--json", "--dir", join(folder, "vendors")], (line) => line.startsWith("{"));
  return JSON.parse(line);
}

/** Ejections short enough to watch: as `pushyard demo` has them. */
const QUICK = 'health = { base_ejection = "2s", max_ejection = "2s", slow_start = "2s" }';

/** A router for the simulated vendors, on free ports; `more` ends its configuration. */
export async function router(name, vendors, more = "") {
  const written = readFileSync(vendors.config, "utf8")
    .replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9090", "127.0.0.1:0")
    .replace('path = "data"', `path = ${JSON.stringify(join(folder, name, "data"))}`)
    .replaceAll(/^kind = .*$/gm, (kind) => `${kind}\n${QUICK}`)
    .replace(/tiers = .*/, 'tiers = [["apns"], ["fcm"], ["ntfy"]]');
  mkdirSync(join(folder, name));
  // Beside the credentials that it names.
  const file = join(folder, "vendors", `${name}.toml`);
  writeFileSync(file, `${written}\n${more}`);
  const { child, line } = await begin(`router ${name}`, ["serve", "--config", file], (line) => line.startsWith("listening "));
  const { api, admin } = JSON.parse(line.slice("listening ".length));
  return { api: `http://${api}`, admin: `http://${admin}`, child, file };
}

export async function vendor(control, name, behaviour) {
  const answer = await fetch(`${control}/vendors/${name}`, { method: "PUT", body: JSON.stringify(behaviour) });
  if (!answer.ok) throw new Error(`the simulator answered ${answer.status}`);
}

/** Sends one message; resolves with the answer. */
export async function send(api, addresses, more = {}) {
  const { query = "", ...message } = more;
  const answer = await fetch(`${api}/v1/messages${query}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ to: [{ ref: "alice", addresses }], notification: { title: "Paid" }, ...message }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`sending: ${answer.status} ${JSON.stringify(body)}`);
  return body;
}

const hex = (text) => Buffer.from(text).toString("hex");

/** A device that both vendors and ntfy reach. */
export const device = (name) => [
  { kind: "apns", token: hex(name.padEnd(16, "-")) }, { kind: "fcm", token: name }, { kind: "ntfy", topic: name },
];

let sending = null;

/** So many messages a second, until the end. A refused one is no news: the story
 * is on the page. */
export function traffic(api, perSecond) {
  let n = 0;
  sending = setInterval(() => {
    n += 1;
    send(api, device(`device-${n % 500}`)).catch(() => {});
  }, 1000 / perSecond);
}

export async function end() {
  clearInterval(sending);
  const ended = children.filter(({ exitCode, signalCode }) => exitCode === null && !signalCode).map((child) => {
    child.removeAllListeners("exit");
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    return gone;
  });
  await Promise.all(ended);
  rmSync(folder, { recursive: true, force: true });
}
