// Finding the node that a message is about, also inside of subgraphs, giving it a widget of ours, and what widgets are made of.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const graphs = new Map(); // prompt id to the id of the graph that was open when it began

api.addEventListener("execution_start", ({ detail }) => {
  graphs.set(detail.prompt_id, root()?.id);
  if (graphs.size > 100) graphs.delete(graphs.keys().next().value);
});

function root() {
  return app.rootGraph ?? app.graph;
}

/** Return the node of a path such as "12:5" in the open workflow, or null if the prompt belongs to another one. */
export function findNode(path, prompt) {
  const began = graphs.get(prompt);
  if (prompt && began && began !== root().id) return null;
  let graph = root();
  let node = null;
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(isNaN(id) ? id : Number(id)) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/** Let a function see what a node showed after each run of it. */
export function onExecuted(node, listener) {
  const before = node.onExecuted;
  node.onExecuted = function (output) {
    before?.apply(this, arguments);
    listener(output ?? {});
  };
}

/** Make a node as high as its widgets need. */
export function fit(node) {
  node.setSize?.([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas?.(true, true);
}

/** Add a widget of ours at the end of a node, once; `make` returns {element, destroy, height}, all but the first optional. */
export function ourWidget(node, name, height, make, options = {}) {
  const found = node.widgets?.find((widget) => widget.name === name);
  if (found) return found.ours;
  const ours = make();
  const widget = node.addDOMWidget(name, name, ours.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => ours.height ?? height,
    getValue: () => "",
    setValue: () => {},
    ...options,
  });
  widget.ours = ours;
  widget.serialize = options.serialize ?? false;
  const removed = node.onRemoved;
  node.onRemoved = function () {
    ours.destroy?.();
    removed?.apply(this, arguments);
  };
  fit(node);
  return ours;
}

/** Decode a sheet of frames that Python sent, and hand it on with its picture. */
export function decode(sheet, use) {
  const image = new Image();
  image.onload = () => use({ ...sheet, image });
  image.src = `data:${sheet.type};base64,${sheet.sheet}`;
}

/** Make an element with a class, attributes and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Make a small button with one of the page's own icons; clicks do not reach the node below. */
export function button(icon, title, onclick) {
  const made = element("button", {
    type: "button",
    title,
    "aria-label": title,
    style:
      "border:0;border-radius:4px;padding:2px 6px;cursor:pointer;font-size:12px;" +
      "background:var(--comfy-input-bg,#222);color:var(--input-text,#ddd)",
    onpointerdown: (event) => event.stopPropagation(),
    onclick,
  });
  made.append(icon.startsWith("pi-") ? element("i", { class: `pi ${icon}` }) : icon);
  return made;
}
