// The story of a bad night, told through the page, and what else it must bear. Each
// step says what a person would see; the first that is not seen ends the run.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";
import { device, end, router, send, simulator, traffic, vendor } from "./stage.mjs";

const { CHROMIUM, SHOTS, CONSOLE_FROM } = process.env;
const PATIENCE = 15_000;
const complaints = [];

/** What a page may complain about at the moment: refused calls that are meant. */
let meant = null;

async function step(name, does) {
  const begun = Date.now();
  try {
    await does();
  } catch (error) {
    throw new Error([name, error.message, ...complaints].join("\n"));
  }
  if (complaints.length) throw new Error(`${name}: the browser complained:\n${complaints.join("\n")}`);
  console.log(`ok  ${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}

/** Waits until it holds: conditions, never a while. */
async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE / 1000} s: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function open(browser, origin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("console", (message) => {
    const text = `${message.type()}: ${message.text()} ${message.location().url}`;
    if (["error", "warning"].includes(message.type()) && !meant?.test(text)) complaints.push(text);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.stack}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) complaints.push(`asked elsewhere: ${request.url()}`);
  });
  await page.exposeFunction("violated", (text) => complaints.push(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violated(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  if (CONSOLE_FROM) await page.route(/\/(console\/.*)?$/, fromDisk);
  await page.goto(`${origin}/`);
  return page;
}

async function fromDisk(route) {
  const name = basename(new URL(route.request().url()).pathname) || "index.html";
  try {
    const response = await route.fetch();
    await route.fulfill({ response, body: readFileSync(join(CONSOLE_FROM, name)) });
  } catch {
    await route.abort("connectionrefused").catch(() => {});
  }
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Whether people who see or hear less can use it, as far as a program can tell. */
async function accessible(page, name) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
  check(!told.length, `${name} is not accessible:\n${told.join("\n")}`);
}

/** Four pictures of a view: light and dark, wide and narrow. */
async function shoot(page, name) {
  for (const [width, height, size] of [[1280, 900, "wide"], [390, 844, "narrow"]]) {
    await page.setViewportSize({ width, height });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await accessible(page, `${name} (${size}, ${colorScheme})`);
      await page.screenshot({ path: join(SHOTS, `${name}-${size}-${colorScheme}.png`), fullPage: true });
    }
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    check(over <= 0, `${name} is ${over} px wider than ${width}`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
}

const row = (page, id) => page.getByRole("table", { name: "Providers" }).locator(`tr[data-key="${id}"]`);
const confirm = (page, name) => page.getByRole("dialog").getByRole("button", { name, exact: true }).click();

/** Goes to a view by the bar. */
async function view(page, name) {
  await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
}

async function outage(browser, vendors, { api, admin }) {
  const page = await open(browser, admin);
  traffic(api, 20);

  await step("the overview shows every provider healthy, and says that all is well", async () => {
    for (const id of ["apns", "fcm", "ntfy", "gotify", "webhook"]) {
      await row(page, id).getByText("healthy").waitFor();
    }
    await page.getByRole("heading", { name: "All is well" }).waitFor();
    await page.locator("#freshness").getByText("live").waitFor();
    await until("calls go to apns", async () => /[1-9]/.test(await page.locator('.tier.used .rate').first().innerText()));
    await shoot(page, "overview-well");
  });

  await step("a failing vendor is seen live: state, reason, since, the failovers, and who carries on", async () => {
    await vendor(vendors.control, "apns", { mode: "failing", status: 503 });
    await row(page, "apns").getByText("ejected").waitFor();
    await row(page, "apns").getByText(/too many failures in a row; last answer 503/).waitFor();
    await page.getByRole("heading", { name: /Deliveries go out; apns is ejected/ }).waitFor();
    await page.locator(".trouble", { hasText: "apns" }).getByText(/since \d\d:\d\d:\d\d/).first().waitFor();
    await page.locator(".log").getByText("apns → fcm").first().waitFor();
    await page.locator(".tier.used", { hasText: "fcm" }).waitFor();
    await until("the traffic goes to fcm", async () =>
      / 9\d/.test(await page.locator(".tier.used", { hasText: "fcm" }).locator(".rate").innerText()));
    await shoot(page, "overview-ejected");
  });

  await step("a provider's page has its parts, its errors and what happened to it", async () => {
    await row(page, "apns").getByRole("link").first().click();
    await page.getByRole("table", { name: "Last errors" }).getByText("503").first().waitFor();
    await page.getByRole("table", { name: "Parts" }).getByText("the whole").waitFor();
    await page.locator(".log").getByText("healthy →").first().waitFor();
    await shoot(page, "provider-ejected");
  });

  await step("a message's way is a timeline with the reason of each move", async () => {
    const sent = await send(api, [{ kind: "fcm", token: "503-slow" }, { kind: "ntfy", topic: "alice" }],
      { query: "?wait=10s", metadata: { campaign: "autumn" } });
    await page.getByRole("searchbox").fill(sent.id);
    await page.getByRole("searchbox").press("Enter");
    await page.getByRole("heading", { name: "alice" }).waitFor();
    await page.locator(".timeline").getByText(/moved to ntfy at once: fcm could not take it \(503/).waitFor();
    await page.locator(".timeline").getByText("Sent by ntfy").waitFor();
    await page.getByText("campaign=autumn").waitFor();
    await shoot(page, "message");
    const delivery = sent.deliveries.items[0].id;
    await page.getByLabel("Id of a message or of a delivery").fill(delivery);
    await page.getByRole("button", { name: "Look up" }).click();
    await page.getByText("This is one delivery of it.").waitFor();
    await page.locator(".timeline").getByText("Sent by ntfy").waitFor();
    meant = /404/;
    await page.getByRole("searchbox").fill("019785d8-0000-7000-8000-000000000000");
    await page.getByRole("searchbox").press("Enter");
    await page.getByText("There is no message or delivery of this id").waitFor();
    meant = null;
  });

  await step("a drain asks for a reason, is done once confirmed, and is taken back by resume", async () => {
    await view(page, "Overview");
    await row(page, "fcm").getByRole("button", { name: "Drain fcm" }).click();
    const dialog = page.getByRole("dialog", { name: "Drain fcm?" });
    await dialog.waitFor();
    await dialog.getByRole("button", { name: "Cancel" }).click();
    check(await row(page, "fcm").getByText("healthy").isVisible(), "cancelled, and drained all the same");
    await row(page, "fcm").getByRole("button", { name: "Drain fcm" }).click();
    await confirm(page, "Drain");
    check(await dialog.isVisible(), "drained without a reason");
    await dialog.getByLabel("Why?").fill("incident 42");
    await dialog.getByLabel("Ends by itself after").fill("soon");
    meant = /422/;
    await confirm(page, "Drain");
    await dialog.getByText(/must be a duration with a unit/).waitFor();
    meant = null;
    await shoot(page, "dialog-refused");
    await dialog.getByLabel("Ends by itself after").fill("1h");
    await confirm(page, "Drain");
    await page.getByText("fcm is drained now.").waitFor();
    await row(page, "fcm").getByText("drained by an operator: “incident 42”").waitFor();
    await shoot(page, "overview-drained");
    await page.locator(".trouble", { hasText: "fcm" }).getByRole("button", { name: "Resume fcm" }).click();
    await confirm(page, "Resume");
    await row(page, "fcm").getByText("healthy").waitFor();
  });

  await step("the vendor heals, and the page says so without a reload", async () => {
    await vendor(vendors.control, "apns", { mode: "healthy" });
    await row(page, "apns").getByText("healthy").waitFor();
    await page.getByRole("heading", { name: "All is well" }).waitFor();
  });

  await step("when every vendor fails, the page says that nothing goes out, and how much waits", async () => {
    await vendor(vendors.control, "*", { mode: "refusing" });
    await page.getByRole("heading", { name: "Nothing goes out on default" }).waitFor();
    await page.locator(".trouble", { hasText: "no way out" }).getByText("its deliveries wait").waitFor();
    await page.locator(".trouble", { hasText: "network" }).getByText("No vendor can be reached").waitFor();
    await until("deliveries are parked", async () =>
      /Parked\s*[1-9]/.test(await page.locator(".tile", { hasText: "Parked" }).innerText()));
    await shoot(page, "overview-out");
    await vendor(vendors.control, "*", { mode: "healthy" });
    await row(page, "apns").getByText("healthy").waitFor();
    await page.getByRole("heading", { name: /All is well|Deliveries go out/ }).waitFor();
  });

  await step("a route is overridden, paused, resumed and restored", async () => {
    await view(page, "Routes");
    const card = page.getByRole("article", { name: "Route default" });
    await card.getByRole("button", { name: "Override default" }).click();
    const dialog = page.getByRole("dialog", { name: "Override route default?" });
    check((await dialog.getByLabel("Tiers, best first").inputValue()) === "apns / fcm / ntfy", "not filled with what is in force");
    await dialog.getByLabel("Tiers, best first").fill("fcm / nobody");
    await dialog.getByLabel("Why?").fill("APNs is unsteady");
    meant = /422/;
    await confirm(page, "Override");
    await dialog.getByText(/no provider has the id "nobody"/).waitFor();
    meant = null;
    await dialog.getByLabel("Tiers, best first").fill("fcm / apns, ntfy");
    await confirm(page, "Override");
    await card.getByText("overridden").waitFor();
    await card.getByText(/“APNs is unsteady”/).waitFor();
    await card.locator(".tier").first().getByRole("link", { name: "fcm" }).waitFor();
    await card.getByRole("button", { name: "Pause default" }).click();
    await page.getByRole("dialog").getByLabel("Why?").fill("wrong campaign");
    await confirm(page, "Pause");
    await card.getByText("paused").waitFor();
    await view(page, "Overview");
    await page.getByRole("heading", { name: "Nothing goes out on default" }).waitFor();
    await view(page, "Routes");
    await shoot(page, "routes-overridden");
    await card.getByRole("button", { name: "Resume default" }).click();
    await confirm(page, "Resume");
    await card.getByText("paused").waitFor({ state: "detached" });
    await card.getByRole("button", { name: "Remove override default" }).click();
    await confirm(page, "Remove override");
    await card.getByText("overridden").waitFor({ state: "detached" });
  });

  await step("a dead letter is found, looked at, replayed and deleted", async () => {
    for (const name of ["gone-1", "gone-2", "gone-3"]) {
      await send(api, [{ kind: "fcm", token: name }], { query: "?wait=10s" });
    }
    await view(page, "Dead letters");
    const table = page.getByRole("table", { name: "Dead letters" });
    await until("three letters", async () => (await table.locator("tbody tr").count()) === 3);
    await shoot(page, "dead-letters");
    await page.getByLabel("Reason").selectOption("ttl");
    await page.getByRole("button", { name: "Filter" }).click();
    await page.getByText("There is none with reason ttl.").waitFor();
    await page.getByRole("link", { name: "Clear" }).click();
    await table.getByRole("button", { name: /^Delete/ }).first().click();
    await confirm(page, "Delete");
    await until("two letters", async () => (await table.locator("tbody tr").count()) === 2);
    await table.getByRole("button", { name: /^Replay/ }).first().click();
    await confirm(page, "Replay");
    await page.getByText("The delivery is queued again.").waitFor();
    await page.getByRole("button", { name: "Replay all" }).click();
    await confirm(page, "Replay all");
    await page.getByText(/\d deliver(y|ies) queued again/).waitFor();
  });

  await step("events come live, can be filtered and held still", async () => {
    await view(page, "Events");
    const log = page.getByRole("log");
    await log.getByText("drain").first().waitFor();
    await shoot(page, "events");
    await page.getByRole("checkbox", { name: "operators" }).uncheck();
    await log.getByText("drain").first().waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Hold still" }).click();
    await page.getByRole("button", { name: /Go on/ }).click();
    await page.getByRole("checkbox", { name: "operators" }).check();
  });

  await step("the audit list says who did what and why", async () => {
    await view(page, "Audit");
    const table = page.getByRole("table", { name: "Audit" });
    const line = table.locator("tr", { hasText: "drain providers/fcm" });
    await line.getByText("incident 42").waitFor();
    await line.getByText("local").waitFor();
    await shoot(page, "audit");
  });

  await step("the configuration is shown with secrets masked, and reloaded", async () => {
    await view(page, "Configuration");
    await page.locator("summary", { hasText: "providers" }).click();
    await page.getByText('"***"').first().waitFor();
    await shoot(page, "config");
    await page.getByRole("button", { name: "Reload" }).click();
    await confirm(page, "Reload");
    await page.getByText("Nothing had changed.").waitFor();
  });

  await step("explain shows the router's plan", async () => {
    await view(page, "Explain");
    await page.getByLabel("Or a recipient that might be sent to").fill("fcm:hello, ntfy:alice");
    await page.getByRole("button", { name: "Explain", exact: true }).click();
    await page.getByRole("table", { name: "Candidates" }).getByText("ntfy").first().waitFor();
    await shoot(page, "explain");
  });

  await step("a plan is shown as the contract has it", async () => {
    await page.route("**/admin/v1/explain", (route) => route.fulfill({ json: PLAN }));
    await page.getByRole("button", { name: "Explain", exact: true }).click();
    await page.getByRole("table", { name: "Candidates" }).getByText("apns:5c1f09ab").waitFor();
    await page.getByRole("table", { name: "Left out" }).getByText("5 failures in a row").waitFor();
    await shoot(page, "explain-plan");
    await page.route("**/admin/v1/explain?delivery=*", (route) => route.fulfill({ json: PAST }));
    await page.getByLabel("A delivery that is there").fill(PAST.deliveries[0].id);
    await page.getByRole("button", { name: "Explain delivery" }).click();
    await page.getByText("apns ended Unavailable (503): the next candidate, at once").waitFor();
    await page.getByText("An operator has paused the route").waitFor();
    await shoot(page, "explain-past");
    await page.unroute("**/admin/v1/explain?delivery=*");
    await page.unroute("**/admin/v1/explain");
  });

  await step("hostile names are shown as text", async () => {
    const hostile = "<img src=x onerror=alert(1)>";
    const sent = await send(api, [{ kind: "fcm", token: "hello" }], { query: "?wait=10s", metadata: { note: hostile } });
    await page.goto(`${admin}/#/message/${sent.id}`);
    await page.getByText(`note=${hostile}`).waitFor();
    check((await page.locator("main img").count()) === 0, "data became markup");
  });

  await step("a vendor that asks us to wait is shown as paused, with the end of it", async () => {
    await page.goto(`${admin}/#/overview`);
    await vendor(vendors.control, "ntfy", { mode: "throttling", retry_after_s: 30 });
    await send(api, [{ kind: "ntfy", topic: "alice" }], { ttl: "10s" });
    const trouble = page.locator(".trouble", { hasText: "ntfy" });
    await trouble.getByText("The vendor asked us to wait.").waitFor();
    await row(page, "ntfy").getByText("paused").waitFor();
    await trouble.getByText(/until \d\d:\d\d:\d\d/).first().waitFor();
    await shoot(page, "overview-throttled");
    await vendor(vendors.control, "ntfy", { mode: "healthy" });
  });

  await step("everything can be done by keyboard, and the focus is seen", async () => {
    await page.goto(`${admin}/#/overview`);
    await row(page, "ntfy").waitFor();
    const drain = row(page, "ntfy").getByRole("button", { name: "Drain ntfy" });
    await page.evaluate(() => document.activeElement.blur());
    await until("tab comes to the button", async () => {
      await page.keyboard.press("Tab");
      return drain.evaluate((button) => button === document.activeElement);
    });
    const outline = await drain.evaluate((button) => getComputedStyle(button).outlineStyle);
    check(outline === "solid", `the focus is not seen: ${outline}`);
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Drain ntfy?" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    check(await drain.evaluate((button) => button === document.activeElement), "the focus is lost after the dialog");
    await page.keyboard.press("Enter");
    await page.keyboard.type("by keyboard");
    await page.keyboard.press("Enter");
    await row(page, "ntfy").getByText("“by keyboard”").waitFor();
    await page.keyboard.press("/");
    check((await page.evaluate(() => document.activeElement.id)) === "lookup-id", "/ does not go to the look-up");
  });

  await step("what is typed and unfolded outlives the page's bringing up to date", async () => {
    await page.goto(`${admin}/#/explain`);
    await page.getByLabel("Or a recipient that might be sent to").fill("fcm:half");
    await page.locator("form summary").click();
    const asked = page.waitForResponse("**/admin/v1/providers");
    await asked;
    await page.waitForResponse("**/admin/v1/providers");
    check((await page.getByLabel("Or a recipient that might be sent to").inputValue()) === "fcm:half", "what was typed is lost");
    check(await page.locator("form details").evaluate((details) => details.open), "what was unfolded is folded");
  });

  return page;
}

