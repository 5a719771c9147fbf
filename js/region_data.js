// What the region painter draws, as the node's `region` text: reading, changing and undoing it.
const PLACE = ["x", "y", "w", "h"];
const round = (value) => Math.round(value * 10000) / 10000;

export class Region {
  constructor(node) {
    Object.assign(this, { node, frame: 0, chosen: 0, undone: [], done: [], sheet: null });
  }

  get text() { return this.node.widgets.find((widget) => widget.name === "region"); }
  value(name) { return this.node.widgets.find((widget) => widget.name === name)?.value; }
  get frames() { return this.sheet?.frames ?? this.value("length") ?? 1; }
  get shapes() {
    try { return JSON.parse(this.text.value || "{}").shapes ?? []; } catch { return []; }
  }

  write(shapes) {
    this.text.value = JSON.stringify({ shapes });
    this.text.callback?.(this.text.value);
    this.node.graph?.change?.();
    this.draw();
  }

  /** Change the shapes by one step that Undo takes back. */
  change(act) {
    this.done.push(this.text.value);
    this.undone = [];
    const shapes = this.shapes;
    act(shapes);
    this.write(shapes);
  }

  undo() { this.swap(this.done, this.undone); }
  redo() { this.swap(this.undone, this.done); }
  swap(from, to) {
    if (!from.length) return;
    to.push(this.text.value);
    this.text.value = from.pop();
    this.write(this.shapes);
  }

  /** Where a shape is at the frame: between its keys evenly, as Python does it. */
  box(shape) {
    const keys = shape.keys;
    const after = keys.findIndex((key) => key.frame >= this.frame);
    if (after <= 0) return keys.at(after === 0 ? 0 : -1);
    const [a, b] = [keys[after - 1], keys[after]];
    const share = (this.frame - a.frame) / (b.frame - a.frame);
    return Object.fromEntries(PLACE.map((name) => [name, a[name] + (b[name] - a[name]) * share]));
  }

  key(shape, box) {
    shape.keys = shape.keys.filter((key) => key.frame !== this.frame);
    shape.keys.push({ frame: this.frame, ...Object.fromEntries(PLACE.map((n) => [n, round(box[n])])) });
    shape.keys.sort((a, b) => a.frame - b.frame);
  }

  removeKey() {
    const shape = this.shapes[this.chosen];
    if (!shape || shape.keys.length < 2 || !shape.keys.some((key) => key.frame === this.frame)) return;
    this.change((shapes) => { shapes[this.chosen].keys = shape.keys.filter((key) => key.frame !== this.frame); });
  }

  removeShape() {
    if (this.shapes[this.chosen]) this.change((shapes) => shapes.splice(this.chosen, 1));
    this.chosen = Math.max(0, this.chosen - 1);
  }
}
