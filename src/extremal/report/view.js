"use strict";
// The slider: reveals the photograph in the order of importance, and tells what was measured at each area.
(() => {
  const find = (name) => document.getElementById(name);
  const data = JSON.parse(find("data").textContent);
  const slider = find("area");
  if (!slider) return;

  // Equal numbers of steps between measured areas, logarithmic within: each measured area is a position of its own.
  const PER = 40;
  const areas = data.areas.map((row) => row.area);
  const last = areas.length * PER;
  const maps = data.maps.map((map) => Uint8Array.from(atob(map), (c) => c.charCodeAt(0)));
  const canvas = find("canvas");
  const context = canvas.getContext("2d");
  const photograph = find("photograph");
  const alpha = context.createImageData(canvas.width, canvas.height);
  const ticks = [...document.querySelectorAll(".tick")];
  const lines = [...document.querySelectorAll("tbody tr")];
  let speaking = 0;

  // The row whose map is revealed, how far on the way from the row before (0 to 1], and the area there.
  function place(position) {
    const row = Math.min(areas.length - 1, Math.max(0, Math.ceil(position / PER) - 1));
    const part = position / PER - row;
    const before = row === 0 ? data.lower : areas[row - 1];
    const measured = part === 1;
    return { row, part, measured, area: measured ? areas[row] : before * Math.pow(areas[row] / before, part) };
  }

  function reveal({ row, area, measured }) {
    const before = row === 0 ? data.lower : areas[row - 1];
    const share = (area - before) / (areas[row] - before);
    const limit = measured ? data.steps : Math.floor(share * data.steps);
    const map = maps[row];
    for (let k = 0; k < map.length; k += 1) {
      alpha.data[4 * k + 3] = map[k] <= limit === data.keeps ? 255 : 0;
    }
    context.globalCompositeOperation = "source-over";
    context.putImageData(alpha, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.drawImage(photograph, 0, 0, canvas.width, canvas.height);
  }

  function sentence({ row, area, measured }) {
    if (measured) return "Measured. " + data.areas[row].sentence;
    const here = (100 * area).toPrecision(3) + "\u00a0%";
    return row === 0
      ? `${here}: below the smallest measured area, ${data.areas[0].label}; no score was measured here.`
      : `${here}: between the measured ${data.areas[row - 1].label} and ${data.areas[row].label}; no score was measured here.`;
  }

  function update() {
    const now = place(Number(slider.value));
    const text = sentence(now);
    const label = now.measured ? data.areas[now.row].label : (100 * now.area).toPrecision(3) + "\u00a0%";
    reveal(now);
    find("readout").textContent = text;
    slider.setAttribute("aria-valuetext", label + (now.measured ? ", measured" : ", not measured"));
    canvas.setAttribute("aria-label", data.keeps
      ? `The most important ${label} of the image; the rest is destroyed and dimmed`
      : `The image without its most important ${label}, which are destroyed and dimmed`);
    const x = data.x.offset + data.x.slope * Math.log(now.area);
    find("marker").setAttribute("x1", x);
    find("marker").setAttribute("x2", x);
    find("marker").setAttribute("visibility", "visible");
    ticks.forEach((tick, k) => tick.setAttribute("aria-pressed", String(now.measured && k === now.row)));
    lines.forEach((line, k) => line.classList.toggle("current", now.measured && k === now.row));
    // Said aloud once the slider rests, not at every step.
    clearTimeout(speaking);
    speaking = setTimeout(() => { find("live").textContent = text; }, 500);
  }

  // As if a hand had moved the slider: whoever follows it hears of it.
  function move(position) {
    slider.value = String(position);
    slider.dispatchEvent(new Event("input"));
  }

  function jump(event) {
    const direction = { PageUp: 1, PageDown: -1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    const at = Number(slider.value) / PER;
    move(PER * (direction > 0 ? Math.floor(at) + 1 : Math.ceil(at) - 1));
  }

  // Ticks stand below their positions, or in lines where they would run into each other.
  function arrange() {
    document.querySelector(".ticks").classList.toggle("wrap", slider.clientWidth / ticks.length < 48);
  }

  function start() {
    slider.max = String(last);
    ticks.forEach((tick, k) => {
      tick.style.left = `${(100 * (k + 1)) / ticks.length}%`;
      tick.addEventListener("click", () => move((k + 1) * PER));
    });
    find("smallest")?.addEventListener("click", () => move((data.smallest + 1) * PER));
    for (const event of ["input", "follow"]) slider.addEventListener(event, update);
    slider.addEventListener("keydown", jump);
    find("controls").hidden = false;
    canvas.hidden = false;
    photograph.hidden = true;
    arrange();
    addEventListener("resize", arrange);
    slider.value = String(((data.smallest ?? areas.length - 1) + 1) * PER);
    update();
  }

  photograph.decode().then(start, start);
})();
