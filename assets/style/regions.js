/* The picture and the table of the Regions screen: gr.HTML components whose events carry what was pointed at.
 * Places are shares of the picture's width and height, 0 to 1. */
(() => {
  "use strict";
  const LEAST = 0.015; // a shorter drag is a click
  const HEARD = 3000; // milliseconds after which the ring goes in any case
  const STEP = 0.02, FINE = 0.004; // of the arrow keys

  /* A mouse drags a box in any mode, a finger only in the mode "box", so that a phone can scroll. The keyboard moves a
   * cross with the arrow keys; Enter clicks there, B marks the background, Escape takes the cross away. */
  window.ctlPicture = (element, trigger, watch) => {
    let start = null, cross = null, focused = false;
    const canvas = () => element.querySelector(".ctl-canvas");

    function place(event) {
      const box = canvas().querySelector("img").getBoundingClientRect();
      const share = (value, from, length) => Math.min(1, Math.max(0, (value - from) / length));
      return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
    }
    function draw(className, left, top, width, height) {
      let part = canvas().querySelector("." + className);
      if (!part) {
        part = document.createElement("div");
        part.className = className;
        canvas().appendChild(part);
      }
      const percent = (value) => 100 * value + "%";
      Object.assign(part.style, { left: percent(left), top: percent(top), width: percent(width), height: percent(height) });
    }
    const erase = (className) => canvas()?.querySelector("." + className)?.remove();
    function click(x, y, background) { // a ring says at once that it was heard, until the picture is drawn anew
      draw("ctl-heard", x, y, 0, 0);
      window.setTimeout(() => erase("ctl-heard"), HEARD);
      trigger("select", { kind: "point", x, y, background });
    }
    const moved = (from, to) => Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])) > LEAST;
    const drags = (event) => event.pointerType === "mouse" ? event.button !== 2 : canvas().dataset.mode === "box";

    element.addEventListener("contextmenu", (event) => {
      if (event.target.closest(".ctl-canvas")) event.preventDefault();
    });
    element.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".ctl-canvas") || event.button === 1) return;
      start = { at: place(event), drags: drags(event), background: event.button === 2 };
    });
    window.addEventListener("pointermove", (event) => {
      if (!start || !start.drags || !canvas()) return;
      const to = place(event), from = start.at;
      if (!moved(from, to)) return erase("ctl-drag");
      draw("ctl-drag", Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
    });
    window.addEventListener("pointerup", (event) => {
      if (!start || !canvas()) return;
      const to = place(event), { at, drags, background } = start;
      start = null;
      erase("ctl-drag");
      if (!moved(at, to)) click(at[0], at[1], background);
      else if (drags) trigger("select", { kind: "box", corners: [...at, ...to] });
    });
    window.addEventListener("pointercancel", () => { start = null; erase("ctl-drag"); });

    element.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!event.target.closest(".ctl-canvas")) return;
      if (way) {
        const step = event.shiftKey ? FINE : STEP;
        cross = (cross || [0.5, 0.5]).map((value, k) => Math.min(0.999, Math.max(0, value + step * way[k])));
      } else if (event.key === "Escape") cross = null;
      else if (cross && (event.key === "Enter" || event.key.toLowerCase() === "b")) click(...cross, event.key !== "Enter");
      else return;
      event.preventDefault();
      show();
    });
    element.addEventListener("focusin", () => { focused = true; });
    element.addEventListener("focusout", (event) => { if (event.relatedTarget || document.hasFocus()) focused = event.target.isConnected ? false : focused; });
    function show() {
      if (cross) draw("ctl-cross", cross[0], cross[1], 0, 0);
      else erase("ctl-cross");
    }
    watch("value", () => { // the picture was drawn anew
      start = null;
      if (!canvas()) { cross = null; return; }
      show();
      if (focused) canvas().focus({ preventScroll: true });
    });
  };

  /* Thumbnails to choose from; the chosen one is scrolled to. */
  window.ctlPicker = (element, trigger, watch) => {
    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-index]");
      if (button) trigger("select", { index: Number(button.dataset.index) });
    });
    watch("value", () => {
      const list = element.querySelector(".ctl-picks"), button = element.querySelector("[aria-pressed=true]");
      if (button) list.scrollTop = button.offsetTop - list.clientHeight / 2;
    });
  };

  /* Rows with a data-number are chosen by a click, Enter or the space bar; the chosen one is scrolled to. */
  window.ctlRows = (element, trigger, watch) => {
    const choose = (event) => {
      const row = event.target.closest("tr[data-number]");
      if (!row) return;
      event.preventDefault();
      trigger("select", { number: Number(row.dataset.number) });
    };
    element.addEventListener("click", choose);
    element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") choose(event); });
    watch("value", () => {
      const row = element.querySelector("tr[aria-selected=true]"), list = element.querySelector(".ctl-rows");
      if (row && list) list.scrollTop = row.offsetTop - list.clientHeight / 2;
    });
  };
})();
