"use strict";
// The player of a signal's region: the whole sound, silent where the slider hides its columns.
(() => {
  const HEADER_BYTES = 44; // of the WAV files that the report writes
  const whole = document.getElementById("whole-sound");
  const player = document.getElementById("region-sound");
  const content = Uint8Array.from(atob(whole.src.split(",")[1]), (c) => c.charCodeAt(0));
  const header = new DataView(content.buffer);
  const frameBytes = header.getUint16(32, true);
  const frames = (content.length - HEADER_BYTES) / frameBytes;
  let timer = 0;

  function encode(bytes) {
    const parts = [];
    for (let k = 0; k < bytes.length; k += 0x8000) {
      parts.push(String.fromCharCode(...bytes.subarray(k, k + 0x8000)));
    }
    return "data:audio/wav;base64," + btoa(parts.join(""));
  }

  // Columns cover the whole signal, of which the player may have only the first part.
  function silence(heard) {
    const total = Number(document.getElementById("canvas").dataset.frames);
    const bytes = content.slice();
    for (let column = 0; column < heard.length; column += 1) {
      if (heard[column]) continue;
      const first = Math.min(frames, Math.floor((column * total) / heard.length));
      const last = Math.min(frames, Math.floor(((column + 1) * total) / heard.length));
      bytes.fill(0, HEADER_BYTES + first * frameBytes, HEADER_BYTES + last * frameBytes);
    }
    return bytes;
  }

  // The sound is made once the slider rests.
  document.getElementById("canvas").addEventListener("region", ({ detail }) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      player.src = encode(silence(detail));
      document.getElementById("region-player").hidden = false;
    }, 200);
  });
})();
