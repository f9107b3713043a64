// What screen readers are told: few words, never a flood.

import { say } from "./dom.js";

const PAUSE_MS = 700;

let waiting = [];
let timer;

/** Says a sentence soon; many at once become one. */
export function announce(sentence, summary = (many) => `${many} changes`) {
  waiting.push(sentence);
  clearTimeout(timer);
  timer = setTimeout(() => {
    say(document.getElementById("announcer"), waiting.length > 3 ? summary(waiting.length) : waiting.join(". "));
    waiting = [];
  }, PAUSE_MS);
}
