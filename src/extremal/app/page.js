"use strict";
// The reports stand in frames: each tells how high it is, and moves the sliders of those beside it.
window.addEventListener("message", (event) => {
  const told = event.data?.extremal;
  const frames = [...document.querySelectorAll("iframe.extremal-view")];
  const from = frames.find((frame) => frame.contentWindow === event.source);
  if (!told || !from) return;
  const height = Number(told.height);
  const position = Number(told.position);
  if (height > 0) from.style.height = `${Math.min(Math.ceil(height), 20000)}px`;
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

let waiting = false;
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#explain")) {
    waiting = true;
    bring("status", "center");
  }
});

// When the pictures on the way come first, and as soon as the answer is there: not when its frame tells how high it is,
// since out of sight a frame may tell nothing. What stands there already may be changed instead of replaced.
new MutationObserver((changes) => {
  const touched = changes.flatMap((change) => (change.type === "attributes" ? [change.target] : [...change.addedNodes]));
  const holds = (what) => touched.some((node) => node.matches?.(what) || node.querySelector?.(what));
  if (holds("iframe.extremal-view") || (waiting && holds(".extremal-tiles"))) {
    waiting = false;
    bring("status", "start");
  }
  group();
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });

// Gradio gives each radio button a name of its own; arrow keys go from one to the next where they share it.
function group() {
  for (const radio of document.querySelectorAll(".block[id] input[type=radio]")) {
    const name = radio.closest(".block[id]").id;
    if (radio.name !== name) radio.name = name;
  }
}

// A file that is no picture has no preview; the sentence beside it says why.
for (const [event, shown] of [["error", "hidden"], ["load", ""]]) {
  document.addEventListener(event, ({ target }) => {
    if (target.matches?.("#photo img")) target.style.visibility = shown;
  }, true);
}
