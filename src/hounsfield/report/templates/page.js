"use strict";
(() => {
  const drawings = JSON.parse(document.getElementById("drawings").textContent);
  const views = [];
  let isolated = "";

  const announce = () => { document.documentElement.dataset.drawn = String(views.length); };

  async function draw(place) {
    const spec = drawings[place.dataset.drawing];
    const { view } = await vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: "custom" } });
    views.push({ view, place, names: new Set((spec.params || []).map((one) => one.name)) });
    view.addEventListener("click", (event, item) => {
      const arm = item && item.datum && item.datum.arm;
      if (arm) isolate(arm === isolated ? "" : arm);
    });
    announce();
  }

  // Give a parameter a value in every figure inside `scope` that has it.
  function set(name, value, scope) {
    for (const one of views)
      if (one.names.has(name) && scope.contains(one.place)) one.view.signal(name, value).runAsync();
  }

  function isolate(arm) {
    isolated = arm;
    for (const button of document.querySelectorAll(".arm"))
      button.setAttribute("aria-pressed", String(button.dataset.arm === arm));
    document.querySelector(".arms")?.classList.toggle("isolating", arm !== "");
    set("isolated", arm, document);
  }

  function sortable(table) {
    table.querySelectorAll("th[aria-sort]").forEach((head) => {
      head.querySelector("button").addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const column = head.cellIndex;
        const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
        const order = (a, b) => {
          if (a === "" || b === "") return (a === "") - (b === "");  // no value: last, either way
          const numeric = Number(a) - Number(b);
          return (rising ? 1 : -1) * (Number.isNaN(numeric) ? a.localeCompare(b) : numeric);
        };
        const body = table.tBodies[0];
        [...body.rows].sort((a, b) => order(key(a), key(b))).forEach((row) => body.append(row));
      });
    });
  }

  document.querySelectorAll(".arm").forEach((button) =>
    button.addEventListener("click", () => isolate(button.dataset.arm === isolated ? "" : button.dataset.arm)));
  document.querySelectorAll("select[data-parameter]").forEach((select) =>
    select.addEventListener("change", () => set(select.dataset.parameter, select.value, select.closest(".block, section"))));
  document.querySelectorAll("table.sortable").forEach(sortable);
  Promise.all([...document.querySelectorAll(".drawing")].map(draw)).then(() => {
    document.documentElement.dataset.ready = "yes";
  });
})();
