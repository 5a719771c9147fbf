// Lumiere Style Sweep: the grid plays in the node, and a click on a cell takes its alpha.
import { app } from "../../scripts/app.js";
import { onExecuted, ourWidget } from "./graph.js";
import { Player } from "./player.js";
import { word } from "./words.js";

const HEIGHT = 260;
const STYLE = "LumiereStyleInterpolate";

class Grid extends Player {
  constructor(node) {
    super();
    this.node = node;
    this.canvas.style.cursor = "pointer";
    this.canvas.title = word("takeAlpha", "Click a cell: its alpha goes into Lumiere Style Interpolate");
  }

  clicked(event) {
    super.clicked(event);
    if (!this.sheet?.alphas || this.view !== "clip") return;
    const { alphas, across, width, height } = this.sheet;
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height); // object-fit: contain
    const x = (event.clientX - box.left - (box.width - width * scale) / 2) / (width * scale);
    const y = (event.clientY - box.top - (box.height - height * scale) / 2) / (height * scale);
    const down = Math.ceil(alphas.length / across);
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return;
    const alpha = alphas[Math.floor(y * down) * across + Math.floor(x * across)];
    if (alpha !== undefined) this.take(alpha);
  }

  /** Set the alpha of the Style Interpolate nodes beside this one; the first time make one with the same MODELs. */
  take(alpha) {
    const graph = this.node.graph;
    let targets = graph.nodes.filter((node) => node.comfyClass === STYLE);
    if (!targets.length) targets = [this.make(graph)];
    for (const node of targets) {
      const widget = node.widgets.find((found) => found.name === "alpha");
      widget.value = alpha;
      widget.callback?.(alpha);
    }
    graph.setDirtyCanvas(true, true);
    app.extensionManager.toast.add({
      severity: "success", summary: "Lumiere", life: 4000,
      detail: `${word("alphaTaken", "alpha taken:")} ${alpha}`,
    });
  }

  make(graph) {
    const made = LiteGraph.createNode(STYLE);
    made.pos = [this.node.pos[0], this.node.pos[1] + this.node.size[1] + 60];
    graph.add(made);
    for (const name of ["model", "style_model"]) {
      const slot = this.node.inputs.findIndex((input) => input.name === name);
      const link = graph.getLink?.(this.node.inputs[slot].link) ?? graph.links[this.node.inputs[slot].link];
      const origin = link && graph.getNodeById(link.origin_id);
      origin?.connect(link.origin_slot, made, made.inputs.findIndex((input) => input.name === name));
    }
    return made;
  }
}

app.registerExtension({
  name: "Lumiere.Sweep",
  nodeCreated(node) {
    if (node.comfyClass !== "LumiereStyleSweep") return;
    // The same player shows the clips while they are sampled (live.js) and the grid when all are there.
    const grid = ourWidget(node, "lumiere_live", HEIGHT, () => new Grid(node));
    onExecuted(node, ({ lumiere_sweep: shown }) => shown && grid.set(shown[0]));
  },
});
