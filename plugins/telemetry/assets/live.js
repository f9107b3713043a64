// The stream of events, resumed by the browser where it was interrupted.

/** Opens the stream; `on.event(record)`, `on.lost(count)`, `on.state(connected)`. */
export function listen(on) {
  const source = new EventSource("/api/events/live");
  source.addEventListener("open", () => on.state(true));
  source.addEventListener("message", ({ data }) => on.event(JSON.parse(data)));
  source.addEventListener("lost", ({ data }) => on.lost(JSON.parse(data)));
  source.addEventListener("error", () => {
    on.state(false);
    // Refused for good, by a bound for example: the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(on), 5000);
  });
}
