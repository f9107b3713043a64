// Where one is: the part of the address after `#`, so that links, back and reload work without a server's help.

/** The view's name and its parameters: `#/tunnel/site/net4?range=6h`. */
export function current() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(decoded);
  return { view: parts[0] || "tunnels", parts: parts.slice(1), query: new URLSearchParams(query ?? "") };
}

/** The address of a view. */
export function href(view, parts = [], query = {}) {
  const path = [view, ...parts.map(encodeURIComponent)].join("/");
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/${path}${search.size ? `?${search}` : ""}`;
}

/** Remembers filters in the address without making history longer. */
export function remember(view, parts, query) {
  history.replaceState(null, "", href(view, parts, query));
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
