// Lumiere Moving Region: draw boxes, ellipses and lassos with key frames over the frames of a clip. What is drawn lies
// in the node's `region` text; the masks are Python's.
import { app } from "../../scripts/app.js";
import { button, decode, element, onExecuted, ourWidget } from "./graph.js";
import { Region } from "./region_data.js";
import { drawRegion } from "./region_view.js";
import { word } from "./words.js";

const HEIGHT = 320;
const clamp = (value) => Math.min(1, Math.max(0, value));

class Painter extends Region {
  constructor(node) {
    super(node);
    Object.assign(this, { tool: "box", drag: null });
    const tools = [["box", "pi-stop"], ["ellipse", "pi-circle"], ["lasso", "pi-pencil"]];
    this.tools = tools.map(([tool, icon]) => [tool, button(icon, word(tool, tool), () => this.use(tool))]);
    this.canvas = element("canvas", {
      tabindex: 0, class: "lumiere-region", style: "width:100%;flex:1;min-height:0;touch-action:none;cursor:crosshair;outline:0",
      onpointerdown: (event) => this.down(event), onpointermove: (event) => this.move(event), onpointerup: () => this.up(),
      onkeydown: (event) => this.pressed(event),
    });
    this.canvas.type = "textarea"; // the host leaves Ctrl-Z to an element that says so
    this.scrubber = element("input", {
      type: "range", min: 0, value: 0, style: "flex:1;min-width:0",
      onpointerdown: (event) => event.stopPropagation(), oninput: () => this.go(Number(this.scrubber.value)),
    });
    this.marks = element("canvas", { style: "width:100%;height:8px;flex:none" });
    this.label = element("span", { style: "font-size:11px;opacity:.7" });
    const row = "display:flex;gap:4px;align-items:center;flex:none";
    this.element = element(
      "div", { style: "display:flex;flex-direction:column;gap:2px;width:100%;height:100%;min-height:0" },
      element("div", { style: row }, ...this.tools.map(([, made]) => made),
        button("pi-undo", word("undo", "Undo (Ctrl-Z)"), () => this.undo()),
        button("pi-reply", word("redo", "Redo (Ctrl-Y)"), () => this.redo()),
        button("pi-key", word("removeKey", "Remove the shape's key at this frame (K)"), () => this.removeKey()),
        button("pi-trash", word("removeShape", "Remove the shape (Delete)"), () => this.removeShape())),
      this.canvas, this.marks, element("div", { style: row }, this.scrubber, this.label));
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.canvas);
    this.use("box");
  }

  use(tool) {
    this.tool = tool;
    for (const [name, made] of this.tools) made.style.outline = name === tool ? "1px solid #fc3" : "";
  }

  /** Show the frames of the clip that the node was given. */
  set(sheet) {
    decode(sheet, (decoded) => { this.sheet = decoded; this.draw(); });
  }

  go(frame) {
    this.frame = Math.max(0, Math.min(this.frames - 1, frame));
    this.draw();
  }

  /** The part of the canvas that shows the picture: [left, top, width, height], in its own pixels. */
  area() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const ratio = this.sheet ? this.sheet.width / this.sheet.height : this.value("width") / this.value("height") || 1;
    const width = Math.min(w, h * ratio);
    return [(w - width) / 2, (h - width / ratio) / 2, width, width / ratio];
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top, width, height] = this.area();
    return [((event.clientX - box.left) * (this.canvas.clientWidth / box.width) - left) / width,
      ((event.clientY - box.top) * (this.canvas.clientHeight / box.height) - top) / height].map(clamp);
  }

  down(event) {
    event.stopPropagation();
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.point(event);
    const shapes = this.shapes;
    for (let number = shapes.length - 1; number >= 0; number--) {
      const box = this.box(shapes[number]);
      const corner = Math.hypot(box.x + box.w / 2 - at[0], box.y + box.h / 2 - at[1]) < 0.04;
      if (!corner && (Math.abs(at[0] - box.x) > box.w / 2 || Math.abs(at[1] - box.y) > box.h / 2)) continue;
      this.chosen = number;
      this.drag = { kind: corner ? "size" : "place", at, box };
      return this.draw();
    }
    this.drag = { kind: "new", at, points: [at] };
  }

  move(event) {
    if (!this.drag) return;
    const to = this.point(event);
    const { kind, at, box } = this.drag;
    this.drag.to = to;
    if (kind === "new") this.drag.points.push(to);
    else if (kind === "place") this.drag.moved = { ...box, x: box.x + to[0] - at[0], y: box.y + to[1] - at[1] };
    else {
      const [left, top] = [box.x - box.w / 2, box.y - box.h / 2];
      const [w, h] = [Math.max(0.02, to[0] - left), Math.max(0.02, to[1] - top)];
      this.drag.moved = { w, h, x: left + w / 2, y: top + h / 2 };
    }
    this.draw();
  }

  up() {
    const drag = this.drag;
    this.drag = null;
    if (drag?.moved) this.change((shapes) => this.key(shapes[this.chosen], drag.moved));
    if (drag?.kind !== "new" || drag.points.length < 3) return this.draw();
    const points = this.tool === "lasso" ? drag.points : [drag.at, drag.to];
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    const [left, top, w, h] = [Math.min(...xs), Math.min(...ys), Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)];
    if (w < 0.01 || h < 0.01) return this.draw();
    const shape = { kind: this.tool, keys: [] };
    if (this.tool === "lasso") shape.points = points.map(([x, y]) => [(x - left) / w, (y - top) / h].map((value) => Number(value.toFixed(4))));
    this.key(shape, { x: left + w / 2, y: top + h / 2, w, h });
    this.chosen = this.shapes.length;
    this.change((shapes) => shapes.push(shape));
  }

  pressed(event) {
    const pressed = event.key.toLowerCase();
    const shift = { arrowright: 1, arrowleft: -1 }[pressed];
    if ((event.ctrlKey || event.metaKey) && pressed === "z") event.shiftKey ? this.redo() : this.undo();
    else if ((event.ctrlKey || event.metaKey) && pressed === "y") this.redo();
    else if (pressed === "delete" || pressed === "backspace") this.removeShape();
    else if (pressed === "k") this.removeKey();
    else if (pressed === "escape") this.drag = null;
    else if (shift) this.go(this.frame + shift);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    drawRegion(this);
  }

  destroy() {
    this.watch.disconnect();
  }
}

app.registerExtension({
  name: "Lumiere.Region",
  nodeCreated(node) {
    if (node.comfyClass !== "LumiereRegion") return;
    const painter = ourWidget(node, "lumiere_region", HEIGHT, () => new Painter(node));
    onExecuted(node, (output) => output.lumiere_sheet && painter.set(output.lumiere_sheet[0]));
    for (const name of ["region", "width", "height", "length"]) {
      const widget = node.widgets.find((found) => found.name === name);
      const before = widget.callback;
      widget.callback = function () {
        before?.apply(this, arguments);
        painter.draw();
      };
    }
  },
  loadedGraphNode(node) {
    node.widgets?.find((widget) => widget.name === "lumiere_region")?.ours.draw();
  },
});
