// The page asks the routes beside it and shows what they say. Text of a note, a question, an answer or an
// error gets into the page through textContent alone.

const PLACE = location.pathname;
// Several applications may stand under one origin, each at its own path.
const KEY_NAME = `asclepius-key ${PLACE}`;
const HISTORY_NAME = `asclepius-history ${PLACE}`;
const MOST_FILE_BYTES = 1024 * 1024;
const MOST_HISTORY = 50;
const QUOTED_CHARACTERS = 160;

const at = (id) => document.getElementById(id);

/** Changes while the page lives; what is shown follows from it. */
const state = {
  key: "",
  tasks: [],
  /** The running request, or null. */
  asking: null,
  /** The answer on show, in the form of an entry of the history, or null. */
  shown: null,
  history: [],
  countdown: 0,
};

// ---------------------------------------------------------------- the endpoint

/** What went wrong, in words for the user: a title, a sentence with what to do, seconds to wait. */
class Trouble extends Error {
  constructor(title, text, { status = 0, waitSeconds = 0 } = {}) {
    super(title);
    this.text = text;
    this.status = status;
    this.waitSeconds = waitSeconds;
  }
}

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, {
      ...options,
      headers: { ...options.headers, Authorization: `Bearer ${state.key}` },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(
      "The server cannot be reached",
      "Check that you are on the right network, then ask again. Your note and question are still here.",
    );
  }
  if (!response.ok) throw await troubleOf(response);
  return response;
}

async function requestJson(address) {
  const response = await request(address);
  try {
    return await response.json();
  } catch {
    throw new Trouble("The server gave an answer that this page does not know", "Reload the page.");
  }
}

async function troubleOf(response) {
  const body = await response.json().catch(() => null);
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return describeError(response.status, body?.error ?? {}, Number.isFinite(wait) ? Math.max(wait, 1) : 0);
}

/** An error of the server in words; `error` is its body's {message, code}. */
function describeError(status, error, waitSeconds) {
  // When to come again is said below, and more exactly.
  const said = String(error.message ?? "").replace(/[;,.]? try again soon\.$/i, ".");
  const seconds = waitSeconds === 1 ? "1 second" : `${waitSeconds} seconds`;
  const wait = waitSeconds ? ` Wait ${seconds}, then ask again.` : " Wait a little, then ask again.";
  const options = { status, waitSeconds };
  switch (status) {
    case 401:
      return new Trouble("The key was not accepted", "It may be mistyped, expired or revoked. Enter another key.", options);
    case 403:
      return new Trouble("This key may not ask", "Ask whoever runs this endpoint for a key that may.", options);
    case 404:
      return new Trouble("The model is not there any more", "Reload the page to see which models are served now.", options);
    case 413:
      return new Trouble("The note is too large", "Shorten it to the part that you ask about.", options);
    case 429:
      return new Trouble("Too many requests at the moment", said + wait, options);
    case 503:
      return new Trouble("The model cannot answer now", said + wait, options);
    case 504:
      return new Trouble("The answer took too long", "Ask again, or ask a question with a shorter answer.", options);
    default:
      break;
  }
  if (error.code === "context_length_exceeded") {
    return new Trouble("This does not fit into the model", `${said} Shorten the question or the note.`, options);
  }
  if (status >= 400 && status < 500) return new Trouble("The server did not take this request", said, options);
  return new Trouble("The server failed on this request", `${said}${wait}`.trim(), options);
}

/** The bodies of server-sent events, in order; the end of the stream ends it. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const events = held.split(/\r?\n\r?\n/);
      held = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** Asks, hands on each piece of the answer, and returns the body of the last event. */
