/* Gradio's own words ("Drop file here", ...) follow the page's language switch. Gradio keeps its
 * language in a store of the module runtime-*.js; importing it again gives the same store. Words that
 * are on the page already are replaced in place. Where any of this ever fails, those few words keep
 * the browser's language. */
(() => {
  "use strict";
  const KEY = "clip-tuning-lab-language";
  const WORDS = ["upload_text.drop_file", "upload_text.drop_image", "upload_text.drop_video", "upload_text.click_to_upload",
    "upload_text.drop_gallery", "upload_text.paste_clipboard", "common.or", "common.settings", "common.loading", "common.error",
    "common.empty", "common.processing"];

  function value(store) {
    let found;
    store.subscribe((v) => { found = v; })();
    return found;
  }

  async function stores() {
    const entry = performance.getEntriesByType("resource").find((e) => /\/runtime-[^/]*\.js/.test(e.name));
    const all = entry ? Object.values(await import(entry.name)).filter((s) => s && typeof s.subscribe === "function") : [];
    return { locale: all.find((s) => typeof s.set === "function"), format: all.find((s) => typeof s.set !== "function") };
  }

  function replace(words) {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.nodeValue.trim();
      if (!text || node.parentElement.closest(".prose, textarea, input, [contenteditable]")) continue;
      for (const [from, to] of words) {
        if (text === from || text === `- ${from} -`) node.nodeValue = node.nodeValue.replace(from, to);
      }
    }
  }

  async function change(code) {
    document.documentElement.lang = code;
    try {
      const { locale, format } = await stores();
      if (!locale || !format || value(locale) === code) return;
      const before = value(format);
      const old = WORDS.map((key) => before(key));
      await locale.set(code);
      const after = value(format);
      replace(WORDS.map((key, k) => [old[k], after(key)]).filter(([a, b]) => a && b && a !== b));
    } catch { /* the words stay as they are */ }
  }

  window.ctlLanguage = (code) => {
    try { localStorage.setItem(KEY, code); } catch { /* private mode */ }
    return change(code);
  };
  let remembered = new URLSearchParams(location.search).get("lang");
  if (!window.ctlLanguages.includes(remembered)) remembered = null;
  try { remembered ||= localStorage.getItem(KEY); } catch { /* private mode */ }
  if (remembered) {
    const again = () => document.querySelector("#tune-button") ? change(remembered) : setTimeout(again, 100);
    again();
  }
})();
