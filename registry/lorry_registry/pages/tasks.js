"use strict";
(() => {
  const table = document.querySelector("table.tasks");
  const heads = [...table.querySelectorAll("th[data-key]")];
  const tasks = [...table.tBodies];
  const filter = document.getElementById("filter");
  const count = document.getElementById("count");

  function sortBy(head) {
    const { key } = head.dataset;
    const numeric = "numeric" in head.dataset;
    const largestFirst = numeric || "newest" in head.dataset;
    const before = head.getAttribute("aria-sort");
    const falls = before ? before === "ascending" : largestFirst;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const compare = (a, b) => (numeric ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0);
    tasks.sort((one, two) => {
      const a = one.dataset[key], b = two.dataset[key];
      // What is not known comes last, whichever way the others go.
      if (a === "" || b === "") return (a === "") - (b === "");
      return falls ? compare(b, a) : compare(a, b);
    });
    table.append(...tasks);
  }

  function showMatches() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    tasks.forEach((task) => {
      const text = task.textContent.toLowerCase();
      task.hidden = !words.every((word) => text.includes(word));
    });
    const shown = tasks.filter((task) => !task.hidden).length;
    count.textContent = words.length ? `${shown} of ${tasks.length}` : "";
  }

  heads.forEach((head) => head.firstElementChild.addEventListener("click", () => sortBy(head)));
  filter.addEventListener("input", showMatches);
  document.querySelector(".controls").hidden = tasks.length < 2;
})();
