// The field that finds titles as you type: an ARIA combobox, so arrow keys, Enter and Escape do what one expects.
import { ask } from "./api.js";
import { byId, later, make } from "./dom.js";

export function searchField({ model, onpick, onerror }) {
  const field = byId("search"), list = byId("options");
  let found = [], chosen = -1, under_way;

  const close = () => {
    list.hidden = true;
    chosen = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  };
  const choose = (place) => {
    chosen = place;
    [...list.children].forEach((option, n) => option.setAttribute("aria-selected", String(n === place)));
    field.setAttribute("aria-activedescendant", `option-${place}`);
    list.children[place]?.scrollIntoView({ block: "nearest" });
  };
  const pick = (item) => {
    field.value = "";
    close();
    onpick(item);
  };
  const show = () => {
    list.replaceChildren(...found.map((item, place) => make("li", {
      role: "option", id: `option-${place}`, "aria-selected": "false",
      onmousedown: (event) => event.preventDefault(), // the field keeps the focus
      onclick: () => pick(item),
    }, item.title, make("small", {}, item.genres.join(", ")))));
    if (!found.length) list.append(make("li", { class: "none", role: "presentation" }, "No such title"));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    if (found.length) choose(0);
  };
  const look = later(async () => {
    under_way?.abort();
    const typed = field.value.trim();
    if (!typed) return close();
    under_way = new AbortController();
    try {
      found = (await ask("search", { q: typed.slice(0, 200), top_k: 8, model: model() }, under_way.signal)).items;
      show();
    } catch (error) {
      if (error.name !== "AbortError") onerror(error);
    }
  }, 90);

  field.addEventListener("input", look);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter") {
      event.preventDefault();
      if (!list.hidden && found[chosen]) pick(found[chosen]);
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    if (list.hidden) look();
    else if (found.length) choose((chosen + (event.key === "ArrowDown" ? 1 : found.length - 1)) % found.length);
  });
}
