// Makes elements, and brings a page up to date without losing focus, selection,
// scroll position or what is unfolded.
//
// Data reaches the page as text nodes and attributes of fixed names only.

/** An element: h("p", {class: "note"}, "text", child, [more]). */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.flat(Infinity).filter(present).map(node));
  return element;
}

const present = (child) => child !== null && child !== undefined && child !== false;
const node = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/** Makes `parent` hold what `wanted` (a list of nodes) holds, keeping the
 * elements that stay. Elements with a `data-key` are known again by it. */
export function morph(parent, wanted) {
  const kept = new Map();
  for (const child of parent.children) {
    if (child.dataset.key) kept.set(child.dataset.key, child);
  }
  let at = parent.firstChild;
  for (const next of wanted) {
    const key = next.nodeType === Node.ELEMENT_NODE && next.dataset.key;
    const same = key ? kept.get(key) : at && alike(at, next) ? at : null;
    if (!same) {
      parent.insertBefore(next, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else parent.insertBefore(same, at);
    update(same, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName
    && (a.nodeType !== Node.ELEMENT_NODE || (!a.dataset.key && !b.dataset.key));
}

function update(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // What the reader has unfolded stays so.
    const readers = name === "open" && old.nodeName === "DETAILS";
    if (!next.hasAttribute(name) && !readers) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // What the reader types stays, too.
  if (["INPUT", "TEXTAREA", "SELECT"].includes(old.nodeName)) return;
  morph(old, [...next.childNodes]);
}

/** A share, drawn as a bar; the number beside it says the same. An SVG, because
 * the policy forbids style attributes. */
export function bar(share) {
  const svg = shape("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(shape("rect", { class: "rail", width: 100, height: 6 }));
  svg.append(shape("rect", { class: "fill", width: Math.round(share * 1000) / 10, height: 6 }));
  return svg;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** A table that stays one for screen readers when a small screen shows it as
 * cards: `columns` are [title, class], `rows` lists of cells, or {key, cells, class}. */
export function table(label, columns, rows) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", role: "columnheader", class: kind }, title));
  const line = (row) => {
    const { key, cells, class: kind } = Array.isArray(row) ? { cells: row } : row;
    const cell = (content, at) => {
      const [title, kind] = columns[at];
      return h("td", { role: "cell", class: kind, "data-title": title }, h("div", null, content));
    };
    return h("tr", { role: "row", "data-key": key, class: kind }, cells.map(cell));
  };
  return h("div", { class: "scroll" },
    h("table", { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, rows.map(line))));
}

/** Pairs of name and value; those without a value are left out. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => present(value) && value !== "")
    .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
