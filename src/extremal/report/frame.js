"use strict";
// Inside another page, as in the app: posts the page's height and the slider's position to the parent, and follows
// the slider positions that the parent sends. A page on its own does nothing here.
(() => {
  if (window.parent === window) return;
  const post = (message) => window.parent.postMessage({ extremal: message }, "*");
  const slider = document.getElementById("area");
  const postHeight = () => post({ height: document.documentElement.offsetHeight });
  postHeight(); // browsers do not observe sizes of frames that are out of sight
  new ResizeObserver(postHeight).observe(document.body);
  if (!slider) return;
  slider.addEventListener("input", () => post({ position: slider.value }));
  window.addEventListener("message", (event) => {
    const position = Number(event.data?.extremal?.position);
    if (event.source !== window.parent || !Number.isFinite(position)) return;
    slider.value = String(position);
    slider.dispatchEvent(new Event("follow"));
  });
})();
