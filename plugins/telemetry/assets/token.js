// Asks for the token that changes need. It stays in this tab.

import { Refused, post, token } from "./api.js";
import { h, say } from "./dom.js";

/**
 * Does a change, asking for the token where it is needed and again where it was wrong.
 * The answer, or `null` when the token was not given.
 */
export async function change(path, body) {
  let wrong;
  for (;;) {
    if (!token.get()) {
      const given = await ask(wrong);
      if (!given) return null;
      token.set(given);
    }
    try {
      return await post(path, body);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 401) throw error;
      token.forget();
      wrong = error.message;
    }
  }
}

function ask(wrong) {
  const input = h("input", {
    type: "password",
    autocomplete: "off",
    required: true,
    "aria-describedby": "token-error",
  });
  const error = h("p", { id: "token-error", class: "notice bad", role: "alert", hidden: !wrong });
  say(error, wrong);
  const cancel = h("button", { type: "button" }, "Cancel");
  const dialog = h(
    "dialog",
    { "aria-labelledby": "token-title" },
    h(
      "form",
      {},
      h("h2", { id: "token-title" }, "Token"),
      h(
        "p",
        { class: "muted" },
        "Changing something needs the token of http.token in cygnetd.toml. It is kept until this tab is closed.",
      ),
      h("label", {}, "Token", input),
      error,
      h("div", { class: "actions" }, cancel, h("button", { type: "submit", class: "main" }, "Go on")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    let given = null;
    cancel.addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      given = input.value;
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(given);
    });
  });
}
