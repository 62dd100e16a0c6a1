(() => {
  const field = document.getElementById("tokens"), live = document.getElementById("live");
  const show = kind => {
    for (const view of document.querySelectorAll(".token-view")) view.hidden = view.id !== `view-${kind}`;
  };
  const chosen = () => field.querySelector("input:checked").value;
  field.addEventListener("change", () => {
    show(chosen());
    live.textContent = document.querySelector(".token-view:not([hidden]) figcaption").textContent;
  });
  for (const label of field.querySelectorAll("label")) {
    label.addEventListener("mouseenter", () => show(label.querySelector("input").value));
    label.addEventListener("mouseleave", () => show(chosen()));
  }
})();
