"use strict";
// Search fields for classes and layers: the server ranks the names, an exact one first; Enter takes the first.
(() => {
  const FIELDS = { other: "classes", layer: "layers" };
  const state = { field: null, list: null, choices: [], active: 0, pending: null, number: 0 };

  const kindOf = (input) => FIELDS[input.closest?.("#other, #layer")?.id];

  function chosenNetwork() {
    return document.querySelector("#network input")?.value ?? "";
  }

  async function search(input, text) {
    const number = ++state.number;
    const query = new URLSearchParams({ kind: kindOf(input), network: chosenNetwork(), text: text.slice(0, 100) });
    const response = await fetch(`search?${query}`);
    const choices = response.ok ? await response.json() : [];
    if (number === state.number && document.activeElement === input) open(input, choices);
  }

  // A text that was chosen before is not what the visitor looks for now: the list begins with all names.
  function begin(input, typed) {
    state.pending = search(input, typed ? input.value : "").catch(() => close());
  }

  function open(input, choices) {
    const list = state.list ?? document.body.appendChild(document.createElement("ul"));
    Object.assign(state, { field: input, list, choices, active: 0 });
    list.className = "extremal-options options";
    list.id = "extremal-options";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", input.getAttribute("aria-label") ?? "Names");
    list.replaceChildren(...choices.map(draw));
    if (!choices.length) list.replaceChildren(Object.assign(document.createElement("li"), { className: "none", textContent: "No similar name was found." }));
    place();
    input.setAttribute("aria-expanded", "true");
    input.setAttribute("aria-controls", list.id);
    activate(0);
  }

  function draw(choice, index) {
    const option = document.createElement("li");
    option.setAttribute("role", "option");
    option.setAttribute("aria-label", choice.name);
    option.id = `extremal-option-${index}`;
    option.append(choice.name);
    if (choice.note) option.append(Object.assign(document.createElement("span"), { textContent: choice.note }));
    option.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    option.addEventListener("click", () => choose(index));
    return option;
  }

  function place() {
    const box = state.field.getBoundingClientRect();
    const above = box.bottom + 330 > window.innerHeight && box.top > window.innerHeight - box.bottom;
    const style = state.list.style;
    style.left = `${box.left + window.scrollX}px`;
    style.width = `${box.width}px`;
    style.maxHeight = `${Math.min(320, Math.max(120, above ? box.top - 12 : window.innerHeight - box.bottom - 12))}px`;
    style.top = above ? "" : `${box.bottom + window.scrollY + 4}px`;
    style.bottom = above ? `${document.documentElement.clientHeight - box.top - window.scrollY + 4}px` : "";
  }

  function activate(index) {
    const options = [...state.list.querySelectorAll("[role=option]")];
    state.active = Math.max(0, Math.min(options.length - 1, index));
    options.forEach((option, k) => option.setAttribute("aria-selected", String(k === state.active)));
    options[state.active]?.scrollIntoView({ block: "nearest" });
    if (options.length) state.field.setAttribute("aria-activedescendant", options[state.active].id);
  }

  function close() {
    state.number += 1; // answers that are on their way are ignored
    state.list?.remove();
    state.field?.setAttribute("aria-expanded", "false");
    state.field?.removeAttribute("aria-activedescendant");
    Object.assign(state, { list: null, choices: [], pending: null });
  }

  function choose(index) {
    const { field, choices } = state;
    const choice = choices[index];
    close();
    if (!choice) return;
    field.value = choice.name;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    submit(field);
  }

  // Gradio's own way to hear of a name: Enter in a field of one line.
  function submit(field) {
    setTimeout(() => field.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true, cancelable: true })), 50);
  }

  function prepare(input) {
    input.setAttribute("role", "combobox");
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("aria-expanded", "false");
    input.setAttribute("aria-label", input.closest("#layer") ? "Regions, or channels of a layer" : "Any other class");
    input.autocomplete = "off";
  }

  document.addEventListener("focusin", ({ target }) => {
    if (!kindOf(target) || target.tagName !== "INPUT") return;
    if (!target.hasAttribute("role")) prepare(target);
    target.select();
    begin(target, false);
  });
  document.addEventListener("click", ({ target }) => {
    if (!kindOf(target) || target.tagName !== "INPUT" || state.list) return;
    target.select();
    begin(target, false);
  });
  document.addEventListener("focusout", ({ target }) => { if (kindOf(target)) close(); });
  document.addEventListener("input", (event) => {
    if (kindOf(event.target) && event.isTrusted) begin(event.target, event.target.value.trim() !== "");
  });
  document.addEventListener("keydown", async (event) => {
    const input = event.target;
    if (!kindOf(input)) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter") {
      event.preventDefault();
      await state.pending; // what was typed last is ranked first
      if (state.list) choose(state.active);
    } else if (event.key === "Escape" || event.key === "Tab") {
      close();
    } else if (step && state.list) {
      event.preventDefault();
      activate(state.active + step);
    } else if (step) {
      begin(input, false);
    }
  }, true);
  addEventListener("scroll", (event) => { if (state.list && event.target !== state.list) place(); }, true);
  addEventListener("resize", () => { if (state.list) place(); });
  new MutationObserver(() => {
    for (const input of document.querySelectorAll("#other input:not([role]), #layer input:not([role])")) prepare(input);
  }).observe(document, { childList: true, subtree: true });
})();
