/* The form of a method's settings: a gr.HTML component whose event tells the values of all settings that were changed
 * since the form was drawn, and when: of which drawing this is which change. */
(() => {
  "use strict";
  /* A switch gives true or false, several boxes their names with commas, a number itself, or "" where it is none. */
  const read = (field) => {
    if (field.tagName === "FIELDSET") return [...field.querySelectorAll("input:checked")].map((box) => box.value).join(",");
    const input = field.querySelector("input, select, textarea");
    if (input.type === "checkbox") return input.checked;
    if (input.type === "number") return Number.isNaN(input.valueAsNumber) ? "" : input.valueAsNumber;
    return input.value;
  };
  window.ctlValues = (form, names) => {
    const fields = [...form.querySelectorAll("[data-setting]")].filter((field) => !names || names.has(field.dataset.setting));
    return Object.fromEntries(fields.map((field) => [field.dataset.setting, read(field)]));
  };
  window.ctlForm = (element, trigger) => {
    let changes = 0;
    element.addEventListener("change", (event) => {
      const form = event.target.closest(".ctl-form"), { method, preset, drawn } = form.dataset;
      form.changed = (form.changed || new Set()).add(event.target.closest("[data-setting]").dataset.setting);
      trigger("input", { method, preset, values: window.ctlValues(form, form.changed), when: [Number(drawn), ++changes] });
    });
  };
})();
