"use strict";
// The page's furniture around Bokeh's figures. Python says what to show (link.view), this puts it into the document and
// sends back what the person wants (link.wish). Python's answer to "shown?" is link.seen: it sends nothing more to a
// browser that lags behind.
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const root = document.documentElement;
  const LIVE = 1; // the column that is sorted by at first, and has a bar
  let link, view, wishes = 0, sort = { column: LIVE, down: true }, paused = false, counting = false, gone = false;

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  function show(element, visible) {
    if (element.hidden === visible) element.hidden = !visible;
  }
  function fit(parent, count, make) {
    while (parent.children.length > count) parent.lastElementChild.remove();
    while (parent.children.length < count) parent.append(make());
    return parent.children;
  }
  function build(html) {
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    return template.content.firstElementChild;
  }
  function wish(verb, value = "") {
    if (link && !gone) link.wish = JSON.stringify({ verb, value, number: ++wishes });
  }
  function toast(words, tone = "") {
    const element = $("#toast");
    element.textContent = words;
    element.className = `shown ${tone}`;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => element.classList.remove("shown"), tone === "bad" ? 6000 : 2500);
  }

  // What was chosen outlives a reload: after a lost connection the page comes back as it was.
  const memory = new URLSearchParams(location.hash.slice(1));
  function remember(name, value) {
    if (value) memory.set(name, value); else memory.delete(name);
    history.replaceState(null, "", `#${memory}`);
  }

  function renderProcesses() {
    document.body.classList.toggle("many", view.processes.length > 1);
    const alive = view.processes.filter((entry) => entry.tone === "alive").length;
    put($("#process-count"), `${alive} running`);
    const entries = fit($("#processes .list"), view.processes.length, () => build(
      `<button><span class="dot"></span><span class="name"></span><span class="amount"></span><span class="share"><i></i></span></button>`));
    view.processes.forEach((entry, place) => {
      const button = entries[place];
      button.className = entry.tone;
      button.dataset.key = entry.key;
      button.title = entry.key ? `${entry.name} ${entry.pid}: ${entry.state}` : "Ended and small: show them";
      button.style.paddingLeft = `${6 + 10 * Math.min(entry.depth, 5)}px`;
      button.setAttribute("aria-current", entry.chosen);
      const name = $(".name", button);
      button.classList.toggle("more", !entry.key);
      const words = `${entry.name} ${entry.pid}`;
      if (name.dataset.words !== words) {
        name.dataset.words = words;
        name.replaceChildren(entry.name, " ", Object.assign(document.createElement("small"), { textContent: entry.pid }));
      }
      put($(".amount", button), entry.live);
      $(".share i", button).style.width = `${100 * entry.share}%`;
    });
  }

  function renderTiles() {
    const tiles = fit($("#tiles"), view.tiles.length, () => build(
      `<div class="tile"><h3><span></span></h3><strong></strong><small></small></div>`));
    view.tiles.forEach((tile, place) => {
      const element = tiles[place];
      element.className = `tile ${tile.tone}`;
      element.title = tile.title;
      element.dataset.name = tile.name;
      put($("h3 span", element), tile.name);
      put($("strong", element), tile.value);
      put($("small", element), tile.note);
      const editable = tile.name === "Limit" && view.alive;
      let button = $("h3 button", element);
      if (editable && !button) {
        button = build(`<button aria-label="Set the limit">set</button>`);
        button.onclick = toggleLimits;
        $("h3", element).append(button);
      } else if (!editable && button) button.remove();
    });
    if (!view.alive) show($("#limits"), false);
  }

  function toggleLimits() {
    const form = $("#limits"), opening = form.hidden;
    show(form, opening);
    if (opening) {
      $("#limit").value = view.limit.replace(" ", "");
      $("#warn-at").value = view.warn_at.replace(" ", "");
      $("#limit").focus();
    }
  }

  function renderThreads() {
    const select = $("#thread");
    if (document.activeElement === select && select.dataset.open) return;
    const options = fit(select, view.threads.length, () => document.createElement("option"));
    view.threads.forEach(([value, label], place) => {
      options[place].value = value;
      put(options[place], label);
    });
    if (select.value !== view.thread) select.value = view.thread;
  }

  function renderTable() {
    const head = $("#table thead");
    const names = view.columns.map((column) => column.name).join("|");
    if (head.dataset.names !== names) {
      head.dataset.names = names;
      const row = document.createElement("tr");
      view.columns.forEach((column, place) => {
        const cell = build(`<th scope="col"><button></button></th>`);
        cell.firstChild.textContent = column.name;
        cell.title = column.title;
        cell.firstChild.onclick = () => {
          sort = { column: place, down: sort.column === place ? !sort.down : place > 0 };
          renderTable();
        };
        row.append(cell);
      });
      head.replaceChildren(row);
      if (sort.column >= view.columns.length) sort = { column: 0, down: false };
    }
    [...head.firstChild?.children ?? []].forEach((cell, place) => {
      if (place === sort.column) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const key = (row) => row[sort.column][0] ?? Infinity;
    const rows = [...view.rows].sort((a, b) => (key(a) === key(b) ? 0 : key(a) < key(b) ? -1 : 1) * (sort.down ? -1 : 1));
    const most = Math.max(0, ...rows.map((row) => row[LIVE][0]));
    const elements = fit($("#table tbody"), rows.length, () => document.createElement("tr"));
    rows.forEach((row, place) => {
      const cells = fit(elements[place], row.length, () => document.createElement("td"));
      row.forEach(([value, text], column) => {
        put(cells[column], text);
        cells[column].className = column === LIVE ? "bar" : value === 0 ? "zero" : "";
      });
      cells[LIVE].style.setProperty("--share", `${most > 0 ? Math.max(0, 100 * row[LIVE][0] / most) : 0}%`);
    });
    const foot = fit($("#table tfoot"), rows.length ? 1 : 0, () => document.createElement("tr"));
    if (rows.length) {
      const cells = fit(foot[0], view.total.length, () => document.createElement("td"));
      view.total.forEach((text, column) => put(cells[column], text));
    }
    show($("#table"), rows.length > 0);
    show($(".empty"), rows.length === 0);
    put($(".empty"), view.empty);
    put($("#since"), view.since);
  }

  function renderLists() {
    const events = fit($("#events"), view.events.length, () => build(`<li><span></span><b></b><span></span></li>`));
    view.events.forEach((event, place) => {
      const [when, what, detail] = events[place].children;
      events[place].className = event.tone;
      put(when, event.when);
      put(what, event.what);
      put(detail, event.detail);
    });
    show($("#event-card"), view.events.length > 0);
    const notes = fit($("#notes"), view.notes.length, () => document.createElement("li"));
    view.notes.forEach((note, place) => put(notes[place], note));
    show($("#note-card"), view.notes.length > 0);
  }

  function renderSpans() {
    const strips = fit($("#spans"), view.strips.length, () => build(
      `<div class="strip"><span></span><div><b></b></div><small></small></div>`));
    view.strips.forEach((strip, place) => {
      const [name, bar, amount] = strips[place].children;
      put(name, strip.name);
      put(amount, strip.amount);
      const whole = bar.firstChild;
      whole.style.width = `${100 * strip.share}%`;
      const pieces = fit(whole, strip.pieces.length, () => document.createElement("i"));
      strip.pieces.forEach(([share, tenth, words], index) => {
        const piece = pieces[index];
        piece.style.width = `${100 * share}%`;
        piece.dataset.tenth = tenth;
        piece.title = words;
      });
    });
    show($("#span-card"), view.strips.length > 0);
  }

  function render() {
    document.body.classList.toggle("waiting", !view.key);
    put($("#name"), view.name || "heapsmith");
    put($("#pid"), view.pid);
    put($("#command"), view.command);
    $("#command").title = view.command;
    put($("#state"), view.state);
    $("#state").className = `pill ${view.tone}`;
    put($("#ended"), view.ended);
    $("#ended").className = `banner ${view.tone}`;
    show($("#ended"), Boolean(view.ended));
    if (!gone) {
      put($("#problem"), view.problem);
      show($("#problem"), Boolean(view.problem));
    }
    put($("#facts"), view.facts);
    counting = Boolean(view.since);
    put($("#reset"), counting ? "Undo reset" : "Reset");
    $("#reset").setAttribute("aria-pressed", counting);
    $("#pause").disabled = $("#reset").disabled = !view.key;
    renderProcesses();
    if (!view.key) return;
    put($(".hint"), view.hint);
    show($(".hint"), Boolean(view.hint));
    renderTiles();
    renderThreads();
    renderTable();
    renderLists();
    renderSpans();
  }

  function paint(theme) {
    root.dataset.theme = theme;
    for (const document_ of Bokeh.documents)
      for (const model of document_._all_models.values())
        for (const tag of model.tags ?? []) if (tag?.[theme] ?? tag?.get?.(theme)) {
          const look = tag[theme] ?? tag.get(theme);
          model.setv(look instanceof Map ? Object.fromEntries(look) : look, { sync: false });
        }
  }

  function fitLegends() {
    const columns = innerWidth < 480 ? 3 : "auto";
    for (const model of link.document._all_models.values())
      if (model.type === "Legend" && model.ncols !== columns) model.setv({ ncols: columns }, { sync: false });
  }

  function download({ name, type, content }) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const anchor = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([bytes], { type })), download: name });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
    toast(`Saved ${name}`);
  }

  async function comeBack() {
    if (gone) return;
    gone = true;
    put($("#problem"), "The connection to heapsmith is lost: it has ended, or this machine slept. These are the last values.");
    show($("#problem"), true);
    for (;;) {
      await new Promise((done) => setTimeout(done, 2000));
      // A refused connection is reported by the browser as an error of its own; opaque answers keep the console clean.
      const back = await fetch(location.pathname, { method: "HEAD", cache: "no-store" }).then((answer) => answer.ok || answer.status === 405, () => false);
      if (back) location.reload();
    }
  }

  function listen() {
    $("#processes .list").onclick = ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      if (!button.dataset.key) return wish("unfold");
      remember("process", button.dataset.key);
      remember("thread", "");
      wish("process", button.dataset.key);
    };
    const threads = $("#thread");
    threads.onmousedown = () => { threads.dataset.open = "yes"; };
    threads.onblur = () => { delete threads.dataset.open; };
    threads.onchange = () => {
      delete threads.dataset.open;
      remember("thread", threads.value);
      wish("thread", threads.value);
    };
    $("#interval").onchange = ({ target }) => {
      remember("interval", target.value);
      wish("interval", target.value);
    };
    $("#pause").onclick = () => {
      paused = !paused;
      $("#pause").setAttribute("aria-pressed", paused);
      put($("#pause"), paused ? "Resume" : "Pause");
      wish("pause", paused ? "on" : "off");
    };
    $("#reset").onclick = () => wish("reset", counting ? "off" : "on");
    $("#save").onclick = ({ target }) => {
      if (!target.dataset.kind) return;
      $("#save").open = false;
      wish("save", target.dataset.kind);
    };
    document.addEventListener("click", ({ target }) => {
      if (!$("#save").contains(target)) $("#save").open = false;
    });
    document.addEventListener("keydown", ({ key }) => { if (key === "Escape") $("#save").open = false; });
    $("#memory-card .choices").onclick = ({ target }) => {
      if (!target.dataset.range) return;
      for (const button of $("#memory-card .choices").children) button.setAttribute("aria-pressed", button === target);
      wish("range", target.dataset.range);
    };
    $("#limits").onsubmit = (event) => {
      event.preventDefault();
      const [limit, warnAt] = [$("#limit").value.trim(), $("#warn-at").value.trim()];
      if (limit !== view.limit.replace(" ", "")) wish("limit", limit);
      if (warnAt !== view.warn_at.replace(" ", "")) setTimeout(() => wish("warn_at", warnAt), 0);
      show($("#limits"), false);
    };
    $("#theme").onclick = () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      localStorage.setItem("heapsmith-theme", theme);
      paint(theme);
    };
    matchMedia("(prefers-color-scheme: dark)").onchange = ({ matches }) => {
      if (!localStorage.getItem("heapsmith-theme")) paint(matches ? "dark" : "light");
    };
  }

  globalThis.heapsmithPage = (ready) => {
    link = ready;
    paint(root.dataset.theme);
    fitLegends();
    addEventListener("resize", fitLegends);
    const update = () => {
      view = JSON.parse(link.view);
      render();
    };
    link.properties.view.change.connect(update);
    link.properties.number.change.connect(() => { link.seen = link.number; });
    link.properties.parcel.change.connect(() => { if (link.parcel) download(JSON.parse(link.parcel)); });
    link.properties.answer.change.connect(() => {
      if (!link.answer) return;
      const { words, tone } = JSON.parse(link.answer);
      toast(words, tone);
    });
    link.document.on_event("connection_lost", comeBack);
    listen();
    document.body.classList.remove("loading");
    update();
    link.seen = link.number;
    for (const verb of ["interval", "process", "thread"]) {
      if (memory.get(verb)) wish(verb, memory.get(verb));
    }
    if (memory.get("interval")) $("#interval").value = memory.get("interval");
  };
})();
