// Compare Clips (Lumiere): two clips in step, as a wipe, side by side or as their difference; the wheel zooms.
import { app } from "../../scripts/app.js";
import { button, decode, onExecuted, ourWidget } from "./graph.js";
import { Player } from "./player.js";
import { word } from "./words.js";

const HEIGHT = 280;
const MODES = ["wipe", "side", "difference"];
const ICONS = { wipe: "pi-arrows-h", side: "pi-pause", difference: "pi-minus-circle" };
const GAIN = 4; // of the difference, as the node's own default

/** Whether the keyboard is at work somewhere: nothing may take it away. */
function typing() {
  return document.activeElement?.matches("input, textarea, select, [contenteditable=true]");
}

class Compare extends Player {
  constructor() {
    super();
    Object.assign(this, { mode: "wipe", wipe: 0.5, zoom: 1, middle: [0.5, 0.5], other: null, labels: ["A", "B"] });
    const titles = { wipe: "Wipe: move over the picture", side: "Side by side", difference: "Difference" };
    const modes = MODES.map((mode) => button(ICONS[mode], word(mode, titles[mode]), () => this.choose(mode)));
    this.look.replaceWith(...modes);
    this.modes = modes;
    this.canvas.addEventListener("pointermove", (event) => this.hovered(event));
    this.canvas.addEventListener("pointerdown", (event) => event.stopPropagation());
    this.canvas.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    // Nodes 2.0 gives the wheel to the graph unless what lies below the pointer says so and has the focus.
    this.element.dataset.captureWheel = "true";
    this.canvas.addEventListener("pointerenter", () => typing() || this.element.focus({ preventScroll: true }));
    this.canvas.addEventListener("pointerleave", () => this.element.blur());
    this.canvas.addEventListener("dblclick", () => { this.zoom = 1; this.go(this.frame); });
    this.choose("wipe");
  }

  /** Show two sheets; the shorter one decides the frames. */
  setPair({ a, b, labels }) {
    decode(b, (decoded) => {
      this.other = decoded;
      this.labels = labels;
      this.set({ ...a, frames: Math.min(a.frames, b.frames) });
    });
  }

  choose(mode) {
    this.mode = mode;
    MODES.forEach((name, place) => { this.modes[place].style.outline = name === mode ? "1px solid #fc3" : ""; });
    this.go(this.frame);
  }

  /** The pointer's place in the picture as it is drawn, from 0 to 1 each way. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height); // object-fit: contain
    const [width, height] = [this.canvas.width * scale, this.canvas.height * scale];
    const x = (event.clientX - box.left - (box.width - width) / 2) / width;
    const y = (event.clientY - box.top - (box.height - height) / 2) / height;
    return [x, y].map((value) => Math.min(1, Math.max(0, value)));
  }

  hovered(event) {
    const [x] = this.place(event);
    if (event.buttons && this.zoom > 1) {
      const box = this.canvas.getBoundingClientRect();
      this.middle = [this.middle[0] - event.movementX / box.width / this.zoom, this.middle[1] - event.movementY / box.height / this.zoom];
      this.hold();
    } else this.wipe = x;
    if (this.sheet) this.go(this.frame);
  }

  wheeled(event) {
    event.preventDefault();
    event.stopPropagation();
    const at = this.place(event).map((value) => value - 0.5);
    const zoom = Math.min(16, Math.max(1, this.zoom * (event.deltaY < 0 ? 1.25 : 0.8)));
    const share = 1 / this.zoom - 1 / zoom; // the pixel under the pointer stays under it
    if (this.mode === "side") at[0] = (((at[0] + 0.5) * 2) % 1) - 0.5;
    this.middle = this.middle.map((value, axis) => value + at[axis] * share);
    this.zoom = zoom;
    this.hold();
    if (this.sheet) this.go(this.frame);
  }

  hold() {
    const half = 0.5 / this.zoom;
    this.middle = this.middle.map((value) => Math.min(1 - half, Math.max(half, value)));
  }

  /** Draw the part of one clip's frame that the zoom shows. */
  paint(context, sheet, left, width, height) {
    const x = (this.frame % sheet.columns) * sheet.width + (this.middle[0] - 0.5 / this.zoom) * sheet.width;
    const y = Math.floor(this.frame / sheet.columns) * sheet.height + (this.middle[1] - 0.5 / this.zoom) * sheet.height;
    context.drawImage(sheet.image, x, y, sheet.width / this.zoom, sheet.height / this.zoom, left, 0, width, height);
  }

  draw_clip(context) {
    if (!this.other) return;
    const scale = Math.max(1, Math.ceil(256 / this.sheet.height));
    const [width, height] = [this.sheet.width * scale, this.sheet.height * scale];
    this.resize(this.mode === "side" ? width * 2 : width, height);
    context.imageSmoothingEnabled = false;
    this[`draw_${this.mode}`](context, width, height);
  }

  draw_wipe(context, width, height) {
    const edge = Math.round(this.wipe * width);
    this.paint(context, this.sheet, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(edge, 0, width - edge, height);
    context.clip();
    this.paint(context, this.other, 0, width, height);
    context.restore();
    context.fillStyle = "#fc3";
    context.fillRect(edge, 0, 1, height);
    this.name(context, width);
  }

  draw_side(context, width, height) {
    this.paint(context, this.sheet, 0, width, height);
    this.paint(context, this.other, width, width, height);
    this.name(context, width * 2);
  }

  draw_difference(context, width, height) {
    this.paint(context, this.sheet, 0, width, height);
    context.globalCompositeOperation = "difference";
    this.paint(context, this.other, 0, width, height);
    context.globalCompositeOperation = "source-over";
    context.filter = `brightness(${GAIN})`;
    context.drawImage(this.canvas, 0, 0);
    context.filter = "none";
  }

  name(context, width) {
    context.font = "12px sans-serif";
    context.fillStyle = "#fff";
    context.strokeStyle = "#000";
    for (const [text, align, x] of [[this.labels[0], "left", 4], [this.labels[1], "right", width - 4]]) {
      context.textAlign = align;
      context.strokeText(text, x, 14);
      context.fillText(text, x, 14);
    }
  }
}

app.registerExtension({
  name: "Lumiere.Compare",
  nodeCreated(node) {
    if (node.comfyClass !== "LumiereCompareClips") return;
    onExecuted(node, ({ lumiere_compare: shown }) => {
      if (shown) ourWidget(node, "lumiere_compare", HEIGHT, () => new Compare()).setPair(shown[0]);
    });
  },
});
