// What is like a movie, in a dialog; from there on to what is like that.
import { ask } from "./api.js";
import { cards, message, waiting } from "./cards.js";
import { byId } from "./dom.js";

export function similarDialog({ model, onlike }) {
  const dialog = byId("similar"), list = byId("similar-cards"), problem = byId("similar-message");
  byId("similar-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  return async function open(item) {
    byId("similar-title").textContent = `More like ${item.title}`;
    byId("similar-about").textContent = item.genres.join(", ");
    problem.hidden = true;
    list.replaceChildren(...waiting(8));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    try {
      const answer = await ask("similar", { item_id: item.item_id, top_k: 8, model: model() });
      list.replaceChildren(...cards(answer.similar, {
        onsimilar: open,
        onlike: (liked) => { dialog.close(); onlike(liked); },
      }));
    } catch (error) {
      list.replaceChildren();
      message(problem, "Nothing to show", error.message);
    }
  };
}