async function streamAnswer(body, signal, onDelta) {
  const response = await request("v1/clinical/answers", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  try {
    for await (const data of eventsOf(response)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw describeError(event.error.code === "deadline_exceeded" ? 504 : 500, event.error, 0);
      if (event.type === "answer.delta") onDelta(event.delta);
      if (event.type === "answer.done") return event;
    }
  } catch (error) {
    if (error instanceof Trouble || error.name === "AbortError") throw error;
  }
  throw new Trouble("The answer broke off", "The connection ended before the answer did. Ask again.");
}

// ---------------------------------------------------------------- the key

function openKeyDialog(message = "") {
  showFieldError("key-input", "key-error", message);
  at("key-forget").hidden = !state.key;
  if (!at("key-dialog").open) at("key-dialog").showModal();
  at("key-input").focus();
}

async function takeKey(event) {
  event.preventDefault();
  const key = at("key-input").value.trim();
  // A header takes no other characters, and a key has none.
  if (!/^[\x21-\x7e]+$/.test(key)) {
    openKeyDialog(key ? "A key has no spaces and no letters beyond ASCII. Check what you pasted." : "Enter your key.");
    return;
  }
  const before = state.key;
  state.key = key;
  at("key-submit").setAttribute("aria-disabled", "true");
  try {
    await loadChoices();
  } catch (trouble) {
    state.key = before;
    if (!(trouble instanceof Trouble)) throw trouble;
    openKeyDialog(`${trouble.message}. ${trouble.text}`);
    return;
  } finally {
    at("key-submit").removeAttribute("aria-disabled");
    showKey();
  }
  if (at("remember-key").checked) sessionStorage.setItem(KEY_NAME, key);
  else sessionStorage.removeItem(KEY_NAME);
  closeKeyDialog();
  clearError();
}

function closeKeyDialog() {
  at("key-input").value = "";
  at("key-dialog").close();
}

function forgetKey() {
  state.key = "";
  at("remember-key").checked = false;
  sessionStorage.removeItem(KEY_NAME);
  showKey();
  closeKeyDialog();
}

function showKey() {
  at("key-state").classList.toggle("held", Boolean(state.key));
  at("key-label").textContent = state.key ? "Change key" : "Enter key";
}

/** The models and tasks that this key sees. */
async function loadChoices() {
  const [models, tasks] = await Promise.all(["v1/models", "v1/clinical/tasks"].map(requestJson));
  showModels(models.data.map((model) => model.id));
  showTasks(tasks.data);
}

function showModels(names) {
  const select = at("model-select");
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
  at("model-name").textContent = names[0] ?? "";
  at("model-single").hidden = names.length !== 1;
  at("model-several").hidden = names.length < 2;
}

function showTasks(tasks) {
  const chosen = chosenTask()?.id;
  state.tasks = tasks;
  at("task-list").replaceChildren(
    ...tasks.map((task) => {
      const input = element("input", { type: "radio", name: "task", value: task.id });
      input.checked = task.id === chosen;
      input.addEventListener("change", () => {
        at("question").value = task.question;
        showFieldError("question", "question-error", "");
      });
      return element("label", { className: "task" }, input, element("span", { textContent: task.name }));
    }),
  );
  at("tasks").hidden = !tasks.length;
}

function chosenTask() {
  const input = document.querySelector("input[name='task']:checked");
  return state.tasks.find((task) => task.id === input?.value);
}

/** A question that is changed is the user's own. */
function dropTaskOfOtherWords() {
  const task = chosenTask();
  if (task && at("question").value !== task.question) {
    document.querySelector("input[name='task']:checked").checked = false;
  }
}

// ---------------------------------------------------------------- the note

function setNote(text) {
  at("note").value = text;
  showFieldError("note", "note-error", "");
  editNote();
}

function editNote() {
  at("note").hidden = false;
  at("note-view").hidden = true;
  at("edit-button").hidden = true;
  countNote();
}

function countNote() {
  const text = at("note").value;
  const words = text.match(/\S+/g)?.length ?? 0;
  at("note-count").textContent = words ? `${words.toLocaleString("en")} ${words === 1 ? "word" : "words"}` : "";
  at("clear-note-button").hidden = !text;
}

/** The note as it was asked about, its passages marked. */
function showNote(note, passages) {
  const view = at("note-view");
  const parts = [];
  let end = 0;
  for (const { from, to } of inUnits(note, passages)) {
    if (from < end || to <= from) continue;
    parts.push(note.slice(end, from), element("mark", { tabIndex: -1, textContent: note.slice(from, to) }));
    end = to;
  }
  parts.push(note.slice(end));
  view.replaceChildren(...parts);
  view.hidden = false;
  at("note").hidden = true;
  at("edit-button").hidden = Boolean(state.asking);
}

/** The passages in the order of the note, their ends in UTF-16 units: the server counts characters. */
function inUnits(note, passages) {
  const sorted = [...passages].sort((one, other) => one.start - other.start);
  const wanted = new Set(sorted.flatMap(({ start, end }) => [start, end]));
  const units = new Map();
  let characters = 0;
  let length = 0;
  for (const character of note) {
    if (wanted.has(characters)) units.set(characters, length);
    characters += 1;
    length += character.length;
  }
  if (wanted.has(characters)) units.set(characters, length);
  return sorted
    .map((passage) => ({ from: units.get(passage.start), to: units.get(passage.end), score: passage.score }))
    .filter(({ from, to }) => from !== undefined && to !== undefined);
}

/** Scrolls the note alone: on a phone the answer stays where it is. */
function scrollToBest(passages) {
  const marks = at("note-view").querySelectorAll("mark");
  if (!marks.length) return;
  const scores = passages.map((passage) => passage.score);
  const best = marks[scores.indexOf(Math.max(...scores))] ?? marks[0];
  const view = at("note-view");
  const distance = best.getBoundingClientRect().top - view.getBoundingClientRect().top;
  view.scrollTop += distance - (view.clientHeight - Math.min(best.offsetHeight, view.clientHeight)) / 2;
}

async function openFiles(files) {
  const complain = (text) => showFieldError("note", "note-error", text);
  if (state.asking) return complain("Wait for the answer or stop it before you open another note.");
  if (files.length !== 1) return complain("Open one text file at a time.");
  const [file] = files;
  if (file.size > MOST_FILE_BYTES) return complain("That file is larger than 1 MiB. Open a text file with one note.");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    return complain("That file is not plain text in UTF-8. Save it as a text file, or paste the note.");
  }
  // Text files hold neither; PDF and office files are mostly caught above.
  if (/[\0]|^%PDF-/.test(text)) return complain("That is not a text file. Save it as plain text, or paste the note.");
  if (!text.trim()) return complain("That file is empty.");
  setNote(text);
  announce("Note opened.");
}

