// Throughput and use of limits of the last minutes: what the daemon has kept, and what it adds while one looks.

const KEPT_MS = 10 * 60 * 1000;

/** By tunnel; a sample is `[time in ms, received bit/s, sent bit/s, used 0…1 or null]`. */
const rings = new Map();

/** Adds what is newer than what is here. */
export function add(key, samples) {
  const ring = rings.get(key) ?? [];
  const last = ring.at(-1)?.[0] ?? 0;
  ring.push(...samples.filter(([at]) => at > last));
  const from = (ring.at(-1)?.[0] ?? 0) - KEPT_MS;
  const old = ring.findIndex(([at]) => at >= from);
  if (old > 0) ring.splice(0, old);
  rings.set(key, ring);
}

/** What is known of one tunnel, oldest first. */
export const of = (key) => rings.get(key) ?? [];

/** Forgets tunnels that are not shown any more. */
export function retain(keys) {
  for (const key of rings.keys()) if (!keys.has(key)) rings.delete(key);
}
