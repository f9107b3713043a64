// Questions to the daemon, and the token for what changes something.

const KEY = "cygnet-token";

/** The daemon refused; `status` is HTTP's. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The token lives as long as this tab. */
export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Asks; parameters without a value are left out. */
export function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""),
  );
  return answer(fetch(query.size ? `${path}?${query}` : path, { signal, cache: "no-store" }));
}

/** Asks for a change, with the token. */
export function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  return answer(fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" }));
}

async function answer(asked) {
  const response = await asked;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.error?.message ?? `the daemon answered ${response.status}`);
  return body;
}
