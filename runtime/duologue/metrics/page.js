(() => {
  "use strict";
  const lanes = document.querySelector(".lanes");
  const rows = [...document.querySelectorAll(".row")];
  const rowSeconds = Number(lanes.dataset.rowS);
  const audio = document.querySelector("audio");

  const zoomBox = document.querySelector(".zoom");
  let zoom = 1;
  zoomBox.hidden = false;
  zoomBox.addEventListener("click", (event) => {
    const factor = Number(event.target.dataset.zoom);
    if (!factor) return;
    const middle = (lanes.scrollLeft + lanes.clientWidth / 2) / lanes.scrollWidth;
    zoom = Math.min(Math.max(zoom * factor, 1), 16);
    lanes.style.setProperty("--zoom", zoom);
    lanes.scrollLeft = middle * lanes.scrollWidth - lanes.clientWidth / 2;
  });

  // A native tooltip comes late and never on touch; without scripts the titles still do their work.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  for (const title of document.querySelectorAll("svg title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.parentNode.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  document.addEventListener("pointermove", (event) => {
    const owner = event.target.closest("[data-tip]");
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${event.clientY + (event.clientY > window.innerHeight - 60 ? -36 : 18)}px`;
  });

  if (!audio) return;
  document.body.classList.add("has-audio");
  const play = (seconds) => {
    audio.currentTime = seconds;
    audio.play();
  };
  rows.forEach((row, index) => row.addEventListener("click", (event) => {
    const box = row.getBoundingClientRect();
    play((index + (event.clientX - box.left) / box.width) * rowSeconds);
  }));
  for (const button of document.querySelectorAll("[data-t]")) {
    button.addEventListener("click", () => play(Number(button.dataset.t)));
  }
  const follow = () => {
    const now = audio.currentTime;
    rows.forEach((row, index) => {
      const head = row.querySelector(".playhead");
      const x = now / rowSeconds - index;
      const isHere = now > 0 && x >= 0 && x < 1;
      head.setAttribute("visibility", isHere ? "visible" : "hidden");
      if (isHere) for (const end of ["x1", "x2"]) head.setAttribute(end, `${100 * x}%`);
    });
    if (!audio.paused) requestAnimationFrame(follow);
  };
  for (const name of ["play", "seeked", "timeupdate"]) audio.addEventListener(name, follow);
})();
