// Building elements, and changing the shown ones into them in place.
// What comes from outside is only ever a text node or an attribute's value: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "use", "path", "rect", "line"]);

/** An element with those attributes; false, null and undefined leave one out. Children are nodes, texts, or arrays of them. */
export function el(tag, attributes = {}, ...children) {
  const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (/^(on|style$|src)/.test(name) || (name === "href" && !String(value).startsWith("#"))) throw new Error(`${name} is not for data`);
    if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== false && child != null));
  return made;
}

/** One of the marks of index.html; `say` is what a screen reader hears in its place. */
export function mark(name, kind = "", say = "") {
  const drawn = el("svg", { class: `mark ${kind}`.trim(), "aria-hidden": "true" }, el("use", { href: `#i-${name}` }));
  return say ? [drawn, el("span", { class: "vh" }, say)] : drawn;
}

export const tag = (kind, icon, ...words) => el("span", { class: `tag ${kind}` }, mark(icon), el("span", {}, ...words));

/** Makes the children of `parent` equal to `wanted`, keeping each shown element that is alike: focus, selection,
 * scroll and an opened <details> stay. Elements with the same `data-key` are the same thing wherever it moved. */
export function show(parent, ...wanted) {
  const fresh = el("div", {}, ...wanted);
  children(parent, fresh);
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined);
const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function children(parent, fresh) {
  const wanted = [...fresh.childNodes];
  const keys = new Set(wanted.map(keyOf));
  const shown = new Map([...parent.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let at = parent.firstChild;
  for (const want of wanted) {
    while (at && keyOf(at) && !keys.has(keyOf(at))) at = dropped(at);
    const have = keyOf(want) ? shown.get(keyOf(want)) : at;
    if (!have || !alike(have, want)) {
      parent.insertBefore(want, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else parent.insertBefore(have, at);
    become(have, want);
  }
  while (at) at = dropped(at);
}

function dropped(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function become(have, want) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  for (const { name } of [...have.attributes]) {
    const kept = name === "open" && have.nodeName === "DETAILS"; // the reader opened it
    if (!kept && !want.hasAttribute(name)) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  children(have, want);
}