/** A plan, as the API's contract shows one. */
const PLAN = {
  route: "default",
  deliveries: [{
    ref: "alice-iphone",
    candidates: [{
      provider: "apns", kind: "apns", address: "apns:5c1f09ab", tier: 0, position: 1, share: 0.97, state: "healthy",
      keys: [{ part: "app:com.example.shop", state: "healthy" }],
      score: { balance: "least_latency", rtt_ms: 38, in_flight: 2, weight: 3 },
      request: { method: "POST", url: "https://…/3/device/***", headers: { "apns-topic": "com.example.shop", authorization: "***" }, body: { aps: {} } },
    }],
    excluded: [{ provider: "fcm", kind: "fcm", address: "fcm:77aa01c2", reason: "ejected", detail: "5 failures in a row", until: "2026-12-01T08:00:00.000Z" }],
  }],
};

/** One that was accepted, with what a router may add. */
const PAST = {
  route: "default", paused: "route",
  deliveries: [{
    ref: "bob", id: "01a20ee1-c205-7000-a260-323599e94001", state: "waiting", next_at: "2026-12-01T08:00:00.000Z", panic: true,
    attempts: [
      { n: 1, provider: "apns", outcome: "Unavailable", moved: null },
      { n: 2, provider: "fcm", outcome: "Throttled", moved: { from: "apns", reason: "Unavailable", detail: "apns ended Unavailable (503): the next candidate, at once" } },
    ],
    candidates: [], excluded: [],
  }],
};

