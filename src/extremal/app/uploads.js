"use strict";
// Files that cannot be explained are told before they are sent, in plain words; the server checks all others.
(() => {
  const MAX_MB = 20;

  function takesPictures() {
    return (document.querySelector("#photo input[type=file]")?.accept ?? "image/").includes("image/");
  }

  function problem(files) {
    if (!files.length) return "The browser provided no file. Save the photograph on your device first, and drop that file.";
    if (files.length > 1) return `${files.length} files were dropped, but one photograph is explained at a time. Drop one of them.`;
    const [{ name, size, type }] = files;
    if (size > MAX_MB * 1e6) return `“${name}” has ${Math.round(size / 1e5) / 10} MB; up to ${MAX_MB} MB can be sent. Make it smaller, and drop it again.`;
    if (!takesPictures()) return "";
    if (type && !type.startsWith("image/")) return `“${name}” is not a photograph. Choose one in JPEG or PNG format.`;
    return "";
  }

  function tell(text) {
    const notice = document.getElementById("notice");
    if (notice) notice.textContent = text;
  }

  function check(event, files) {
    const text = problem([...files]);
    tell(text);
    if (!text) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.matches?.("input[type=file]")) event.target.value = "";
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches?.("#photo input[type=file]")) check(event, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => {
    if (event.target.closest?.("#photo")) check(event, event.dataTransfer.files);
  }, true);
  document.addEventListener("click", ({ target }) => { if (target.closest?.("#examples, #explain, #saved")) tell(""); });
})();
