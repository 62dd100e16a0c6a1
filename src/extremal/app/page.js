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
  mend();
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });

// What gradio makes hard by keyboard: each radio button has a name of its own, but arrow keys go from one to the next
// where they share it; and Tab stops within an open list, which stays open then.
function mend() {
  for (const radio of document.querySelectorAll(".block[id] input[type=radio]")) {
    const name = radio.closest(".block[id]").id;
    if (radio.name !== name) radio.name = name;
  }
  for (const list of document.querySelectorAll(".options, .options ul")) list.tabIndex = -1;
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Tab" || !event.target.matches?.("input[role=combobox]")) return;
  event.stopPropagation(); // it would open the list
  event.target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
}, true);

// A file that is no picture has no preview; the sentence beside it says why.
for (const [event, shown] of [["error", "hidden"], ["load", ""]]) {
  document.addEventListener(event, ({ target }) => {
    if (target.matches?.("#photo img")) target.style.visibility = shown;
  }, true);
}
