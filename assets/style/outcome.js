/* Brings what a run says into view: the right column stays beside the steps and scrolls by itself where it is taller than
 * the window; on a narrow window it stands below them. */
(() => {
  "use strict";
  const STEP = 100, LONGEST = 60_000;
  const smooth = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");

  /* Calls back when the column is there to be seen: its screen may only be opened by the answer that is awaited. */
  function whenShown(column, then, waited = 0) {
    const box = document.querySelector(column);
    if (box?.offsetHeight) then(box);
    else if (waited < LONGEST) setTimeout(whenShown, STEP, column, then, waited + STEP);
  }

  function look(box, answer) {
    const part = document.querySelector(answer), found = part?.getBoundingClientRect();
    if (!found?.height) return;
    if (found.top >= 0 && found.bottom <= window.innerHeight - 8) return;
    const above = box.getBoundingClientRect(), fits = found.bottom - above.top < window.innerHeight;
    (fits ? box : part).scrollIntoView({ behavior: smooth(), block: "start" });
  }

  window.ctlShow = (column, answer) => {
    whenShown(column, (box) => {
      box.scrollTo({ top: 0 });
      if (window.innerWidth <= 900 && answer.endsWith("status")) box.scrollIntoView({ behavior: smooth() });
      else requestAnimationFrame(() => requestAnimationFrame(() => look(box, answer)));
    });
  };
})();
