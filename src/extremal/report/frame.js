"use strict";
// Within another page, as in the app: tells it how high this one is and where the slider stands, and follows a slider
// beside it. Alone, this does nothing.
(() => {
  if (window.parent === window) return;
  const tell = (what) => window.parent.postMessage({ extremal: what }, "*");
  const slider = document.getElementById("area");
  const measure = () => tell({ height: document.documentElement.offsetHeight });
  measure(); // out of sight, a browser does not tell of sizes
  new ResizeObserver(measure).observe(document.body);
  if (!slider) return;
  slider.addEventListener("input", () => tell({ position: slider.value }));
  window.addEventListener("message", (event) => {
    const position = Number(event.data?.extremal?.position);
    if (event.source !== window.parent || !Number.isFinite(position)) return;
    slider.value = String(position);
    slider.dispatchEvent(new Event("follow"));
  });
})();
