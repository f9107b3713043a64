// Elements without markup: whatever comes from outside becomes text and never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`on…`) and children; strings become text, `null` and `false` nothing. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets a text only where it differs, so that selections and screen readers are left in peace. */
export function say(element, text) {
  const words = text ?? "";
  if (element.textContent !== words) element.textContent = words;
  return element;
}

/** Replaces the children. */
export function put(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

/** Keeps one element per key in the order of `items`: made once, updated afterwards, so that focus stays where it is. */
export function keyed(parent, kept, items, keyOf, make) {
  const seen = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let row = kept.get(key);
    if (!row) {
      row = make(item);
      kept.set(key, row);
    }
    row.update(item);
    if (row.element === at) at = at.nextElementSibling;
    else parent.insertBefore(row.element, at);
  }
  for (const [key, row] of kept) {
    if (seen.has(key)) continue;
    row.element.remove();
    kept.delete(key);
  }
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
