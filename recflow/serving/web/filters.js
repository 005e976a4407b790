// How many, how varied, which years and genres.
import { byId, make } from "./dom.js";

const SAID = { off: "any", in: "only these", out: "not these" };
const NEXT = { off: "in", in: "out", out: "off" };

export function filters({ onchange }) {
  const genres = byId("genres"), count = byId("count"), diversity = byId("diversity");
  const from = byId("year-from"), to = byId("year-to"), clear = byId("clear");

  const set = (button, state) => {
    button.dataset.state = state;
    button.setAttribute("aria-label", state === "off" ? button.textContent : `${button.textContent}: ${SAID[state]}`);
    button.setAttribute("aria-pressed", String(state !== "off"));
  };
  const say = () => {
    byId("count-shown").value = count.value;
    byId("diversity-shown").value = Number(diversity.value) ? `${Math.round(diversity.value * 100)} %` : "none";
    clear.hidden = !isNarrowed() && diversity.value === "0";
  };
  const chosen = (state) => [...genres.children].filter((button) => button.dataset.state === state).map((button) => button.textContent);
  const isNarrowed = () => Boolean(from.value || to.value || chosen("in").length || chosen("out").length);
  const changed = () => {
    say();
    onchange();
  };
  const reset = () => {
    [...genres.children].forEach((button) => set(button, "off"));
    from.value = to.value = "";
    diversity.value = "0";
    changed();
  };

  for (const field of [count, diversity, from, to]) field.addEventListener("input", changed);
  clear.addEventListener("click", reset);
  say();

  return {
    reset,
    isNarrowed,
    offer(model) {
      const kept = { in: chosen("in"), out: chosen("out") };
      genres.replaceChildren(...model.genres.slice(0, 40).map((genre) => {
        const button = make("button", { type: "button", onclick: () => { set(button, NEXT[button.dataset.state]); changed(); } }, genre);
        set(button, kept.in.includes(genre) ? "in" : kept.out.includes(genre) ? "out" : "off");
        return button;
      }));
      byId("genres-field").hidden = !model.genres.length;
      document.querySelector(".years").hidden = !model.years;
      [from.placeholder, to.placeholder] = (model.years ?? ["", ""]).map(String);
      diversity.closest(".slider").hidden = !model.diversity_by;
      say();
    },
    asked() {
      const asked = { top_k: Number(count.value), diversity: Number(diversity.value) };
      if (from.value) asked.year_from = Number(from.value);
      if (to.value) asked.year_to = Number(to.value);
      if (chosen("in").length) asked.genres = chosen("in");
      if (chosen("out").length) asked.exclude_genres = chosen("out");
      return asked;
    },
  };
}
