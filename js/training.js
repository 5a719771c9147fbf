// A panel at the bottom while Train Lumiere Temporal Layers runs: the loss curve, the newest samples, the time left.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { element } from "./graph.js";
import { word, wordsReady } from "./words.js";

const TAB = "lumiere-training";
const SMOOTH = 20; // steps of the mean that is drawn over the single losses

const state = { prompt: null, news: null, losses: [], samples: null };
let panel = null;

function duration(seconds) {
  if (seconds == null) return "–";
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (h ? `${h}:${String(m).padStart(2, "0")}` : m) + `:${String(s).padStart(2, "0")}`;
}

function render(container) {
  const text = element("div", { style: "font-size:13px;padding:4px 8px", class: "lumiere-training-text" });
  const curve = element("canvas", { style: "flex:2;min-width:0;height:100%", class: "lumiere-training-curve" });
  const samples = element("img", { style: "flex:1;min-width:0;height:100%;object-fit:contain;image-rendering:pixelated", alt: "" });
  const row = element("div", { style: "display:flex;flex:1;min-height:0;gap:8px;padding:0 8px 8px" }, curve, samples);
  container.replaceChildren(element("div", { style: "display:flex;flex-direction:column;height:100%" }, text, row));
  panel = { text, curve, samples };
  draw();
}

function draw() {
  if (!panel) return;
  const { news, losses } = state;
  if (!news) {
    panel.text.textContent = word("noTraining", "No training has run since this page was opened.");
    return;
  }
  const mean = losses.slice(-SMOOTH).reduce((sum, [, loss]) => sum + loss, 0) / Math.max(1, Math.min(SMOOTH, losses.length));
  panel.text.textContent =
    `${news.name} · ${word("step", "step")} ${news.step} / ${news.steps} · ` +
    `${word("loss", "loss")} ${mean.toPrecision(3)} · ${word("timeLeft", "time left")} ${duration(news.left)}`;
  if (state.samples) panel.samples.src = `data:image/jpeg;base64,${state.samples}`;
  drawCurve(panel.curve, losses, news.steps);
}

function drawCurve(canvas, losses, steps) {
  const [width, height] = [(canvas.width = canvas.clientWidth * 2 || 800), (canvas.height = canvas.clientHeight * 2 || 300)];
  const context = canvas.getContext("2d");
  const values = losses.map(([, loss]) => loss).filter((loss) => loss > 0);
  if (!values.length) return;
  const logs = values.map(Math.log);
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const place = ([step, loss]) => [(step / steps) * width, height - 10 - ((Math.log(loss) - low) / (high - low || 1)) * (height - 20)];
  const line = (points, colour, thick) => {
    context.beginPath();
    context.strokeStyle = colour;
    context.lineWidth = thick;
    for (const point of points) context.lineTo(...place(point));
    context.stroke();
  };
  line(losses, "rgba(120,160,200,.4)", 1);
  let sum = 0;
  line(
    losses.map(([step, loss], number) => {
      sum += loss - (number >= SMOOTH ? losses[number - SMOOTH][1] : 0);
      return [step, sum / Math.min(SMOOTH, number + 1)];
    }),
    "#fc3", 3,
  );
  context.fillStyle = "#aaa";
  context.font = "20px sans-serif";
  context.fillText(Math.exp(high).toPrecision(3), 4, 22);
  context.fillText(Math.exp(low).toPrecision(3), 4, height - 8);
}

app.registerExtension({
  name: "Lumiere.Training",
  bottomPanelTabs: [{ id: TAB, title: "Lumiere training", type: "custom", render, destroy: () => { panel = null; } }],
  async setup() {
    await wordsReady;
    api.addEventListener("lumiere.training", ({ detail }) => {
      if (detail.prompt !== state.prompt) {
        Object.assign(state, { prompt: detail.prompt, losses: [], samples: null });
        const bottom = app.extensionManager.bottomPanel;
        if (bottom.activeBottomPanelTab?.id !== TAB) bottom.toggleBottomPanelTab(TAB);
      }
      state.news = detail;
      state.losses.push(...detail.losses);
      state.samples = detail.samples ?? state.samples;
      draw();
    });
  },
});
