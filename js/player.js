// A player for the frames of a sprite sheet: play and pause, loop or there and back, a scrubber; as a clip, as an x–t
// slice (one row of pixels over time: flicker, jumps and seams show as edges) or as a strip.
import { button, decode, element } from "./graph.js";
import { word } from "./words.js";

const VIEWS = ["clip", "slice", "strip"];

export class Player {
  constructor() {
    this.sheet = null; // {image, frames, columns, width, height, fps, windows, window}
    this.frame = 0;
    this.direction = 1;
    this.playing = true;
    this.pingPong = false;
    this.view = "clip";
    this.row = 0.5; // of the picture's height, for the slice
    this.canvas = element("canvas", { style: "width:100%;flex:1;min-height:0;object-fit:contain;image-rendering:pixelated" });
    this.canvas.addEventListener("click", (event) => this.clicked(event));
    this.scrubber = element("input", {
      type: "range", min: 0, max: 0, value: 0, style: "flex:1;min-width:0",
      onpointerdown: (event) => event.stopPropagation(),
      oninput: () => { this.pause(); this.go(Number(this.scrubber.value)); },
    });
    this.play = button("pi-pause", word("play", "Play or pause"), () => (this.playing ? this.pause() : this.resume()));
    this.turn = button("pi-refresh", word("loop", "Loop, or play there and back"), () => this.toggleTurn());
    this.look = button("pi-image", word("view", "Clip, x–t slice or strip of frames"), () => this.nextView());
    this.label = element("span", { style: "font-size:11px;opacity:.7;white-space:nowrap" });
    this.bar = element("canvas", { style: "width:100%;height:0;flex:none" });
    this.element = element(
      "div",
      { class: "lumiere-player", tabindex: 0, style: "display:flex;flex-direction:column;gap:2px;width:100%;height:100%;min-height:0;outline:0",
        onkeydown: (event) => this.pressed(event) },
      this.canvas,
      this.bar,
      element("div", { style: "display:flex;gap:4px;align-items:center;flex:none" }, this.play, this.turn, this.look, this.scrubber, this.label),
    );
    this.timer = setInterval(() => this.tick(), 20);
    this.shown = performance.now();
  }

  /** Show another sheet; the place in the clip is kept. */
  set(sheet) {
    decode(sheet, (decoded) => {
      this.sheet = decoded;
      this.scrubber.max = sheet.frames - 1;
      this.label.textContent = sheet.total ? `${sheet.step}/${sheet.total}` : `${sheet.frames}`;
      this.go(Math.min(this.frame, sheet.frames - 1));
      this.drawWindows();
    });
  }

  tick() {
    const now = performance.now();
    if (!this.sheet || !this.playing || now - this.shown < 1000 / (this.sheet.fps || 16)) return;
    if (!this.element.isConnected || !this.element.offsetParent) return;
    this.shown = now;
    const last = this.sheet.frames - 1;
    let next = this.frame + this.direction;
    if (next > last || next < 0) {
      if (this.pingPong) this.direction = -this.direction;
      else this.direction = 1;
      next = this.pingPong ? Math.max(0, Math.min(last, this.frame + this.direction)) : 0;
    }
    this.go(next);
  }

  go(frame) {
    this.frame = frame;
    this.scrubber.value = frame;
    if (this.sheet) this[`draw_${this.view}`](this.canvas.getContext("2d"));
    this.onframe?.(frame);
  }

  pause() {
    this.playing = false;
    this.play.firstChild.className = "pi pi-play";
  }

  resume() {
    this.playing = true;
    this.play.firstChild.className = "pi pi-pause";
  }

  toggleTurn() {
    this.pingPong = !this.pingPong;
    this.direction = 1;
    this.turn.firstChild.className = this.pingPong ? "pi pi-arrows-h" : "pi pi-refresh";
  }

  nextView() {
    this.view = VIEWS[(VIEWS.indexOf(this.view) + 1) % VIEWS.length];
    this.go(this.frame);
  }

  pressed(event) {
    if (event.key === " ") this.playing ? this.pause() : this.resume();
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      this.pause();
      const count = this.sheet?.frames ?? 1;
      this.go((this.frame + (event.key === "ArrowRight" ? 1 : count - 1)) % count);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  clicked(event) {
    const box = this.canvas.getBoundingClientRect();
    if (this.view === "clip") this.row = Math.min(0.999, Math.max(0, (event.clientY - box.top) / box.height));
    this.element.focus();
  }

  cell(frame) {
    const { columns, width, height } = this.sheet;
    return [(frame % columns) * width, Math.floor(frame / columns) * height];
  }

  resize(width, height) {
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  draw_clip(context) {
    const { image, width, height } = this.sheet;
    this.resize(width, height);
    context.drawImage(image, ...this.cell(this.frame), width, height, 0, 0, width, height);
  }

  draw_slice(context) {
    const { image, frames, width, height } = this.sheet;
    this.resize(width, frames);
    for (let frame = 0; frame < frames; frame++) {
      const [x, y] = this.cell(frame);
      context.drawImage(image, x, y + Math.floor(this.row * height), width, 1, 0, frame, width, 1);
    }
    context.fillStyle = "rgba(255,255,255,.6)";
    context.fillRect(0, this.frame, width, 1);
  }

  draw_strip(context) {
    const { image, frames, width, height } = this.sheet;
    const count = Math.min(8, frames);
    this.resize(width * 4, height * Math.ceil(count / 4));
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let place = 0; place < count; place++) {
      const frame = Math.round((place * (frames - 1)) / Math.max(1, count - 1));
      context.drawImage(image, ...this.cell(frame), width, height, (place % 4) * width, Math.floor(place / 4) * height, width, height);
    }
  }

  /** A line for each window over the frames, as Python planned them; the one at work is bright. */
  drawWindows() {
    const { windows, window: current, frames } = this.sheet;
    this.bar.style.height = windows ? "14px" : "0";
    if (!windows) return;
    this.bar.width = 400;
    this.bar.height = 14;
    const context = this.bar.getContext("2d");
    context.clearRect(0, 0, 400, 14);
    windows.forEach(([first, last], number) => {
      context.fillStyle = number === current ? "#fc3" : "#678";
      const spans = first <= last ? [[first, last]] : [[first, frames - 1], [0, last]]; // over the loop's end
      for (const [from, to] of spans) {
        context.fillRect((from / frames) * 400, (number % 2) * 7 + 1, ((to - from + 1) / frames) * 400 - 1, 5);
      }
    });
  }

  destroy() {
    clearInterval(this.timer);
  }
}
