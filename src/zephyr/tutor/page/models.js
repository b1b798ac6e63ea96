/** The choice of a model; all ways of working share the last one made. */

import { make, newId } from "./dom.js";
import { lasting } from "./store.js";

const chosen = new EventTarget();

/** The model that answers next. */
export function currentModel(models) {
  const kept = lasting.get("model");
  return models.some(({ id }) => id === kept) ? kept : models[0].id;
}

export function modelChoice(models, words = "Model") {
  const id = newId("model");
  const name = ({ id, about }) => (about ? `${id} · ${about}` : id);
  const select = make(
    "select",
    { id },
    ...models.map((model) => make("option", { value: model.id }, name(model))),
  );
  const show = () => (select.value = currentModel(models));
  show();
  select.addEventListener("change", () => {
    lasting.set("model", select.value);
    chosen.dispatchEvent(new Event("change"));
  });
  chosen.addEventListener("change", show);
  return make(
    "span",
    { class: "choice" },
    make("label", { for: id, class: "choice-label" }, words),
    select,
  );
}
