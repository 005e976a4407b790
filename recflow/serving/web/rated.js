// What someone new has liked, with stars where the data has them.
import { byId, make } from "./dom.js";

export function ratedList({ onchange }) {
  const list = byId("rated");
  const entries = new Map();
  let scale = null;

  const steps = () => {
    if (!scale) return []; // the model takes every movie of a history as liked
    const [low, high] = scale;
    const count = Math.floor(high) - Math.ceil(Math.max(low, 1)) + 1;
    return count > 1 && count <= 10 ? Array.from({ length: count }, (_, n) => Math.ceil(Math.max(low, 1)) + n) : [];
  };
  const render = () => {
    list.replaceChildren(...[...entries.values()].map(({ item, rating }) => make("li", {},
      make("span", { class: "name" }, item.title),
      make("button", { type: "button", class: "drop", "aria-label": `Remove ${item.title}`, onclick: () => remove(item) }, "×"),
      steps().length ? stars(item, rating) : null)));
  };
  const stars = (item, rating) => make("div", { class: "stars", role: "radiogroup", "aria-label": `Stars for ${item.title}` },
    ...steps().map((step) => make("label", { class: step <= rating ? "on" : "" }, make("input", {
      type: "radio", name: `stars-${item.item_id}`, value: step, checked: step === rating, "aria-label": `${step} of ${steps().at(-1)}`,
      onchange: () => {
        entries.get(String(item.item_id)).rating = step;
        render();
        list.querySelector(`input[name="${CSS.escape(`stars-${item.item_id}`)}"]:checked`)?.focus();
        onchange();
      },
    }))));
  const remove = (item) => {
    entries.delete(String(item.item_id));
    render();
    byId("search").focus();
    onchange();
  };

  return {
    add(item) {
      const best = steps().at(-1) ?? null;
      if (!entries.has(String(item.item_id))) entries.set(String(item.item_id), { item, rating: best });
      render();
      onchange();
    },
    use(newScale) {
      scale = newScale;
      render();
    },
    history: () => [...entries.values()].map(({ item, rating }) => (rating == null || !steps().length ? { item: item.item_id } : { item: item.item_id, rating })),
    size: () => entries.size,
  };
}
