// Light, dark, or what the system says.

import { say } from "./dom.js";

const KEY = "cygnet-theme";
const ORDER = ["system", "light", "dark"];

/** Makes the button go through the three. */
export function attach(button) {
  let chosen = ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system";
  const show = () => {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    say(button, `Theme: ${chosen}`);
  };
  button.addEventListener("click", () => {
    chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
    localStorage.setItem(KEY, chosen);
    show();
  });
  show();
}
