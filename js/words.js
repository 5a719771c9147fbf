// The words of our widgets in the page's language, from locales/<language>/main.json; English is the fallback.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

let texts = {};

export const wordsReady = (async () => {
  try {
    texts = await (await api.fetchApi("/i18n")).json();
  } catch {
    texts = {}; // the English fallbacks stay
  }
})();

/** Return the text of a key of "lumiere" in main.json, else the English one. */
export function word(key, english) {
  const language = app.extensionManager?.setting.get("Comfy.Locale") ?? "en";
  return texts[language]?.lumiere?.[key] ?? english;
}
