"use strict";
// The reports are in frames: each one reports its height, and moves the sliders of the others.
window.addEventListener("message", (event) => {
  const message = event.data?.extremal;
  const frames = [...document.querySelectorAll("iframe.extremal-view")];
  const sender = frames.find((frame) => frame.contentWindow === event.source);
  if (!message || !sender) return;
  const height = Number(message.height);
  const position = Number(message.position);
  if (height > 0) {
    sender.style.height = `${Math.min(Math.ceil(height), 20000)}px`;
    if (growing) scrollToElement("status", "start");
    growing = false;
  }
  if (!Number.isFinite(position)) return;
  for (const frame of frames) {
    if (frame !== sender) frame.contentWindow.postMessage({ extremal: { position } }, "*");
  }
});

// On a small screen the results are below the options: scroll to them unless they are in view.
const isWide = () => window.innerWidth >= 1024;
function scrollToElement(id, block) {
  const element = document.getElementById(id);
  const top = element?.getBoundingClientRect().top;
  if (element === null || (top >= 0 && top < window.innerHeight * (isWide() ? 0.6 : 1 / 3))) return;
  element.scrollIntoView({ block });
}

let waiting = false; // for the first previews
let growing = false; // results that have appeared, and whose frames have no height yet: the page may be too short
let expecting = false; // results that the visitor has asked for, unlike those of an opened page
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#explain, [data-show], #compare")) expecting = true;
  if (event.target.closest?.("#explain")) {
    waiting = true;
    scrollToElement("status", "center");
  }
});

// Scroll when the first previews appear, and when the results appear. This does not wait for the height of the frames:
// a frame that is out of view may not report it. Gradio may change existing elements instead of replacing them.
new MutationObserver((changes) => {
  const changed = changes.flatMap((change) => (change.type === "attributes" ? [change.target] : [...change.addedNodes]));
  const contains = (selector) => changed.some((node) => node.matches?.(selector) || node.querySelector?.(selector));
  const hasResults = expecting && contains("iframe.extremal-view");
  if (hasResults || (waiting && contains(".extremal-tiles"))) {
    waiting = false;
    if (hasResults) {
      expecting = false;
      growing = true;
    }
    scrollToElement("status", "start");
  }
  fixKeyboardUse();
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });

// Keyboard use of gradio's fields: arrow keys move between radio buttons only if these share a name, which gradio's do
// not; and Tab stops inside an open list, which then stays open.
function fixKeyboardUse() {
  for (const radio of document.querySelectorAll(".block[id] input[type=radio]")) {
    const name = radio.closest(".block[id]").id;
    if (radio.name !== name) radio.name = name;
  }
  for (const options of document.querySelectorAll(".options, .options ul")) options.tabIndex = -1;
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Tab" || !event.target.matches?.("input[role=combobox]")) return;
  event.stopPropagation(); // gradio would open the list
  event.target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
}, true);

// A file that is not an image has no preview; the message explains why.
for (const [event, visibility] of [["error", "hidden"], ["load", ""]]) {
  document.addEventListener(event, ({ target }) => {
    if (target.matches?.("#photo img")) target.style.visibility = visibility;
  }, true);
}
