// The page: what is asked on the left is answered on the right, at once.
import { ask, setKey } from "./api.js";
import { cards, message, waiting } from "./cards.js";
import { byId, later, make } from "./dom.js";
import { filters } from "./filters.js";
import { ratedList } from "./rated.js";
import { searchField } from "./search.js";
import { similarDialog } from "./similar.js";

const list = byId("cards"), problem = byId("message"), status = byId("status"), user = byId("user"), picker = byId("model");
let models = [], current = null, underWay = null;

const soon = later(recommend, 160);
const wanted = filters({ onchange: soon });
const rated = ratedList({ onchange: soon });
const openSimilar = similarDialog({ model: () => current?.model, onlike: like });
searchField({ model: () => current?.model, onpick: like, onerror: show });

const isNew = () => document.querySelector("input[name=who]:checked").value === "new";

async function start() {
  list.replaceChildren(...waiting(12));
  problem.hidden = true;
  try {
    models = (await ask("models")).models;
  } catch (error) {
    return show(error, start);
  }
  picker.replaceChildren(...models.map(({ model }) => make("option", { value: model }, model)));
  byId("model-field").hidden = models.length < 2;
  use(models[0]);
}

function use(model) {
  current = model;
  byId("served").textContent = `${model.model} on ${model.data} · ${model.users.toLocaleString("en")} users · ${model.items.toLocaleString("en")} movies`;
  byId("users").replaceChildren(...model.example_users.map((id) => make("option", { value: id })));
  user.placeholder = `such as ${model.example_users.slice(0, 3).join(", ")}`;
  wanted.offer(model);
  rated.use(model.heeds_ratings ? model.rating_scale : null);
  recommend();
}

function like(item) {
  document.querySelector("input[name=who][value=new]").checked = true;
  showWho();
  rated.add(item);
}

async function recommend() {
  underWay?.abort();
  if (!current) return;
  const controller = (underWay = new AbortController());
  const asked = { ...wanted.asked(), model: current.model, reasons: true };
  if (!isNew() && user.value.trim()) asked.user_id = user.value.trim();
  else if (isNew() && rated.size()) asked.history = rated.history();
  byId("title").textContent = asked.user_id !== undefined ? `For user ${asked.user_id}` : asked.history ? "For you" : "What to watch next";
  list.setAttribute("aria-busy", "true");
  const patience = setTimeout(() => { status.textContent = "Looking …"; }, 400);
  try {
    const answer = await ask("recommend", asked, controller.signal);
    problem.hidden = true;
    say(answer, asked);
  } catch (error) {
    if (error.name !== "AbortError") show(error, recommend);
  } finally {
    clearTimeout(patience);
    if (underWay === controller) list.removeAttribute("aria-busy");
  }
}

function say(answer, asked) {
  const found = answer.recommendations;
  byId("note").textContent = answer.notes.join(" ");
  byId("note").hidden = !answer.notes.length;
  list.replaceChildren(...cards(found, { stars: current.task === "rating", path: answer.path, reason: reason(asked), onsimilar: openSimilar, onlike: like }));
  status.textContent = found.length ? `${found.length} ${found.length === 1 ? "movie" : "movies"}, ${origin(answer.path, asked)}` : "";
  if (found.length) return;
  const narrowed = wanted.isNarrowed();
  message(problem, "Nothing fits", narrowed ? "No movie that is left has these genres and years." : "There is no movie left to recommend.",
    narrowed ? "Clear the filters" : null, wanted.reset);
}

function reason(asked) {
  const who = asked.user_id === undefined ? "you" : "this user";
  return `because ${who} ${current.task === "rating" ? "rated" : "liked"}`;
}

function origin(path, asked) {
  if (path === "known user") return "from what this user has rated";
  if (path === "fold-in") return asked.history ? `from ${asked.history.length === 1 ? "the movie" : `the ${asked.history.length} movies`} you named` : "from this user's ratings";
  return asked.history || asked.user_id !== undefined ? "the popular ones, since nothing here was liked" : "the popular ones. Name one that you liked, and the list becomes yours.";
}

function show(error, again) {
  if (error.status === 401) return askForKey();
  list.replaceChildren();
  status.textContent = "";
  byId("note").hidden = true;
  const heading = { 0: "No answer", 404: "Not found", 422: "That cannot be", 503: "Busy" }[error.status] ?? "Something went wrong";
  message(problem, heading, error.message, error.status === 404 || error.status === 422 ? null : "Try again", again ?? recommend);
}

function askForKey() {
  list.replaceChildren();
  byId("key-wrong").hidden = !sessionStorage.getItem("recflow-key");
  byId("key-dialog").showModal();
}

function showWho() {
  byId("who-new").hidden = !isNew();
  byId("who-user").hidden = isNew();
}

document.querySelectorAll("input[name=who]").forEach((choice) => choice.addEventListener("change", () => {
  showWho();
  recommend();
}));
user.addEventListener("input", later(recommend, 300));
byId("anyone").addEventListener("click", () => {
  const others = current?.example_users.filter((id) => String(id) !== user.value) ?? [];
  user.value = others[Math.floor(Math.random() * others.length)] ?? "";
  recommend();
});
picker.addEventListener("change", () => use(models.find(({ model }) => model === picker.value)));
byId("panel").addEventListener("submit", (event) => event.preventDefault());
byId("key-form").addEventListener("submit", () => {
  setKey(byId("key").value.trim());
  byId("key").value = "";
  start();
});
if (matchMedia("(max-width: 56rem)").matches) byId("more").open = false;
start();
