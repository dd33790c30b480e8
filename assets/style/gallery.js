/* The photos of the task: a gr.HTML component (demo/screens/tune/gallery.py) whose events tell which photos get which label.
 * Click, drag, Shift-click and the keyboard select; a label's box labels what is selected, takes photos that are dropped on
 * it and adds files. Selection and filter outlive a new drawing as long as the photos are the same ones. */
(() => {
  "use strict";
  const FAR = 6; // pixels after which a press is a drag

  window.ctlGallery = (element, trigger, watch, upload) => {
    let chosen = new Set(), anchor = null, at = 0, filter = "", press = null, total = -1, focused = false, top = 0;
    const one = (query) => element.querySelector(query), all = (query) => [...element.querySelectorAll(query)];
    const tiles = () => all(".ctl-tile"), shown = () => tiles().filter((tile) => !tile.hidden);
    const number = (tile) => Number(tile.dataset.index);

    function paint() {
      for (const tile of tiles()) {
        const on = chosen.has(number(tile));
        if ((tile.getAttribute("aria-selected") === "true") !== on) tile.setAttribute("aria-selected", String(on));
        tile.classList.toggle("ctl-at", number(tile) === at);
      }
      const grid = one(".ctl-tiles"), words = one(".ctl-gallery")?.dataset.chosen, count = one(".ctl-count");
      if (grid) grid.setAttribute("aria-activedescendant", `tile-${at}`);
      if (count) count.textContent = chosen.size ? words.replace("#", chosen.size) : "";
      one(".ctl-gallery")?.classList.toggle("ctl-choosing", chosen.size > 0);
    }
    function sift(value) {
      const menu = one(".ctl-gallery-tools select");
      filter = menu && [...menu.options].some((option) => option.value === value) ? value : "";
      if (menu) menu.value = filter;
      for (const tile of tiles()) {
        const fits = filter.startsWith("=") ? tile.dataset.label === filter.slice(1) : tile.dataset.marks.split(" ").includes(filter);
        tile.hidden = filter !== "" && !fits;
        if (tile.hidden) chosen.delete(number(tile));
      }
      paint();
    }
    function range(to, on) {
      const row = shown().map(number), [a, b] = [row.indexOf(anchor), row.indexOf(to)].sort((x, y) => x - y);
      if (a < 0) return;
      for (const i of row.slice(a, b + 1)) if (on) chosen.add(i); else chosen.delete(i);
    }
    function toggle(i, whole) {
      if (whole && anchor !== null) range(i, chosen.has(anchor));
      else {
        if (chosen.has(i)) chosen.delete(i); else chosen.add(i);
        anchor = i;
      }
      at = i;
      paint();
      if (chosen.has(i)) trigger("select", { index: i });
    }
    function act(name, more = {}) {
      trigger("input", { act: name, images: [...chosen], ...more });
      chosen = new Set();
      paint();
    }
    function give(label) {
      if (chosen.size) act("give", { label });
      else sift(filter === "=" + label ? "" : "=" + label);
    }
    async function add(files, label) {
      const paths = [], photos = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|heif|avif)$/i.test(file.name));
      if (!photos.length) return;
      const words = one(".ctl-gallery").dataset.uploading, count = one(".ctl-count") || document.createElement("span");
      for (const file of photos) {
        count.textContent = `${words} ${paths.length + 1} / ${photos.length}`;
        paths.push([(await upload(file)).path, file.name]);
      }
      trigger("input", { act: "add", label, paths });
    }
    const chooser = document.createElement("input");
    Object.assign(chooser, { type: "file", multiple: true, accept: "image/*" });
    chooser.addEventListener("change", () => { add(chooser.files, chooser.dataset.label); chooser.value = ""; });

    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-act]");
      if (!button) return;
      const name = button.dataset.act, label = button.closest("[data-box]")?.dataset.box;
      if (name === "give") give(label);
      else if (name === "add") { chooser.dataset.label = label; chooser.click(); }
      else if (name === "new") fresh();
      else if (name === "all") { chosen = new Set(shown().map(number)); paint(); }
      else if (name === "clear") { chosen = new Set(); paint(); }
      else if (name === "guesses") { act(name); filter = "none"; }
      else if (["names", "confirm"].includes(name) || chosen.size) act(name);
    });
    function fresh() {
      const field = one(".ctl-new input"), label = field.value.trim();
      if (label) act("give", { label }); else field.focus();
    }
    element.addEventListener("change", (event) => { if (event.target.matches(".ctl-gallery-tools select")) sift(event.target.value); });

    /* ---- the pointer: a press is a click, a drag over photos selects them, a drag of selected ones carries them */
    const box = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest("#gallery [data-box]");
    let ghost = null;
    function carry(event) {
      if (!ghost) {
        ghost = document.body.appendChild(document.createElement("div"));
        ghost.className = "ctl-ghost";
        ghost.textContent = one(".ctl-gallery").dataset.chosen.replace("#", chosen.size);
      }
      Object.assign(ghost.style, { left: event.clientX + 10 + "px", top: event.clientY + 10 + "px" });
      all("[data-box]").forEach((part) => part.classList.toggle("ctl-over", part === box(event)));
    }
    element.addEventListener("pointerdown", (event) => {
      const tile = event.target.closest(".ctl-tile");
      if (!tile || event.button) return;
      press = { i: number(tile), x: event.clientX, y: event.clientY, mouse: event.pointerType === "mouse", whole: event.shiftKey };
      press.carries = chosen.has(press.i);
      if (press.mouse) { event.preventDefault(); one(".ctl-tiles").focus({ preventScroll: true }); }
    });
    window.addEventListener("pointermove", (event) => {
      if (!press || !press.mouse) return;
      if (!press.moved && Math.hypot(event.clientX - press.x, event.clientY - press.y) < FAR) return;
      if (!press.moved) { press.moved = true; press.before = new Set(chosen); if (!press.carries) anchor = press.i; }
      if (press.carries) return carry(event);
      const over = document.elementFromPoint(event.clientX, event.clientY)?.closest("#gallery .ctl-tile");
      if (!over) return;
      chosen = new Set(press.before);
      range(number(over), true);
      paint();
    });
    window.addEventListener("pointerup", (event) => {
      const was = press, target = ghost && box(event);
      press = null;
      ghost?.remove();
      ghost = null;
      all(".ctl-over").forEach((part) => part.classList.remove("ctl-over"));
      if (!was) return;
      if (target) act("give", { label: target.dataset.box });
      else if (!was.moved && event.target.closest?.(".ctl-tile")) toggle(was.i, was.whole);
    });
    window.addEventListener("pointercancel", () => { press = null; ghost?.remove(); ghost = null; });

    /* ---- files that are dropped on a label */
    for (const kind of ["dragover", "dragleave", "drop"]) {
      element.addEventListener(kind, (event) => {
        const target = event.target.closest("[data-box]");
        if (!target || ![...event.dataTransfer.types].includes("Files")) return;
        event.preventDefault();
        event.stopPropagation();
        target.classList.toggle("ctl-over", kind === "dragover");
        if (kind === "drop") add(event.dataTransfer.files, target.dataset.box);
      });
    }

    /* ---- the keyboard: arrows move, space selects, Shift extends, digits label */
    element.addEventListener("keydown", (event) => {
      if (event.target.matches(".ctl-new input")) { if (event.key === "Enter") { event.preventDefault(); fresh(); } return; }
      if (!event.target.matches(".ctl-tiles")) return;
      const row = shown(), k = Math.max(0, row.findIndex((tile) => number(tile) === at));
      const wide = row.filter((tile) => tile.offsetTop === row[0].offsetTop).length;
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide, Home: -k, End: row.length - 1 - k }[event.key];
      const digit = /^[1-9]$/.test(event.key) && !event.ctrlKey && !event.metaKey && all("[data-box]")[event.key - 1];
      if (step !== undefined && row.length) {
        if (event.shiftKey && !chosen.size) { anchor = at; chosen.add(at); }
        at = number(row[Math.min(row.length - 1, Math.max(0, k + step))]);
        if (event.shiftKey) range(at, true);
        row.find((tile) => number(tile) === at).scrollIntoView({ block: "nearest" });
        paint();
      } else if (event.key === " " || event.key === "Enter") toggle(at, event.shiftKey);
      else if (event.key === "Escape") { chosen = new Set(); paint(); }
      else if (event.key === "a" && (event.ctrlKey || event.metaKey)) { chosen = new Set(row.map(number)); paint(); }
      else if (event.key === "Delete" && chosen.size) act("remove");
      else if (digit && chosen.size) act("give", { label: digit.dataset.box });
      else return;
      event.preventDefault();
    });
    element.addEventListener("focusin", (event) => { focused = event.target.matches(".ctl-tiles"); });
    element.addEventListener("focusout", (event) => { if (event.target.isConnected) focused = false; });
    element.addEventListener("scroll", (event) => { if (event.target.matches?.(".ctl-tiles")) top = event.target.scrollTop; }, true);

    watch("value", () => {
      const count = tiles().length;
      if (count !== total) { chosen = new Set(); anchor = null; at = 0; top = 0; }
      total = count;
      sift(filter);
      const grid = one(".ctl-tiles");
      if (grid) grid.scrollTop = top;
      if (focused) grid?.focus({ preventScroll: true });
    });
  };
})();
