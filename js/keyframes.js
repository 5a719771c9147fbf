// Lumiere Condition Builder, task "key frames": the given pictures on a line over the clip; drag one to its frame.
import { app } from "../../scripts/app.js";
import { decode, element, onExecuted, ourWidget } from "./graph.js";
import { word } from "./words.js";

const TASK = "key frames";
const HEIGHT = 64;
const SIDE = 36;

class Strip {
  constructor(node) {
    this.node = node;
    this.sheet = null;
    this.element = element("div", {
      class: "lumiere-keyframes", title: word("dragKeys", "Drag a picture to its frame"),
      style: "position:relative;width:100%;height:64px;min-height:64px;border-radius:4px;background:var(--comfy-input-bg,#222);overflow:hidden;touch-action:none",
    });
    this.draw();
  }

  widget(name) { return this.node.widgets?.find((found) => found.name === name); }
  get length() { return this.widget("length")?.value || this.sheet?.length || 1; }

  /** The numbers in the text, or null where it is none that we could write again. */
  numbers() {
    const parts = String(this.widget("task.frames")?.value ?? "").split(/[\s,]+/).filter(Boolean).map(Number);
    return parts.every(Number.isInteger) ? parts : null;
  }

  set(sheet) {
    decode(sheet, (decoded) => { this.sheet = decoded; this.draw(); });
  }

  draw() {
    const last = Math.max(1, this.length - 1);
    const numbers = this.numbers() ?? [];
    this.element.replaceChildren(...numbers.map((number, place) => {
      const frame = number < 0 ? this.length + number : number;
      const share = Math.min(1, Math.max(0, frame / last));
      const picture = element("canvas", { style: `width:${SIDE}px;height:${SIDE}px;display:block;background:#555` });
      this.paint(picture, place);
      return element("div", {
        style: `position:absolute;top:4px;left:calc(${share} * (100% - ${SIDE}px));cursor:ew-resize;text-align:center;font-size:11px`,
        onpointerdown: (event) => this.drag(event, place),
      }, picture, String(number));
    }));
  }

  paint(canvas, place) {
    if (!this.sheet || place >= this.sheet.frames) return;
    const { image, columns, width, height } = this.sheet;
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").drawImage(image, (place % columns) * width, Math.floor(place / columns) * height, width, height, 0, 0, width, height);
  }

  drag(event, place) {
    event.stopPropagation();
    event.preventDefault();
    const move = (moved) => {
      const box = this.element.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (moved.clientX - box.left) / box.width));
      const numbers = this.numbers();
      const frame = Math.round(share * (this.length - 1));
      numbers[place] = numbers[place] < 0 && frame === this.length - 1 ? -1 : frame; // the end stays the end
      const text = this.widget("task.frames");
      text.value = numbers.join(", ");
      text.callback?.(text.value);
      this.draw();
    };
    const up = () => {
      window.removeEventListener("pointermove", move, true);
      window.removeEventListener("pointerup", up, true);
      this.node.graph?.change?.();
    };
    window.addEventListener("pointermove", move, true);
    window.addEventListener("pointerup", up, true);
  }
}

/** Show the strip for the one task that has key frames, and only for it. */
function update(node) {
  const wanted = node.widgets?.find((widget) => widget.name === "task")?.value === TASK;
  const index = node.widgets?.findIndex((widget) => widget.name === "lumiere_keyframes") ?? -1;
  if (wanted && index < 0) {
    ourWidget(node, "lumiere_keyframes", HEIGHT, () => new Strip(node));
    if (node.lumiereSheet) strip(node).set(node.lumiereSheet);
  } else if (!wanted && index >= 0) {
    node.removeWidget(node.widgets[index]);
    node.setDirtyCanvas(true, true);
  } else if (wanted) strip(node).draw();
}

function strip(node) {
  return node.widgets.find((widget) => widget.name === "lumiere_keyframes").ours;
}

function follow(node) {
  for (const name of ["task", "task.frames", "length"]) {
    const widget = node.widgets?.find((found) => found.name === name);
    if (!widget || widget.lumiereFollowed) continue;
    widget.lumiereFollowed = true;
    const before = widget.callback;
    widget.callback = function () {
      const result = before?.apply(this, arguments);
      setTimeout(() => { follow(node); update(node); }); // after the host has changed the task's inputs
      return result;
    };
  }
}

app.registerExtension({
  name: "Lumiere.KeyFrames",
  nodeCreated(node) {
    if (node.comfyClass !== "LumiereConditionBuilder") return;
    follow(node);
    onExecuted(node, ({ lumiere_sheet: shown }) => {
      node.lumiereSheet = shown?.[0];
      update(node);
      if (shown && node.widgets.some((widget) => widget.name === "lumiere_keyframes")) strip(node).set(shown[0]);
    });
  },
  loadedGraphNode(node) {
    if (node.comfyClass !== "LumiereConditionBuilder") return;
    follow(node);
    update(node);
  },
});
