// Lumiere Prompt Travel: its prompts over the frames of the clip, as Python planned them.
import { app } from "../../scripts/app.js";
import { element, fit, onExecuted, ourWidget } from "./graph.js";

const ROW = 20; // pixels
const MOST = 6; // rows that are seen at once
const COLOURS = ["#3b7dd8", "#d87c3b", "#3fa66b", "#a85fc4", "#c4a53b", "#3bb0b8"];

class Plan {
  constructor() {
    this.height = ROW;
    this.element = element("div", {
      class: "lumiere-prompts",
      style: "width:100%;overflow-y:auto;border-radius:4px;background:var(--comfy-input-bg,#222)",
    });
  }

  set({ prompts, length }) {
    this.height = Math.min(MOST, prompts.length) * ROW;
    this.element.style.minHeight = `${this.height}px`;
    this.element.replaceChildren(...prompts.map((prompt, place) => this.row(prompt, COLOURS[place % COLOURS.length], length)));
  }

  /** One prompt: a hill as high as it counts at each frame, its first frame and its words over it. */
  row({ frame, text, shares }, colour, length) {
    const hill = element("canvas", { style: "position:absolute;inset:0;width:100%;height:100%" });
    hill.width = shares.length;
    hill.height = ROW;
    const context = hill.getContext("2d");
    context.fillStyle = colour;
    shares.forEach((share, place) => context.fillRect(place, ROW * (1 - share), 1, ROW * share));
    const words = element("span", {
      style: "position:absolute;inset:0;padding:0 4px;font-size:11px;line-height:20px;white-space:nowrap;overflow:hidden;" +
        "text-overflow:ellipsis;color:#fff;text-shadow:0 0 3px #000,0 0 3px #000",
    }, `${Math.round(frame * 10) / 10}: ${text}`);
    const title = `${frame} / ${length - 1}: ${text}`;
    return element("div", { title, style: `position:relative;height:${ROW}px;flex:none` }, hill, words);
  }
}

app.registerExtension({
  name: "Lumiere.Prompts",
  nodeCreated(node) {
    if (node.comfyClass !== "LumierePromptTravel") return;
    onExecuted(node, ({ lumiere_prompts: shown }) => {
      if (!shown) return;
      ourWidget(node, "lumiere_prompts", ROW, () => new Plan()).set(shown[0]);
      fit(node);
    });
  },
});
