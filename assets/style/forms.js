/* The form of a method's settings: a gr.HTML component whose event tells the method and the values of all its settings. */
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
  window.ctlValues = (form) => ({
    method: form.dataset.method,
    values: Object.fromEntries([...form.querySelectorAll("[data-setting]")].map((field) => [field.dataset.setting, read(field)])),
  });
  window.ctlForm = (element, trigger) => element.addEventListener("change", (event) => {
    trigger("input", window.ctlValues(event.target.closest(".ctl-form")));
  });
})();
