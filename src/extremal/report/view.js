"use strict";
// The slider: reveals the image in order of importance, and shows the measurements at each area.
(() => {
  const find = (name) => document.getElementById(name);
  const data = JSON.parse(find("data").textContent);
  const slider = find("area");
  if (!slider) return;

  // The number of steps between measured areas is constant and their spacing logarithmic, so that each measured area
  // has a position of its own.
  const STEPS_PER_AREA = 40;
  const areas = data.areas.map((row) => row.area);
  const maxPosition = areas.length * STEPS_PER_AREA;
  const maps = data.maps.map((map) => Uint8Array.from(atob(map), (c) => c.charCodeAt(0)));
  const canvas = find("canvas");
  const context = canvas.getContext("2d");
  const photograph = find("photograph");
  const alpha = context.createImageData(canvas.width, canvas.height);
  const ticks = [...document.querySelectorAll(".tick")];
  const tableRows = [...document.querySelectorAll("tr[data-row]")];
  let announcement = 0; // timer

  // The place of a map that a pixel shows: its own, or its column's in the picture of a signal.
  function placeOf(pixel) {
    return data.columns ? pixel % canvas.width : pixel;
  }

  // The row whose map is revealed, the part of the way from the previous row in (0, 1], and the area there.
  function locate(position) {
    const row = Math.min(areas.length - 1, Math.max(0, Math.ceil(position / STEPS_PER_AREA) - 1));
    const part = position / STEPS_PER_AREA - row;
    const previous = row === 0 ? data.lower : areas[row - 1];
    const measured = part === 1;
    return { row, part, measured, area: measured ? areas[row] : previous * Math.pow(areas[row] / previous, part) };
  }

  // The heat map: each place coloured by the smallest area at which it is shown, from yellow to violet.
  const COLOURS = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];
  let heat = null; // the image data, made on first use

  function makeHeat() {
    const pixels = context.createImageData(canvas.width, canvas.height);
    for (let k = 0; k < pixels.data.length / 4; k += 1) {
      const place = placeOf(k);
      const row = maps.findIndex((map) => map[place] <= data.steps);
      if (row < 0) continue;
      const shade = ((row + maps[row][place] / data.steps) / maps.length) * (COLOURS.length - 1);
      const first = Math.min(COLOURS.length - 2, Math.floor(shade));
      for (let c = 0; c < 3; c += 1) {
        pixels.data[4 * k + c] = COLOURS[first][c] + (shade - first) * (COLOURS[first + 1][c] - COLOURS[first][c]);
      }
      pixels.data[4 * k + 3] = 190;
    }
    return pixels;
  }

  function chosenView() {
    return document.querySelector('input[name="view"]:checked').value;
  }

  function draw(position) {
    const view = chosenView();
    find("stage").dataset.view = view;
    photograph.hidden = view !== "heat" && view !== "photograph";
    canvas.hidden = view === "photograph";
    find("heat-note").hidden = view !== "heat";
    if (view === "heat") {
      heat = heat ?? makeHeat();
      context.putImageData(heat, 0, 0);
    } else if (view !== "photograph") {
      reveal(position);
    }
  }

  function canvasLabel(label) {
    const noun = data.columns ? "signal" : "image";
    if (chosenView() === "heat") return `The ${noun}, coloured by the order of importance of its places`;
    const rest = chosenView() === "cut" ? "cut off" : "destroyed and dimmed";
    return data.keeps
      ? `The most important ${label} of the ${noun}; the rest is ${rest}`
      : `The ${noun} without its most important ${label}, which are ${rest}`;
  }

  // The highest level that is revealed.
  function limitAt({ row, area, measured }) {
    const previous = row === 0 ? data.lower : areas[row - 1];
    return measured ? data.steps : Math.floor(((area - previous) / (areas[row] - previous)) * data.steps);
  }

  function reveal(position) {
    const map = maps[position.row];
    const limit = limitAt(position);
    for (let k = 0; k < alpha.data.length / 4; k += 1) {
      alpha.data[4 * k + 3] = map[placeOf(k)] <= limit === data.keeps ? 255 : 0;
    }
    context.globalCompositeOperation = "source-over";
    context.putImageData(alpha, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.drawImage(photograph, 0, 0, canvas.width, canvas.height);
  }

  function formatArea(area) {
    return (100 * area).toPrecision(3) + "\u00a0%";
  }

  function sentence({ row, area, measured }) {
    if (measured) return "Measured. " + data.areas[row].sentence;
    const label = formatArea(area);
    return row === 0
      ? `${label}: below the smallest measured area, ${data.areas[0].label}; no score was measured here.`
      : `${label}: between the measured ${data.areas[row - 1].label} and ${data.areas[row].label}; no score was measured here.`;
  }

  function update() {
    const view = locate(Number(slider.value));
    const text = sentence(view);
    const limit = limitAt(view);
    const shown = maps[view.row].map((level) => level <= limit === data.keeps); // of the map's places, 1 or 0
    canvas.dispatchEvent(new CustomEvent("region", { detail: shown }));
    const label = view.measured ? data.areas[view.row].label : formatArea(view.area);
    draw(view);
    find("readout").textContent = text;
    slider.setAttribute("aria-valuetext", label + (view.measured ? ", measured" : ", not measured"));
    canvas.setAttribute("aria-label", canvasLabel(label));
    const x = data.x.offset + data.x.slope * Math.log(view.area);
    find("marker").setAttribute("x1", x);
    find("marker").setAttribute("x2", x);
    find("marker").setAttribute("visibility", "visible");
    ticks.forEach((tick, k) => tick.setAttribute("aria-pressed", String(view.measured && k === view.row)));
    tableRows.forEach((tableRow, k) => tableRow.classList.toggle("current", view.measured && k === view.row));
    // Screen readers announce the text once the slider rests, not at every step.
    clearTimeout(announcement);
    announcement = setTimeout(() => { find("live").textContent = text; }, 500);
  }

  // Move the slider as a user would, so that listeners are notified.
  function moveTo(position) {
    slider.value = String(position);
    slider.dispatchEvent(new Event("input"));
  }

  function jumpToMeasured(event) {
    const direction = { PageUp: 1, PageDown: -1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    const index = Number(slider.value) / STEPS_PER_AREA;
    moveTo(STEPS_PER_AREA * (direction > 0 ? Math.floor(index) + 1 : Math.ceil(index) - 1));
  }

  // Place ticks below their positions, or wrap them into rows if they would overlap.
  function arrangeTicks() {
    document.querySelector(".ticks").classList.toggle("wrap", slider.clientWidth / ticks.length < 48);
  }

  function start() {
    slider.max = String(maxPosition);
    ticks.forEach((tick, k) => {
      tick.style.left = `${(100 * (k + 1)) / ticks.length}%`;
      tick.addEventListener("click", () => moveTo((k + 1) * STEPS_PER_AREA));
    });
    find("smallest")?.addEventListener("click", () => moveTo((data.smallest + 1) * STEPS_PER_AREA));
    for (const event of ["input", "follow"]) slider.addEventListener(event, update);
    for (const choice of document.querySelectorAll('input[name="view"]')) choice.addEventListener("change", update);
    slider.addEventListener("keydown", jumpToMeasured);
    find("controls").hidden = false;
    arrangeTicks();
    addEventListener("resize", arrangeTicks);
    slider.value = String((data.first + 1) * STEPS_PER_AREA);
    update();
  }

  photograph.decode().then(start, start);
})();
