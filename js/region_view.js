// Drawing what the region painter shows; the painter itself is in region.js.

/** Draw the frame, the shapes over it and the marks of the chosen shape's keys. */
export function drawRegion(painter) {
  const { canvas, sheet, shapes, drag, frame, frames } = painter;
  const scale = 2;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const [left, top, width, height] = painter.area();
  context.fillStyle = "#333";
  context.fillRect(left, top, width, height);
  context.imageSmoothingEnabled = false;
  if (sheet) {
    const number = Math.min(frame, sheet.frames - 1);
    const [x, y] = [(number % sheet.columns) * sheet.width, Math.floor(number / sheet.columns) * sheet.height];
    context.drawImage(sheet.image, x, y, sheet.width, sheet.height, left, top, width, height);
  }
  context.translate(left, top);
  shapes.forEach((shape, number) => {
    const chosen = number === painter.chosen;
    const box = chosen && drag?.moved ? drag.moved : painter.box(shape);
    outline(context, shape.kind, box, shape.points, width, height);
    context.fillStyle = "rgba(255,64,153,.35)";
    context.fill();
    context.strokeStyle = chosen ? "#fc3" : "#fff";
    context.stroke();
    if (chosen) context.strokeRect((box.x + box.w / 2) * width - 4, (box.y + box.h / 2) * height - 4, 8, 8);
  });
  if (drag?.kind === "new" && drag.to) {
    const [[x0, y0], [x1, y1]] = [drag.at, drag.to];
    const box = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, w: Math.abs(x1 - x0), h: Math.abs(y1 - y0) };
    if (painter.tool === "lasso") outline(context, "lasso", { x: 0.5, y: 0.5, w: 1, h: 1 }, drag.points, width, height);
    else outline(context, painter.tool, box, null, width, height);
    context.strokeStyle = "#fc3";
    context.stroke();
  }
  drawMarks(painter.marks, shapes[painter.chosen]?.keys ?? [], frames);
  painter.scrubber.max = frames - 1;
  painter.scrubber.value = frame;
  painter.label.textContent = `${frame} / ${frames - 1}`;
}

function outline(context, kind, box, points, width, height) {
  context.beginPath();
  const [left, top] = [(box.x - box.w / 2) * width, (box.y - box.h / 2) * height];
  if (kind === "box") context.rect(left, top, box.w * width, box.h * height);
  else if (kind === "ellipse") {
    context.ellipse(box.x * width, box.y * height, (box.w / 2) * width, (box.h / 2) * height, 0, 0, 7);
  } else {
    for (const [x, y] of points ?? []) context.lineTo(left + x * box.w * width, top + y * box.h * height);
    context.closePath();
  }
}

function drawMarks(canvas, keys, frames) {
  canvas.width = 400;
  canvas.height = 8;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fc3";
  for (const key of keys) context.fillRect((key.frame / Math.max(1, frames - 1)) * 394, 0, 6, 8);
}
