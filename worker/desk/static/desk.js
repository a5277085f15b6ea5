// What the pages do beyond plain HTML: nothing here is needed to read or to act.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");

  // A time is in UTC; pointed at, it says the reader's own.
  const tellLocalTimes = (within) => {
    for (const time of within.querySelectorAll("time[datetime]")) {
      const local = new Date(time.dateTime).toLocaleString(undefined, {
        dateStyle: "medium", timeStyle: "long",
      });
      if (!time.title.includes(" = ")) time.title = `${time.title} = ${local}`;
    }
  };
  tellLocalTimes(document);
  document.addEventListener("htmx:afterSwap", (event) => tellLocalTimes(event.target));

  // Updates stop while nobody can see them, and while somebody reads.
  let paused = false;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id === "live" && (paused || document.hidden)) event.preventDefault();
  });
  const button = document.querySelector("[data-pause]");
  button?.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on updating" : "Pause updates";
  });

  // Every box of a list at once.
  const all = document.querySelector("[data-all]");
  all?.addEventListener("change", () => {
    for (const box of document.querySelectorAll("input[name='id']")) box.checked = all.checked;
  });

  // Keys: / finds, j and k walk the rows, x chooses one, g goes to the overview.
  const rows = () => [...document.querySelectorAll(".rows tbody tr")];
  const walk = (step) => {
    const list = rows();
    const here = list.findIndex((row) => row.contains(document.activeElement));
    const next = list[Math.min(Math.max(here + step, 0), list.length - 1)];
    next?.querySelector("a")?.focus();
  };
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")
      && document.activeElement.type !== "checkbox";
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      document.querySelector(".find input")?.focus();
      event.preventDefault();
    } else if (event.key === "j") walk(1);
    else if (event.key === "k") walk(-1);
    else if (event.key === "x") {
      const box = document.activeElement?.closest("tr")?.querySelector("input[name='id']");
      if (box) box.checked = !box.checked;
    }
  });
})();
