// Labels of the options of our nodes in the page's language; what is saved and sent stays the option itself.
import { app } from "../../scripts/app.js";
import { word, wordsReady } from "./words.js";

function label(value) {
  const options = word("options", {});
  return options[value] ?? String(value ?? "");
}

function name(node) {
  for (const widget of node.widgets ?? []) {
    if (widget.type === "combo") widget.options.getOptionLabel ??= label;
  }
}

app.registerExtension({
  name: "Lumiere.Options",
  async nodeCreated(node) {
    if (!/Lumiere/.test(node.comfyClass ?? "")) return;
    await wordsReady;
    name(node);
    const task = node.widgets?.find((widget) => widget.name === "task");
    if (!task) return;
    const before = task.callback; // another task brings other combos
    task.callback = function () {
      const result = before?.apply(this, arguments);
      setTimeout(() => name(node));
      return result;
    };
  },
});
