"use strict";
(() => {
  const grid = document.getElementById("grid");
  const filters = document.querySelector(".filters");
  if (!grid || !filters) return;
  const cards = [...grid.children];
  const buttons = [...filters.querySelectorAll("button")];
  const kind = document.getElementById("kind");
  const sort = document.getElementById("sort");
  const shown = document.getElementById("shown");
  const score = (card) => {
    const text = card.dataset.score;
    return text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
  };
  const byScore = (a, b) => (score(a) === score(b) ? 0 : score(a) - score(b));
  const orders = {
    falling: (a, b) => byScore(b, a),
    rising: byScore,
    id: (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true }),
  };
  let wanted = "";

  const update = () => {
    let count = 0;
    for (const card of cards) {
      const decision =
        !wanted || card.dataset.decision === wanted || (wanted === "mistake" && "mistake" in card.dataset);
      const kindIs = !kind || !kind.value || kind.value === "=" + card.dataset.kind;
      card.hidden = !(decision && kindIs);
      count += card.hidden ? 0 : 1;
    }
    shown.textContent = count + " shown";
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      wanted = button.dataset.filter;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      update();
    });
  }
  kind?.addEventListener("change", update);
  sort.addEventListener("change", () => grid.append(...cards.sort(orders[sort.value])));
  filters.hidden = false;
  update();
})();
(() => {
  const grid = document.getElementById("grid");
  const reveal = document.getElementById("reveal");
  if (!grid || !reveal) return;
  const view = document.getElementById("view-compare");
  const set = (element, share) => element.style.setProperty("--reveal", Math.min(1, Math.max(0, share)));
  const drag = (frame, event) => {
    const box = frame.getBoundingClientRect();
    const fit = Number(frame.style.getPropertyValue("--fit")) || 1;
    set(frame, ((event.clientX - box.left) / box.width - 0.5) / fit + 0.5);
  };
  const frameOf = (event) => (view.checked ? event.target.closest(".frame") : null);

  reveal.addEventListener("input", () => {
    for (const frame of grid.querySelectorAll(".frame")) frame.style.removeProperty("--reveal");
    set(grid, reveal.value / 100);
  });
  grid.addEventListener("pointerdown", (event) => {
    const frame = frameOf(event);
    if (!frame || event.button !== 0) return;
    // The frame goes on receiving the pointer's events when it leaves the card.
    frame.setPointerCapture(event.pointerId);
    drag(frame, event);
  });
  grid.addEventListener("pointermove", (event) => {
    const frame = frameOf(event);
    if (frame?.hasPointerCapture(event.pointerId)) drag(frame, event);
  });
  grid.addEventListener("dragstart", (event) => {
    if (frameOf(event)) event.preventDefault();
  });
  // Browsers restore the sliders of reloaded pages.
  set(grid, reveal.value / 100);
  document.getElementById("compare").hidden = false;
})();
