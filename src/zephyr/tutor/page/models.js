/** The select of a model; all tabs share its value. */

import { make, uniqueId } from "./dom.js";
import { localStore } from "./storage.js";

const changes = new EventTarget();

/** The model that is selected. */
export function currentModel(models) {
  const stored = localStore.get("model");
  return models.some(({ id }) => id === stored) ? stored : models[0].id;
}

export function modelSelect(models, label = "Model") {
  const id = uniqueId("model");
  const optionText = ({ id, about }) => (about ? `${id} · ${about}` : id);
  const select = make(
    "select",
    { id },
    ...models.map((model) => make("option", { value: model.id }, optionText(model))),
  );
  const update = () => (select.value = currentModel(models));
  update();
  select.addEventListener("change", () => {
    localStore.set("model", select.value);
    changes.dispatchEvent(new Event("change"));
  });
  changes.addEventListener("change", update);
  return make(
    "span",
    { class: "choice" },
    make("label", { for: id, class: "choice-label" }, label),
    select,
  );
}
