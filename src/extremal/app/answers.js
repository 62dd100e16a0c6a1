"use strict";
// Answers that are stored: shown again from the history or a tab, compared, and named in the page's address.
(() => {
  const PREFIX = "#answer=";

  function show(names) {
    window.extremalChosen = names;
    document.getElementById("show").click();
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-show]");
    if (button) show(button.dataset.show);
    if (target.closest?.("#compare")) show(chosen().join("+"));
  });

  const boxes = () => [...document.querySelectorAll("#history input[data-compare]")];
  const chosen = () => boxes().filter((box) => box.checked).map((box) => box.dataset.compare);

  // Two answers can be compared: the third choice replaces the first.
  const order = [];
  document.addEventListener("change", ({ target }) => {
    if (!target.matches?.("input[data-compare]")) return;
    if (target.checked) order.push(target);
    for (const box of order.filter((one) => one !== target && one.checked).slice(0, -1)) box.checked = false;
    order.splice(0, order.length, ...order.filter((box) => box.checked && box.isConnected));
    update();
  });

  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.(".extremal-tabs [role=tab]");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!tab || !step) return;
    const tabs = [...tab.parentElement.children];
    event.preventDefault();
    tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].focus();
  });

  function update() {
    const compare = document.getElementById("compare");
    if (compare) compare.disabled = chosen().length !== 2;
    const shown = document.querySelector(".extremal-answer")?.dataset.answer ?? "";
    for (const entry of document.querySelectorAll(".extremal-entry")) {
      const current = String(shown.split("+").includes(entry.dataset.show));
      if (entry.getAttribute("aria-current") !== current) entry.setAttribute("aria-current", current);
    }
    return shown;
  }

  // The address names the answer that is shown, so that a reload or a bookmark leads back to it; an example has none.
  let ready = false;
  function follow() {
    const shown = update();
    const isOwn = shown !== "" && document.querySelector(".extremal-example") === null;
    if (isOwn) ready = true;
    const fragment = isOwn ? PREFIX + shown : "";
    if (!isOwn && !ready) return; // the address has not been read yet
    if (location.hash !== fragment) history.replaceState(null, "", fragment || location.pathname);
  }

  new MutationObserver(follow).observe(document, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["data-answer"],
  });
  addEventListener("hashchange", () => { if (location.hash.startsWith(PREFIX)) show(location.hash.slice(PREFIX.length)); });
})();
