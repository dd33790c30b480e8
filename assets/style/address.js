/* The open screen is in the address: ?tab=compare opens it, Back goes to the one before, a reload comes back to it. What
 * else an address says (?sample=, ?method=, ?lang=) is read once, by the server and language.js, and then taken out. */
(() => {
  "use strict";
  const ONCE = ["sample", "method", "lang"], FIRST = "tune", STEP = 100, LONGEST = 60_000;
  const panels = () => [...document.querySelectorAll("#screens > [role=tabpanel], #screens > .tabitem")];
  const named = (element) => (element.id.match(/^screen-(\w+?)(-button)?$/) || [])[1];
  const wanted = () => new URLSearchParams(location.search).get("tab") || FIRST;
  const open = () => named(panels().find((panel) => getComputedStyle(panel).display !== "none") || {id: ""});

  /* The buttons by name; those in the tabs' menu of a narrow window have no ids, but keep the order of ctlScreens, which
   * the server tells. */
  function buttons() {
    const found = new Map(), rest = [...window.ctlScreens];
    for (const button of document.querySelectorAll("#screens > .tab-wrapper .tab-container [role=tab]")) {
      found.set(named(button), button);
      rest.splice(rest.indexOf(named(button)), 1);
    }
    document.querySelectorAll("#screens > .tab-wrapper .overflow-dropdown button").forEach((button, k) => {
      found.set(rest[k], button);
    });
    return found;
  }

  function write(name, replace) {
    const url = new URL(location.href);
    if (name === FIRST) url.searchParams.delete("tab");
    else url.searchParams.set("tab", name);
    ONCE.forEach((key) => url.searchParams.delete(key));
    if (url.href !== location.href) history[replace ? "replaceState" : "pushState"](history.state, "", url);
  }

  function start(waited = 0) {
    const all = panels();
    if (!all.length || !document.querySelector("#method-panel .ctl-hint, #method-panel .ctl-method")) {
      if (waited < LONGEST) setTimeout(start, STEP, waited + STEP);
      return;
    }
    buttons().get(wanted())?.click();
    let last = open();
    const follow = () => {
      const now = open();
      if (!now || now === last) return;
      last = now;
      if (now !== wanted()) write(now, false);
    };
    new MutationObserver(follow).observe(document.getElementById("screens"), {
      subtree: true, attributes: true, attributeFilter: ["style", "class", "hidden"],
    });
    addEventListener("popstate", () => buttons().get(wanted())?.click());
    setTimeout(() => write(open() || FIRST, true), STEP);
  }
  start();
})();
