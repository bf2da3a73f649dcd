// The page: which view is shown, keys and clicks, and what keeps it up to date.
//
// A view has a title and `render(place)`, which makes its nodes of what is known.
// It may have `load(place)`, for what it asks the router itself, and `submit(form
// data)`. A place is what stands behind the #: the view's name, an argument,
// parameters. So every view can be bookmarked, and sent to a colleague.

import { act } from "./actions.js";
import { key } from "./admin.js";
import { audit } from "./audit.js";
import { config } from "./config.js";
import { deadLetters } from "./dead-letters.js";
import { h, morph } from "./dom.js";
import { events } from "./events.js";
import { explain } from "./explain.js";
import { message } from "./message.js";
import { overview } from "./overview.js";
import { provider } from "./provider.js";
import { routes } from "./routes.js";
import { refresh, rekey, seen, start } from "./watch.js";
import { moment } from "./words.js";

const VIEWS = {
  overview, provider, routes, events, message, explain, "dead-letters": deadLetters, audit, config,
};

/** Those that stand in the bar; a provider's page is reached from the overview. */
const BAR = ["overview", "routes", "events", "message", "explain", "dead-letters", "audit", "config"];

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const toast = document.getElementById("toast");
const freshness = document.getElementById("freshness");
const lookup = document.getElementById("lookup");

let place = placeOf(location.hash);

function placeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const parameters = Object.fromEntries(new URLSearchParams(query));
  return { view: Object.hasOwn(VIEWS, name) ? name : "overview", argument: decoded(rest.join("/")), parameters };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    // Typed by hand, with a stray %.
    return text;
  }
}

/** Another place is another page: it begins empty, at its top. */
async function go() {
  place = placeOf(location.hash);
  main.replaceChildren();
  draw();
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
  await load();
}

/** What the view asks for itself, if it does. */
async function load() {
  if (seen.locked !== null) return;
  await VIEWS[place.view].load?.(place);
  draw();
}

let drawing = false;

/** Many reasons to draw within a frame are one. */
function soon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const view = VIEWS[place.view];
  document.title = `${view.title(place)} – Pushyard`;
  morph(nav, BAR.map((name) => {
    const current = name === place.view || (name === "overview" && place.view === "provider");
    return h("a", { href: `#/${name}`, "aria-current": current ? "page" : null }, VIEWS[name].title({}));
  }));
  document.body.classList.toggle("locked", seen.locked !== null);
  morph(freshness, fresh());
  morph(main, seen.locked === null ? page(view) : [door()]);
}

function page(view) {
  const away = seen.failing && h("p", { class: "banner bad", role: "alert" },
    h("strong", null, "The router does not answer. "),
    seen.failing.status ? `${seen.failing.message}. ` : null,
    "Asked again every two seconds. ",
    seen.at ? ["What stands here is from ", moment(new Date(seen.at).toISOString()), "."] : null);
  const body = seen.providers ? view.render(place) : [h("p", { class: "hint" }, "Asking the router …")];
  return [away, ...body].filter(Boolean);
}

function fresh() {
  const word = seen.failing ? ["bad", "no answer"]
    : seen.stream === "open" ? ["good", "live"] : ["warn", "no events"];
  const [tone, text] = seen.locked === null ? word : ["plain", "locked"];
  return [
    h("span", { class: `live ${tone}` }, text),
    key.get() && seen.locked === null && h("button", { type: "button", "data-forget": true }, "Forget key"),
  ].filter(Boolean);
}

/** Asks for a key. */
function door() {
  return h("form", { class: "door card", "data-form": "door", autocomplete: "off" },
    h("h1", null, "This router wants a key"),
    h("p", null, "That of a client with ", h("code", null, "admin = true"), ". It stays in this tab and is forgotten with it."),
    h("label", null, h("span", null, "Key"),
      h("input", { id: "key", name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false" })),
    h("p", { class: "fault", role: "alert" }, seen.locked && `Refused: ${seen.locked}.`),
    h("p", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Open")));
}

function tell(text) {
  const line = h("p", null, text);
  toast.append(line);
  if (toast.childElementCount > 2) toast.firstElementChild.remove();
  setTimeout(() => line.remove(), 6000);
}

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-action], [data-do], [data-forget]");
  if (!target) return;
  const { action, do: ask, forget, ...subject } = target.dataset;
  if (forget !== undefined) await rekey(null);
  else if (ask) await VIEWS[place.view].on?.(ask, subject);
  else if (await act(action, subject, tell)) await Promise.all([refresh(), load()]);
  draw();
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.closest("dialog")) return;
  event.preventDefault();
  const data = Object.fromEntries(new FormData(form));
  if (form === lookup) {
    const id = data.id.trim();
    if (id) location.hash = `#/message/${encodeURIComponent(id)}`;
    form.reset();
  } else if (form.dataset.form === "door") {
    await rekey(data.key.trim());
    draw();
    if (seen.locked === null) await load();
    else document.getElementById("key").select();
  } else if (form.dataset.to) {
    const filled = Object.entries(data).map(([name, text]) => [name, text.trim()]).filter(([, text]) => text);
    const query = new URLSearchParams(filled).toString();
    const to = `#/${form.dataset.to}${query && `?${query}`}`;
    if (location.hash === to) await load();
    else location.hash = to;
  } else {
    await VIEWS[place.view].submit?.(data);
    draw();
  }
});

document.addEventListener("change", (event) => {
  const { toggle } = event.target.dataset;
  if (toggle === undefined) return;
  VIEWS[place.view].on?.(toggle, { value: event.target.value, checked: event.target.checked });
  draw();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    lookup.elements.id.focus();
  }
});

// A link "skip to the content" must not be taken for a place.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener("hashchange", go);

// Times run on ("2 min ago"), and views that ask for themselves ask again.
setInterval(() => {
  if (!document.hidden && seen.locked === null) soon();
}, 1000);

let busy = false;
setInterval(async () => {
  const view = VIEWS[place.view];
  if (document.hidden || busy || seen.locked !== null || !view.again?.(place)) return;
  busy = true;
  try {
    await load();
  } finally {
    busy = false;
  }
}, 2000);

draw();
await start(soon);
await load();
