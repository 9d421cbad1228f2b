// Keeps the page true while events come, and sends what an operator orders. The page itself is made by the server: this
// script fetches it anew and takes over what has changed.
"use strict";

document.documentElement.classList.add("scripted");

const QUIET_MS = 150;    // events come in flocks
const APART_MS = 2000;   // so often at most, however many come
const RETRY_MS = 10000;  // after the server refused the stream

// Takes `now` over into `old`, touching only what differs, so that focus, selection and scrolling stay.
function take(old, now) {
  if (old.isEqualNode(now) || (old.nodeName === "DIALOG" && old.open)) return;
  if (old.nodeName !== now.nodeName) return old.replaceWith(now.cloneNode(true));
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.data = now.data);
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const keyed = new Map([...old.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  let place = old.firstChild;
  for (const one of now.childNodes) {
    const same = one.dataset && one.dataset.key ? keyed.get(one.dataset.key) : place;
    if (!same || (same.dataset && same.dataset.key && same.dataset.key !== one.dataset?.key)) {
      old.insertBefore(one.cloneNode(true), place);
      continue;
    }
    if (same !== place) old.insertBefore(same, place);
    const next = same.nextSibling;
    take(same, one);
    place = next;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

let due = 0, last = 0, busy = false, missed = false;

// Soon, once for all that comes until then, and not while nobody looks.
function refresh() {
  missed = true;
  if (due || busy || document.hidden) return;
  due = setTimeout(fetchAnew, Math.max(QUIET_MS, last + APART_MS - Date.now()));
}

async function fetchAnew() {
  due = 0;
  busy = true;
  missed = false;
  last = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const now = page.getElementById(part.id);
        if (now) take(part, now);
      }
    }
  } catch {
    // The server is gone: the stream says so, and its return brings all that was missed.
  }
  busy = false;
  if (missed) refresh();
}

function say(live) {
  const place = document.getElementById("live");
  place.hidden = false;
  place.className = live ? "yes" : "no";
  place.textContent = live ? "Live" : "Not live";
}

function follow() {
  let wasLost = false;
  const stream = new EventSource(document.body.dataset.stream);
  stream.onopen = () => {
    say(true);
    if (wasLost) refresh();
    wasLost = false;
  };
  stream.onerror = () => {
    say(false);
    wasLost = true;
    // The browser comes back by itself, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => { follow(); refresh(); }, RETRY_MS);
  };
  for (const kind of ["message", "fleet", "anew"]) stream.addEventListener(kind, refresh);
  addEventListener("pagehide", () => stream.close(), { once: true });
}

// The same words as the server's.
function fromNow(then) {
  const seconds = Math.trunc((Date.now() - then) / 1000), away = Math.abs(seconds), days = away / 86400;
  if (away < 5) return "just now";
  const [number, unit] =
    away < 60 ? [away, "s"]
    : away < 3600 ? [away / 60, "min"]
    : days < 2 ? [away / 3600, "h"]
    : days < 60 ? [days, "days"]
    : days < 730 ? [days / 30, "months"]
    : [days / 365, "years"];
  return seconds < 0 ? `in ${Math.trunc(number)} ${unit}` : `${Math.trunc(number)} ${unit} ago`;
}

function grow() {
  for (const time of document.querySelectorAll("main time")) {
    const words = fromNow(Date.parse(time.dateTime));
    if (time.textContent !== words && !words.startsWith("NaN")) time.firstChild.data = words;
  }
}

async function order(form) {
  const body = {};
  for (const field of form.querySelectorAll("input")) {
    body[field.name] = field.type !== "number" ? field.value : field.value === "" ? null : Number(field.value);
  }
  const init = { method: form.dataset.method, headers: { "Content-Type": "application/json" } };
  if (Object.keys(body).length) init.body = JSON.stringify(body);
  try {
    const answer = await fetch(form.dataset.to, init);
    if (answer.ok) return [form.dataset.done, true];
    const problem = await answer.json().catch(() => ({}));
    return [`Nothing was changed: ${problem.detail || `the server answered ${answer.status}`}.`, false];
  } catch {
    return ["The server did not answer, so it is not known whether anything was changed. Look again.", false];
  }
}

addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.to) return;
  event.preventDefault();
  const button = form.querySelector("button:not([data-closes])"), place = document.getElementById("answer");
  button.disabled = true;
  const [words, done] = await order(form);
  button.disabled = false;
  form.closest("dialog")?.close();
  place.className = done ? "done" : "failed";
  place.setAttribute("role", done ? "status" : "alert");
  place.textContent = words;
  last = 0;
  await fetchAnew();
  if (document.activeElement === document.body) place.focus();
});

addEventListener("click", ({ target }) => {
  if (target.dataset.opens) document.getElementById(target.dataset.opens).showModal();
  if ("closes" in target.dataset) target.closest("dialog").close();
});

addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  if (event.key !== "/" || !search || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  event.preventDefault();
  search.focus();
  search.select();
});

addEventListener("visibilitychange", () => { if (missed) refresh(); });
setInterval(grow, 5000);
if (document.body.dataset.stream) follow();