function showFieldError(fieldId, errorId, text) {
  at(errorId).textContent = text;
  at(errorId).hidden = !text;
  if (text) at(fieldId).setAttribute("aria-invalid", "true");
  else at(fieldId).removeAttribute("aria-invalid");
}

// ---------------------------------------------------------------- asking

async function ask() {
  if (state.asking || state.countdown) return;
  const note = at("note").value.toWellFormed();
  const question = at("question").value.toWellFormed().trim();
  const task = chosenTask();
  showFieldError("note", "note-error", note.trim() ? "" : "Paste a note, or open a text file.");
  showFieldError("question", "question-error", question ? "" : "Write a question, or choose a task.");
  if (!note.trim()) return (editNote(), at("note").focus());
  if (!question) return at("question").focus();
  if (!state.key) return openKeyDialog();
  const model = at("model-select").value;
  const asked = task ? { task: task.id } : { question };
  const body = { note, ...asked, stream: true, ...(model && { model }) };
  await answerTo(body, { note, question, model });
}

async function answerTo(body, asked) {
  const asking = { controller: new AbortController(), started: performance.now(), first: null, answer: "" };
  state.asking = asking;
  const speaker = new Speaker();
  showRunning(asked);
  try {
    const done = await streamAnswer(body, asking.controller.signal, (delta) => {
      if (asking.first === null) asking.first = (performance.now() - asking.started) / 1000;
      asking.answer += delta;
      at("answer").append(delta);
      speaker.add(delta);
    });
    speaker.finish();
    finish(asked, done, asking);
  } catch (error) {
    speaker.finish();
    if (error.name === "AbortError") showStopped(asking);
    else if (error instanceof Trouble) showError(error, asking);
    else throw error;
  } finally {
    state.asking = null;
    showIdle();
  }
}

