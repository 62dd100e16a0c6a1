"use strict";
// The reports stand in frames: each tells how high it is, and moves the sliders of those beside it.
window.addEventListener("message", (event) => {
  const told = event.data?.extremal;
  const frames = [...document.querySelectorAll("iframe.extremal-view")];
  const from = frames.find((frame) => frame.contentWindow === event.source);
  if (!told || !from) return;
  const height = Number(told.height);
  const position = Number(told.position);
  if (height > 0) {
    from.style.height = `${Math.min(Math.ceil(height), 20000)}px`;
    if (!from.dataset.seen && frames.every((frame) => !frame.dataset.seen)) bring("status", "start");
    from.dataset.seen = "yes";
  }
  if (!Number.isFinite(position)) return;
  for (const frame of frames) {
    if (frame !== from) frame.contentWindow.postMessage({ extremal: { position } }, "*");
  }
});

// On a small screen the answer stands below the choices: brought to where it can be read, unless it is there.
function bring(name, block) {
  const place = document.getElementById(name);
  const top = place?.getBoundingClientRect().top;
  if (place === null || (top >= 0 && top < window.innerHeight / 3)) return;
  place.scrollIntoView({ block });
}

document.addEventListener("click", (event) => {
  if (event.target.closest?.("#explain")) bring("status", "center");
});
