// The clip plays in its node while it is sampled.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { findNode, ourWidget } from "./graph.js";
import { Player } from "./player.js";
import { word, wordsReady } from "./words.js";

const SETTING = "Lumiere.Preview.WhileSampling";
const HEIGHT = 220;

/** Tell the server what this page wants to see; it sends nothing to a page that never asked. */
async function choose(mode) {
  if (!api.clientId) return;
  await api.fetchApi("/lumiere/live", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ client: api.clientId, mode }),
  });
}

function chosen() {
  return app.extensionManager.setting.get(SETTING) ?? "clip";
}

app.registerExtension({
  name: "Lumiere.Live",
  settings: [
    {
      id: SETTING,
      name: "Preview of the clip while it is sampled",
      category: ["Lumiere", "Preview", "While sampling"],
      type: "combo",
      options: ["clip", "sheet", "off"],
      defaultValue: "clip",
      tooltip: "clip: all frames, as a player in the node. sheet: eight frames as one picture. off: nothing.",
      onChange: (mode) => choose(mode ?? "clip"),
    },
  ],
  async setup() {
    await wordsReady;
    choose(chosen());
    api.addEventListener("status", () => choose.client !== api.clientId && ((choose.client = api.clientId), choose(chosen())));
    api.addEventListener("reconnected", () => choose(chosen())); // a server that started again has forgotten it
    api.addEventListener("lumiere.clip", ({ detail }) => {
      const node = findNode(detail.node, detail.prompt);
      if (node) ourWidget(node, "lumiere_live", HEIGHT, () => new Player()).set(detail);
    });
    api.addEventListener("lumiere.warning", ({ detail }) => {
      app.extensionManager.toast.add({
        severity: "warn",
        summary: word("warning", "Lumiere"),
        detail: detail.text,
        life: 30000,
      });
    });
  },
});