function finish(asked, done, asking) {
  const entry = {
    at: new Date().toISOString(),
    ...asked,
    model: done.model,
    answer: done.answer,
    passages: done.passages,
    usage: done.usage,
    firstSeconds: done.seconds?.first_token ?? asking.first,
    totalSeconds: done.seconds?.total ?? (performance.now() - asking.started) / 1000,
    wasShortened: done.note_was_shortened,
    wasCut: done.finish_reason === "length",
  };
  remember(entry);
  showEntry(entry);
  const count = entry.passages.length;
  const marked = count === 1 ? "1 passage of the note is marked." : `${count} passages of the note are marked.`;
  announce(`Answer complete. ${count ? marked : "No passage of the note is marked."}`);
}

function showRunning(asked) {
  state.shown = null;
  clearError();
  for (const id of ["empty", "remarks", "passages", "figures", "copy-button", "answer"]) at(id).hidden = true;
  at("answer").replaceChildren();
  at("answer").hidden = false;
  at("answer").setAttribute("aria-busy", "true");
  at("asked").textContent = asked.question;
  at("asked").hidden = false;
  showNote(asked.note, []);
  at("progress").classList.add("running");
  at("progress").textContent = "Answering";
  swap("ask-button", "stop-button");
  for (const id of ["file-button", "clear-note-button"]) at(id).setAttribute("aria-disabled", "true");
}

function showIdle() {
  at("answer").removeAttribute("aria-busy");
  at("answer").hidden = !at("answer").textContent;
  at("progress").classList.remove("running");
  at("edit-button").hidden = at("note-view").hidden;
  swap("stop-button", "ask-button");
  for (const id of ["file-button", "clear-note-button"]) at(id).removeAttribute("aria-disabled");
}

/** Hides one button for the other, which takes over the focus. */
function swap(from, to) {
  const hadFocus = document.activeElement === at(from);
  at(to).hidden = false;
  if (hadFocus) at(to).focus();
  at(from).hidden = true;
}

function showStopped(asking) {
  at("progress").textContent = "";
  showRemarks(["You stopped this answer; it is not complete."]);
  if (asking.answer) at("copy-button").hidden = false;
  announce("Stopped.");
}

/** Shows a finished answer: the note with its passages, the figures, what is to be remarked. */
function showEntry(entry) {
  state.shown = entry;
  clearError();
  at("empty").hidden = true;
  at("progress").textContent = "";
  at("asked").textContent = entry.question;
  at("asked").hidden = false;
  at("answer").textContent = entry.answer;
  at("answer").hidden = !entry.answer;
  at("copy-button").hidden = !entry.answer;
  showNote(entry.note, entry.passages);
  scrollToBest(entry.passages);
  showPassages(entry);
  showFigures(entry);
  const remarks = [];
  if (!entry.answer.trim()) remarks.push("The model ended without an answer.");
  if (entry.wasShortened) {
    remarks.push("The note was shortened: it is too long for this model, and sentences behind its middle were left out.");
  }
  if (entry.wasCut) remarks.push("The answer was cut off at the greatest length that is allowed here.");
  if (entry.answer.trim() && !entry.passages.length) {
    remarks.push("No passage of the note holds enough of this answer. Check it against the note with care.");
  }
  showRemarks(remarks);
}

function showRemarks(remarks) {
  at("remarks").replaceChildren(...remarks.map((text) => element("li", { textContent: text })));
  at("remarks").hidden = !remarks.length;
}

