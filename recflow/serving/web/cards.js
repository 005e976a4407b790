// Lists of movies, and what stands there while there is no list.
import { make } from "./dom.js";
import { poster } from "./poster.js";

export function cards(found, { stars, path, reason, onsimilar, onlike }) {
  const scores = found.map((item) => item.score).filter((score) => score != null);
  const range = { low: Math.min(...scores), high: Math.max(...scores) };
  return found.map((item, place) => {
    const art = make("div", { class: "poster" }, poster(item), make("span", { class: "rank" }, String(item.rank)),
      make("h3", {}, withoutYear(item.title)));
    const card = make("li", { class: "card", "data-item": item.item_id }, art, facts(item), strength(item, range, stars, path),
      because(item.because ?? [], reason),
      make("div", { class: "acts" },
        make("button", { type: "button", class: "similar", "aria-label": `More like ${item.title}`, onclick: () => onsimilar(item) }, "More like this"),
        make("button", { type: "button", class: "like", "aria-label": `I liked ${item.title}`, onclick: () => onlike(item) }, "Liked it")));
    card.style.animationDelay = `${Math.min(place, 12) * 25}ms`;
    return card;
  });
}

export function waiting(count) {
  return Array.from({ length: count }, () => make("li", { class: "card waiting", "aria-hidden": "true" },
    make("div", { class: "poster" }), make("div", { class: "line" }), make("div", { class: "line" })));
}

export function message(place, heading, text, label, act) {
  place.replaceChildren(make("h2", {}, heading), make("p", {}, text),
    label ? make("button", { type: "button", class: "strong", onclick: act }, label) : "");
  place.hidden = false;
}

export function withoutYear(title) {
  return title.replace(/ \(\d{4}\)$/, "");
}

function facts(item) {
  return make("p", { class: "facts" }, item.year == null ? null : make("b", {}, `${item.year} `),
    ...item.genres.flatMap((genre, place) => [place ? ", " : "", make("span", {}, genre)]));
}

function strength(item, { low, high }, stars, path) {
  if (path === "popular") return make("p", { class: "facts" }, `${item.popularity.toLocaleString("en")} ratings`);
  if (item.score == null) return null;
  const shown = stars ? `★ ${item.score.toFixed(1)}` : item.score.toFixed(2);
  const value = high > low ? 0.12 + (0.88 * (item.score - low)) / (high - low) : 1;
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.setProperty("--share", `${value * 100}%`);
  return make("div", { class: "strength", title: stars ? "the rating that the model expects" : "the model's score; only the order has a meaning" },
    bar, make("span", { "aria-label": `score ${shown}`, role: "img" }, shown));
}

function because(titles, reason) {
  if (!titles.length) return null;
  const named = titles.flatMap((title, place) => [place ? " and " : "", make("em", {}, withoutYear(title))]);
  return make("p", { class: "why" }, `${reason} `, ...named);
}
