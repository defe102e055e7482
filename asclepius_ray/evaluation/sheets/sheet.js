// Shows one item at a time, keeps grades and comments in the browser, saves them as a file.

const { sheet, rater } = document.body.dataset;
const STORE = `asclepius-sheet ${sheet} ${rater}`;
const at = (id) => document.getElementById(id);
const items = [...document.querySelectorAll(".item")];
const places = [...document.querySelectorAll("fieldset")];
const comments = [...document.querySelectorAll("textarea")];

/** Grades and comments by "item/label", and the item on show; what is shown follows from it. */
let state = { grades: {}, comments: {}, item: items[0].id };
/** Whether the last change reached the browser's store or a saved file. */
let isKept = true;
/** Whether the browser's store has all that is here. */
let isStored = true;

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
    isKept = isStored = true;
  } catch {
    isKept = isStored = false;
    at("not-kept").hidden = false;
  }
}

function recall() {
  try {
    const kept = localStorage.getItem(STORE);
    if (kept === null) return;
    const found = JSON.parse(kept);
    state = { grades: found.grades ?? {}, comments: found.comments ?? {}, item: found.item ?? state.item };
  } catch {
    // What cannot be read is as good as nothing: the next grade writes it anew.
  }
  if (!items.some((item) => item.id === state.item)) state.item = items[0].id;
}

/** What the same sheet in another tab kept counts here, or the last to write would undo it. */
function recallOtherTabs() {
  // What is in this tab alone would be lost.
  if (!isStored) return;
  const { item } = state;
  recall();
  state.item = item;
}

function show() {
  for (const item of items) item.hidden = item.id !== state.item;
  for (const place of places) {
    const grade = state.grades[place.dataset.place];
    for (const choice of place.querySelectorAll("input")) choice.checked = Number(choice.value) === grade;
  }
  for (const comment of comments) {
    const kept = state.comments[comment.dataset.place] ?? "";
    if (comment.value !== kept) comment.value = kept;
  }
  showProgress();
}

function showProgress() {
  const graded = places.filter((place) => state.grades[place.dataset.place]).length;
  at("progress-text").textContent = `${graded} of ${places.length} answers graded`;
  at("progress").value = graded;
  const index = items.findIndex((item) => item.id === state.item);
  at("previous").disabled = index === 0;
  at("next").disabled = index === items.length - 1;
  at("next-ungraded").disabled = graded === places.length;
}

function goTo(item) {
  recallOtherTabs();
  state.item = item.id;
  keep();
  show();
  scrollTo(0, item.offsetTop - 8);
  item.querySelector("h2").focus({ preventScroll: true });
  at("told").textContent = "";
}

function step(by) {
  goTo(items[items.findIndex((item) => item.id === state.item) + by]);
}

/** The first answer without a grade, from the item after the one on show on, and round to it again. */
function goToUngraded() {
  const index = items.findIndex((item) => item.id === state.item);
  const order = [...items.slice(index + 1), ...items.slice(0, index + 1)];
  const isOpen = (place) => !state.grades[place.dataset.place];
  const item = order.find((one) => [...one.querySelectorAll("fieldset")].some(isOpen));
  if (!item) return;
  goTo(item);
}

function grade(place, value) {
  recallOtherTabs();
  state.grades[place.dataset.place] = value;
  keep();
  showProgress();
}

/** Keys 1-4 within an answer's grades set one and go on; elsewhere they are typed as ever. */
function gradeByKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !["1", "2", "3", "4"].includes(event.key)) return;
  const place = event.currentTarget;
  event.preventDefault();
  place.querySelector(`input[value="${event.key}"]`).checked = true;
  grade(place, Number(event.key));
  const following = places[places.indexOf(place) + 1];
  if (following?.dataset.item === place.dataset.item) {
    (following.querySelector("input:checked") ?? following.querySelector("input")).focus();
  } else {
    at(at("next").disabled ? "save" : "next").focus();
  }
}

function save() {
  const grades = places.map(({ dataset: { place, item, label } }) => ({
    item,
    label,
    grade: state.grades[place] ?? null,
    comment: state.comments[place] ?? "",
  }));
  const content = { form: "asclepius grades 1", sheet, rater, saved: new Date().toISOString(), grades };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `grades-${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  isKept = true;
  const missing = grades.filter((one) => one.grade === null).length;
  at("told").textContent = missing
    ? `Saved as ${link.download}; ${missing} answers have no grade yet.`
    : `Saved as ${link.download}; every answer has a grade.`;
}

for (const place of places) {
  place.addEventListener("change", (event) => grade(place, Number(event.target.value)));
  place.addEventListener("keydown", gradeByKey);
}
for (const comment of comments) {
  comment.addEventListener("input", () => {
    recallOtherTabs();
    state.comments[comment.dataset.place] = comment.value;
    keep();
  });
}
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("next-ungraded").addEventListener("click", goToUngraded);
at("save").addEventListener("click", save);
addEventListener("beforeunload", (event) => {
  if (!isKept) event.preventDefault();
});
function showOtherTabs() {
  recallOtherTabs();
  show();
}
addEventListener("storage", (event) => event.key === STORE && showOtherTabs());
addEventListener("focus", showOtherTabs);

recall();
keep();
show();