function showPassages(entry) {
  const marks = [...at("note-view").querySelectorAll("mark")];
  at("passage-list").replaceChildren(
    ...marks.map((mark, place) => {
      const text = mark.textContent;
      const quoted = text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS).toWellFormed()}…` : text;
      const button = element("button", { type: "button", textContent: quoted });
      button.setAttribute("aria-label", `Show passage ${place + 1} of ${marks.length} in the note: ${quoted}`);
      button.addEventListener("click", () => {
        const stillShown = state.shown === entry && mark.isConnected && !at("note-view").hidden;
        if (!stillShown) showNote(entry.note, entry.passages);
        const target = at("note-view").querySelectorAll("mark")[place];
        target.scrollIntoView({ block: "center" });
        target.focus({ preventScroll: true });
      });
      return element("li", {}, button);
    }),
  );
  at("passages").hidden = !marks.length;
}

function showFigures({ usage, firstSeconds, totalSeconds }) {
  const tokens = (count) => `${count.toLocaleString("en")} ${count === 1 ? "token" : "tokens"}`;
  const seconds = (value) => (value === null ? "–" : `${value.toFixed(value < 10 ? 2 : 1)} s`);
  at("figure-prompt").textContent = tokens(usage.prompt_tokens);
  at("figure-answer").textContent = tokens(usage.completion_tokens);
  at("figure-first").textContent = seconds(firstSeconds);
  at("figure-total").textContent = seconds(totalSeconds);
  at("figures").hidden = false;
}

async function copyAnswer() {
  const button = at("copy-button");
  let words = "Copied";
  try {
    await navigator.clipboard.writeText(at("answer").textContent);
  } catch {
    // Without HTTPS a browser gives no clipboard: the answer is selected, ready for Ctrl+C.
    getSelection().selectAllChildren(at("answer"));
    words = "Selected";
  }
  button.textContent = words;
  announce(words === "Copied" ? "Answer copied." : "Answer selected. Copy it with Control C.");
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

// ---------------------------------------------------------------- errors

function showError(trouble, asking) {
  at("progress").textContent = "";
  at("error-title").textContent = trouble.message;
  at("error-text").textContent = trouble.text;
  at("error").hidden = false;
  if (asking.answer) showRemarks(["What stands above is only the beginning of an answer."]);
  const button = at("error-button");
  button.hidden = false;
  if (trouble.status === 401) {
    button.textContent = "Enter another key";
    button.onclick = () => openKeyDialog();
  } else {
    button.textContent = "Ask again";
    button.onclick = ask;
    countDown(trouble.waitSeconds);
  }
}

/** The button says how long to wait: read when it is reached, not called out each second. */
function countDown(seconds) {
  if (!seconds) return;
  const button = at("error-button");
  const ends = performance.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((ends - performance.now()) / 1000);
    if (left <= 0) return endCountdown();
    button.textContent = `Ask again in ${left} s`;
  };
  for (const id of ["error-button", "ask-button"]) at(id).setAttribute("aria-disabled", "true");
  state.countdown = setInterval(tick, 250);
  tick();
}

function endCountdown() {
  clearInterval(state.countdown);
  state.countdown = 0;
  at("error-button").textContent = "Ask again";
  for (const id of ["error-button", "ask-button"]) at(id).removeAttribute("aria-disabled");
}

function clearError() {
  if (state.countdown) endCountdown();
  at("error").hidden = true;
  at("error-button").hidden = true;
}

// ---------------------------------------------------------------- a screen reader

/** Hands an answer to the screen reader in whole sentences, so that it is not read out in pieces. */
class Speaker {
  #held = "";

  constructor() {
    at("spoken").replaceChildren();
  }

  add(text) {
    this.#held += text;
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => this.#held.lastIndexOf(mark)));
    if (end < 0) return;
    announce(this.#held.slice(0, end + 1));
    this.#held = this.#held.slice(end + 1);
  }

  finish() {
    announce(this.#held);
    this.#held = "";
  }
}

function announce(text) {
  if (!text.trim()) return;
  const line = element("p", { textContent: text });
  at("spoken").append(line);
  // Said; a reader who walks through the page shall not meet the answer twice.
  setTimeout(() => line.remove(), 20_000);
}

// ---------------------------------------------------------------- the history

function remember(entry) {
  state.history = [entry, ...state.history].slice(0, MOST_HISTORY);
  storeHistory();
  showHistory();
}

/** Writes the history to this device if the user wants it there, and takes it away if not. */
function storeHistory() {
  if (!at("keep-history").checked) return localStorage.removeItem(HISTORY_NAME);
  try {
    localStorage.setItem(HISTORY_NAME, JSON.stringify(state.history));
  } catch {
    at("keep-history").checked = false;
    localStorage.removeItem(HISTORY_NAME);
    announce("This browser has no room for the history; it is kept in this tab only.");
  }
}

function loadHistory() {
  const stored = localStorage.getItem(HISTORY_NAME);
  if (stored === null) return;
  at("keep-history").checked = true;
  try {
    state.history = JSON.parse(stored);
  } catch {
    localStorage.removeItem(HISTORY_NAME);
  }
}

function clearHistory() {
  state.history = [];
  storeHistory();
  showHistory();
  at("history-title").focus();
  announce("History cleared.");
}

function showHistory() {
  const { history } = state;
  at("history").replaceChildren(
    ...history.map((entry) => {
      const time = new Date(entry.at);
      const button = element(
        "button",
        { type: "button" },
        element("span", { className: "line", textContent: entry.question }),
        element("time", {
          dateTime: entry.at,
          textContent: time.toLocaleString([], { dateStyle: "short", timeStyle: "short" }),
        }),
        element("span", { className: "line answer-line", textContent: entry.answer }),
      );
      button.addEventListener("click", () => restore(entry));
      return element("li", {}, button);
    }),
  );
  at("history").hidden = !history.length;
  at("clear-history-button").hidden = !history.length;
  at("history-count").textContent = history.length ? String(history.length) : "";
  at("history-place").textContent = at("keep-history").checked
    ? "Notes, questions and answers are kept in this browser’s storage on this device until you clear them. Others who use this device may read them."
    : "Notes, questions and answers are kept in this tab’s memory only, and are gone when you reload or close it.";
}

function restore(entry) {
  if (state.asking) return announce("Wait for the answer or stop it first.");
  at("note").value = entry.note;
  at("question").value = entry.question;
  dropTaskOfOtherWords();
  countNote();
  showEntry(entry);
  showIdle();
  at("answer-title").focus();
}

// ---------------------------------------------------------------- the page itself

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A button that is out of use stays in the order of the keyboard; it only does nothing. */
function onClick(id, action) {
  at(id).addEventListener("click", () => {
    if (at(id).getAttribute("aria-disabled") !== "true") action();
  });
}

function listenForFiles() {
  let depth = 0;
  const drag = (change) => {
    depth = change === 0 ? 0 : depth + change;
    document.body.classList.toggle("dragging", depth > 0);
  };
  const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragenter", (event) => holdsFiles(event) && drag(1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && drag(-1));
  // A file that is dropped beside the note must not open in place of the page.
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    drag(0);
    openFiles([...event.dataTransfer.files]);
  });
  onClick("file-button", () => at("file-input").click());
  at("file-input").addEventListener("change", async () => {
    await openFiles([...at("file-input").files]);
    at("file-input").value = "";
  });
}

function listen() {
  onClick("key-button", () => openKeyDialog());
  onClick("key-cancel", closeKeyDialog);
  onClick("key-forget", forgetKey);
  at("key-form").addEventListener("submit", takeKey);
  at("key-dialog").addEventListener("cancel", () => (at("key-input").value = ""));
  onClick("edit-button", () => (editNote(), at("note").focus()));
  onClick("clear-note-button", () => (setNote(""), at("note").focus()));
  at("note").addEventListener("input", () => (countNote(), showFieldError("note", "note-error", "")));
  at("question").addEventListener("input", () => {
    dropTaskOfOtherWords();
    showFieldError("question", "question-error", "");
  });
  at("question-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  onClick("stop-button", () => state.asking?.controller.abort());
  onClick("copy-button", copyAnswer);
  onClick("clear-history-button", clearHistory);
  at("keep-history").addEventListener("change", () => (storeHistory(), showHistory()));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || at("key-dialog").open) return;
    event.preventDefault();
    ask();
  });
  listenForFiles();
}

async function begin() {
  for (const id of ["answer-title", "history-title"]) at(id).tabIndex = -1;
  listen();
  loadHistory();
  showHistory();
  editNote();
  state.key = sessionStorage.getItem(KEY_NAME) ?? "";
  at("remember-key").checked = Boolean(state.key);
  showKey();
  if (!state.key) return openKeyDialog();
  try {
    await loadChoices();
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    openKeyDialog(`${trouble.message}. ${trouble.text}`);
  }
}

begin();
