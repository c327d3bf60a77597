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
