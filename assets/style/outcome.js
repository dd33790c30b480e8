/* Brings what a run says into view: the right column stays beside the steps and scrolls by itself where it is taller than
 * the window; on a narrow window it stands below them. */
(() => {
  "use strict";
  window.ctlShow = (column, answer) => {
    const box = document.querySelector(column), quiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!box) return;
    box.scrollTo({ top: 0 });
    const look = () => {
      const part = document.querySelector(answer), found = part?.getBoundingClientRect();
      if (!found?.height) return;
      if (found.top >= 0 && found.bottom <= window.innerHeight - 8) return;
      const above = box.getBoundingClientRect(), fits = found.bottom - above.top < window.innerHeight;
      (fits ? box : part).scrollIntoView({ behavior: quiet ? "auto" : "smooth", block: "start" });
    };
    if (window.innerWidth <= 900 && answer.endsWith("status")) {
      return box.scrollIntoView({ behavior: quiet ? "auto" : "smooth" });
    }
    requestAnimationFrame(() => requestAnimationFrame(look));
  };
})();
