// The names in the plots of a comparison are placed for the width that the plot has: placed anew when that has changed.
(() => {
  let timer, drawn = window.innerWidth;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const shown = document.querySelector("#plot-pareto");
      if (!shown || !shown.offsetParent || Math.abs(window.innerWidth - drawn) < 24) return;
      drawn = window.innerWidth;
      document.querySelector("#compare-resized").click();
    }, 300);
  });
})();
