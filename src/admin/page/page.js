// Keeps the page fresh: alerts as they happen, the rest every two seconds. The server renders all of it; this swaps parts in.
"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  root.dataset.js = "";

  // Light or dark: the system's wish until somebody clicks.
  const kept = localStorage.getItem("theme");
  if (kept) root.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });

  const say = (text) => { $("said").textContent = text; };

  // "3 min ago" beside the exact time that the server wrote.
  const ago = (ms) => {
    const s = Math.max(0, Math.round((Date.now() - ms) / 1000));
    if (s < 60) return s + " s ago";
    if (s < 3600) return Math.floor(s / 60) + " min ago";
    if (s < 86400) return Math.floor(s / 3600) + " h ago";
    return Math.floor(s / 86400) + " d ago";
  };
  const tellTimes = () => document.querySelectorAll("time[data-ms]").forEach((t) => {
    t.title ||= t.textContent;
    t.textContent = ago(Number(t.dataset.ms));
  });

  // Children with the same id stay as they are, so that what is open stays open and what has the focus keeps it.
  const merge = (into, from) => {
    const seen = new Set();
    let at = into.firstElementChild;
    for (const fresh of [...from.children]) {
      const old = fresh.id && document.getElementById(fresh.id);
      const there = old && old.parentElement === into;
      seen.add(fresh.id);
      let kept = fresh;
      if (there && (old.dataset.v === fresh.dataset.v || old.contains(document.activeElement))) {
        kept = old;
      } else {
        if (loaded.has(into.id)) fresh.classList.add("new");
        if (there) {
          if (old.querySelector("details")?.open) fresh.querySelector("details").open = true;
          if (at === old) at = fresh;
          old.replaceWith(fresh);
        }
      }
      // Moving it would take the focus away from what is inside.
      if (kept === at || kept === old && kept.contains(document.activeElement)) at = kept.nextElementSibling;
      else into.insertBefore(kept, at);
    }
    for (const old of [...into.children]) if (!seen.has(old.id)) old.remove();
  };

  const loaded = new Set();
  const load = async (name) => {
    const into = $(name);
    const answer = await fetch("/part/" + name);
    if (!answer.ok) throw new Error(String(answer.status));
    const made = document.createElement("template");
    made.innerHTML = await answer.text();
    if (name === "alerts") {
      merge(into, made.content);
    } else if (!into.contains(document.activeElement) || document.activeElement === document.body) {
      const scrolled = into.querySelector(".scroll");
      const [x, y] = scrolled ? [scrolled.scrollLeft, scrolled.scrollTop] : [0, 0];
      into.replaceChildren(made.content);
      into.querySelector(".scroll")?.scrollTo(x, y);
    }
    loaded.add(name);
    if (name === "alerts") filterAlerts();
    if (name === "rules") { sortRules(); filterRules(); }
    tellTimes();
  };

  // Filters.
  const levels = ["informational", "low", "medium", "high", "critical"];
  const filterAlerts = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const least = Number($("level").value);
    let shown = 0;
    for (const alert of $("alerts").querySelectorAll(".alert")) {
      const text = alert.textContent.toLowerCase();
      const fits = levels.indexOf(alert.dataset.level) >= least
        && ($("quiet").checked || alert.dataset.fate !== "silenced")
        && words.every((word) => text.includes(word));
      alert.hidden = !fits;
      shown += fits;
    }
    $("none").hidden = shown > 0 || !$("alerts").querySelector(".alert");
  };
  const filterRules = () => {
    const words = $("rule-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of $("rules").querySelectorAll("tbody tr")) {
      const text = (row.textContent + row.dataset.tags).toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) && (!$("never").checked || row.dataset.fired === "0"));
    }
  };
  ["search", "level", "quiet"].forEach((id) => $(id).addEventListener("input", filterAlerts));
  ["rule-search", "never"].forEach((id) => $(id).addEventListener("input", filterRules));

  let order = null;
  const sortRules = () => {
    const body = $("rules").querySelector("tbody");
    if (!order || !body) return;
    const { column, down } = order;
    const value = (row) => row.cells[column].dataset.n ? Number(row.cells[column].dataset.n) : row.cells[column].textContent.toLowerCase();
    const rows = [...body.rows].sort((a, b) => { const [x, y] = [value(a), value(b)]; return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    body.replaceChildren(...rows);
    $("rules").querySelectorAll("th").forEach((th, i) => i === column ? th.setAttribute("aria-sort", down ? "descending" : "ascending") : th.removeAttribute("aria-sort"));
  };
  $("rules").addEventListener("click", (event) => {
    const th = event.target.closest("th");
    if (!th || !event.target.closest("button")) return;
    const column = th.cellIndex;
    order = { column, down: order && order.column === column ? !order.down : th.classList.contains("n") };
    sortRules();
  });

  // Changes: with the token, which is asked for once a tab.
  const token = () => new Promise((use) => {
    const has = sessionStorage.getItem("token");
    if (has) return use(has);
    const ask = $("ask");
    ask.addEventListener("close", () => {
      const given = $("token").value;
      $("token").value = "";
      if (ask.returnValue !== "ok" || !given) return use(null);
      sessionStorage.setItem("token", given);
      use(given);
    }, { once: true });
    ask.returnValue = "";
    ask.showModal();
  });
  const change = async (method, path, body) => {
    const bearer = await token();
    if (!bearer) return null;
    const answer = await fetch(path, { method, headers: { authorization: "Bearer " + bearer }, body: body && JSON.stringify(body) });
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 401 || answer.status === 403) sessionStorage.removeItem("token");
    if (!answer.ok) throw new Error(said.error || "answered " + answer.status);
    return said;
  };
  const report = (beside, error) => {
    const old = beside.querySelector(".failed");
    const place = old || document.createElement("p");
    place.className = "failed";
    place.setAttribute("role", "alert");
    place.textContent = error.message;
    if (!old) beside.append(place);
  };
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form.quieten");
    if (!form) return;
    event.preventDefault();
    const data = new FormData(form);
    const match = JSON.parse(form.dataset[data.get("scope")]);
    try {
      const made = await change("POST", "/api/silences", { match, seconds: Number(data.get("seconds")), reason: data.get("reason"), by: "status page" });
      if (!made) return;
      form.reset();
      form.parentElement.querySelector(".failed")?.remove();
      say(made.accepted || "Silence set.");
      document.activeElement.blur();
      await load("silences");
    } catch (error) { report(form.parentElement, error); }
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-path]");
    if (!button) return;
    try {
      const done = await change(button.dataset.method, button.dataset.path);
      if (!done) return;
      button.blur();
      say(done.accepted || button.dataset.said);
      await Promise.all(["silences", "alerts", "glance"].map(load));
    } catch (error) { report(button.parentElement, error); }
  });

  // Freshness.
  const live = $("live");
  const standing = (state, text) => { live.hidden = false; live.className = "live " + state; live.lastElementChild.textContent = text; };
  let soon = 0;
  const loadAlertsSoon = () => {
    clearTimeout(soon);
    soon = setTimeout(() => ["alerts", "glance"].forEach((name) => load(name).catch(() => {})), 120);
  };
  const stream = new EventSource("/api/alerts/stream");
  stream.addEventListener("open", () => standing("on", "live"));
  stream.addEventListener("error", () => standing("off", "no connection"));
  stream.addEventListener("missed", loadAlertsSoon);
  stream.addEventListener("alert", (event) => {
    const { alert } = JSON.parse(event.data);
    say("New " + alert.rule.level + " alert: " + alert.rule.title);
    loadAlertsSoon();
  });
  let turn = 0;
  setInterval(() => {
    if (document.hidden) return;
    turn += 1;
    const parts = ["standing", "glance", "shards", "sinks", "silences", "latency"].concat(turn % 3 ? [] : ["rules", "alerts"]);
    parts.forEach((name) => load(name).catch(() => {}));
  }, 2000);
  ["alerts", "rules"].forEach((name) => loaded.add(name));
  filterAlerts();
  tellTimes();
})();
