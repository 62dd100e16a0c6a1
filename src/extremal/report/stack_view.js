"use strict";
// The sliders of a clip or volume: one over its frames or slices, one over the measured areas.
(() => {
  const find = (name) => document.getElementById(name);
  const data = JSON.parse(find("data").textContent);
  const stack = data.stack;
  const slider = find("area");
  const frameSlider = find("frame");
  const canvas = find("canvas");
  const context = canvas.getContext("2d");
  const photograph = find("photograph");
  const ticks = [...document.querySelectorAll(".tick")];
  const tableRows = [...document.querySelectorAll("tr[data-row]")];
  const images = stack.frames.map((uri) => Object.assign(new Image(), { src: uri }));
  const [width, height] = stack.grid;
  const grid = Object.assign(document.createElement("canvas"), { width, height });
  const gridContext = grid.getContext("2d");
  const COLOURS = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];
  let announcement = 0; // timer

  // The cut mask of an area in a frame: one byte per place.
  function readMask(row, frame) {
    const mask = new Uint8Array(width * height);
    let place = 0;
    stack.runs[row][frame].forEach((length, k) => {
      if (k % 2) mask.fill(1, place, place + length);
      place += length;
    });
    return mask;
  }

  // Draw bytes RGBA of the grid of the mask over the whole canvas.
  function drawGrid(colourOf, operation) {
    const pixels = gridContext.createImageData(width, height);
    for (let k = 0; k < width * height; k += 1) {
      const colour = colourOf(k);
      if (colour) pixels.data.set(colour, 4 * k);
    }
    gridContext.putImageData(pixels, 0, 0);
    context.globalCompositeOperation = operation;
    context.imageSmoothingEnabled = false;
    context.drawImage(grid, 0, 0, canvas.width, canvas.height);
  }

  function isBorder(mask, k) {
    if (!mask[k]) return false;
    const x = k % width;
    return (x > 0 && !mask[k - 1]) || (x < width - 1 && !mask[k + 1])
      || (k >= width && !mask[k - width]) || (k < width * (height - 1) && !mask[k + width]);
  }

  function drawRegion(row, frame, outlined) {
    const mask = readMask(row, frame);
    drawGrid((k) => (Boolean(mask[k]) === stack.keeps ? [0, 0, 0, 255] : null), "source-over");
    context.globalCompositeOperation = "source-in";
    context.drawImage(images[frame], 0, 0, canvas.width, canvas.height);
    const part = (from) => parseInt(stack.colour.slice(from, from + 2), 16);
    const colour = [part(1), part(3), part(5), 255];
    if (outlined) drawGrid((k) => (isBorder(mask, k) ? colour : null), "source-over");
  }

  function drawHeat(frame) {
    const masks = stack.runs.map((_, row) => readMask(row, frame));
    drawGrid((k) => {
      const row = masks.findIndex((mask) => mask[k]);
      if (row < 0) return null;
      const place = masks.length > 1 ? (row / (masks.length - 1)) * (COLOURS.length - 1) : 0;
      return [...COLOURS[Math.round(place)], 170];
    }, "source-over");
  }

  function draw(row, frame) {
    const view = document.querySelector('input[name="view"]:checked').value;
    find("stage").dataset.view = view;
    photograph.src = stack.frames[frame];
    photograph.alt = stack.names[frame];
    canvas.hidden = view === "photograph";
    find("heat-note").hidden = view !== "heat";
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (view === "heat") drawHeat(frame);
    else if (view !== "photograph") drawRegion(row, frame, view === "dimmed");
    const label = data.areas[row].label;
    canvas.setAttribute("aria-label", view === "heat"
      ? `The ${stack.names[frame]}, coloured by the smallest area that contains each place`
      : `The ${stack.names[frame]}: the region of ${label}, ${stack.keeps ? "kept" : "removed"}`);
  }

  function formatShare(share) {
    return (100 * share).toPrecision(share >= 0.1 ? 3 : 2) + "\u00a0%";
  }

  function update() {
    const row = Number(slider.value);
    const frame = Number(frameSlider.value);
    const index = stack.indices[frame];
    const share = stack.shares[row][index];
    const covered = share ? `the region covers ${formatShare(share)} of it` : "the region covers none of it";
    const name = stack.names[frame];
    draw(row, frame);
    const place = `${name[0].toUpperCase()}${name.slice(1)}: ${covered}.`;
    const text = "Measured. " + data.areas[row].sentence;
    find("place").textContent = place;
    find("readout").textContent = text;
    find("shares").setAttribute("points", stack.lines[row]);
    const steps = Math.max(1, stack.total - 1);
    for (const end of ["x1", "x2"]) {
      find("frame-marker").setAttribute(end, (stack.chart.width * index) / steps);
      find("marker").setAttribute(end, data.x.offset + data.x.slope * Math.log(data.areas[row].area));
    }
    find("marker").setAttribute("visibility", "visible");
    frameSlider.setAttribute("aria-valuetext", `${name}, ${covered}`);
    slider.setAttribute("aria-valuetext", `${data.areas[row].label}, measured`);
    ticks.forEach((tick, k) => tick.setAttribute("aria-pressed", String(k === row)));
    tableRows.forEach((tableRow, k) => tableRow.classList.toggle("current", k === row));
    // Screen readers announce the text once the slider rests, not at every step.
    clearTimeout(announcement);
    announcement = setTimeout(() => { find("live").textContent = `${place} ${text}`; }, 500);
  }

  // Move the slider as a user would, so that listeners are notified.
  function moveTo(position) {
    slider.value = String(position);
    slider.dispatchEvent(new Event("input"));
  }

  // Place ticks below their positions, or wrap them into rows if they would overlap.
  function arrangeTicks() {
    const overlaps = slider.clientWidth / ticks.length < 48;
    document.querySelector(".ticks").classList.toggle("wrap", overlaps || ticks.length === 1);
  }

  function start() {
    ticks.forEach((tick, k) => {
      tick.style.left = `${(100 * k) / Math.max(1, ticks.length - 1)}%`;
      tick.addEventListener("click", () => moveTo(k));
    });
    find("smallest")?.addEventListener("click", () => moveTo(data.smallest));
    for (const event of ["input", "follow"]) slider.addEventListener(event, update);
    frameSlider.addEventListener("input", update);
    for (const choice of document.querySelectorAll('input[name="view"]')) choice.addEventListener("change", update);
    find("controls").hidden = false;
    arrangeTicks();
    addEventListener("resize", arrangeTicks);
    update();
  }

  Promise.allSettled(images.map((image) => image.decode())).then(start);
})();