async function away(page, { child }) {
  await step("a router that is gone is told of, and what is shown is marked as old", async () => {
    await page.goto(page.url().replace(/#.*/, "#/overview"));
    await page.getByRole("heading", { level: 1 }).waitFor();
    meant = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/;
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
    await page.getByText("The router does not answer.").waitFor();
    await page.locator("#freshness").getByText("no answer").waitFor();
    await shoot(page, "overview-away");
    await page.context().close();
  });
}

async function keys(browser, { admin }) {
  meant = /401|403/;
  const page = await open(browser, admin);
  await step("a router with clients asks for a key, refuses wrong ones, and keeps it in the tab alone", async () => {
    await page.getByRole("heading", { name: "This router wants a key" }).waitFor();
    await shoot(page, "key");
    await page.getByLabel("Key").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("no client has this key").waitFor();
    await page.getByLabel("Key").fill("shop-key-0123456789abcdef");
    await page.keyboard.press("Enter");
    await page.getByText("needs a key with admin = true").waitFor();
    await page.getByLabel("Key").fill("ops-key-0123456789abcdef");
    await page.keyboard.press("Enter");
    await row(page, "apns").waitFor();
    await page.locator("#freshness").getByText("live").waitFor();
    const kept = await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
    check(JSON.stringify(kept) === JSON.stringify([1, 0, ""]), `kept: ${JSON.stringify(kept)}`);
    await page.reload();
    await row(page, "apns").waitFor();
  });

  await step("a client can be paused and resumed", async () => {
    await view(page, "Routes");
    const line = page.getByRole("table", { name: "Clients" }).locator("tr", { hasText: "shop" });
    await line.getByRole("button", { name: "Pause shop" }).click();
    await page.getByRole("dialog").getByLabel("Why?").fill("it floods");
    await confirm(page, "Pause");
    await line.getByText("paused").waitFor();
    await line.getByRole("button", { name: "Resume shop" }).click();
    await confirm(page, "Resume");
    await line.getByText("may send").waitFor();
  });

  await step("the key can be forgotten", async () => {
    await page.getByRole("button", { name: "Forget key" }).click();
    await page.getByRole("heading", { name: "This router wants a key" }).waitFor();
    check((await page.evaluate(() => sessionStorage.length)) === 0, "the key is still kept");
  });
}

const CLIENTS = `
[[clients]]
name = "ops"
key = "ops-key-0123456789abcdef"
admin = true
[[clients]]
name = "shop"
key = "shop-key-0123456789abcdef"
`;

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
try {
  const vendors = await simulator();
  const open = await router("open", vendors);
  const page = await outage(browser, vendors, open);
  await away(page, open);
  await keys(browser, await router("locked", vendors, CLIENTS));
} catch (error) {
  for (const context of browser.contexts()) {
    for (const page of context.pages()) await page.screenshot({ path: join(SHOTS, "failed.png"), fullPage: true });
  }
  console.error(`FAILED ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  await end();
}
