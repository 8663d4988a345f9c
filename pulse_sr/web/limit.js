// Refuses a file that is too large before it is sent: gradio's own answer has no words.
(() => {
  const refuse = (event, files) => {
    const large = [...(files || [])].find((file) => file.size > MOST_BYTES);
    const alert = document.querySelector("#too-large .alert");
    if (alert) alert.hidden = !large;
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.type === "file") event.target.value = "";
    alert.querySelector("b").textContent =
      `${large.name} has ${(large.size / 1e6).toFixed(1)} MB, this page takes ${MOST_BYTES / 1e6} MB.`;
  };
  window.addEventListener("change", (event) => {
    if (event.target.type === "file") refuse(event, event.target.files);
  }, true);
  window.addEventListener("drop", (event) => refuse(event, event.dataTransfer?.files), true);
})();
