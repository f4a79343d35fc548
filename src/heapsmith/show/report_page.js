"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const packed = Uint8Array.from(atob($("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = JSON.parse(await new Response(stream).text());
  $("data").remove();
  const tree = data.tree, n = tree.parent.length;
  const seconds = (t) => t >= 60 ? clock(t) : t >= 1 ? `${+t.toPrecision(3)} s` : t >= 1e-3 ? `${+(t * 1e3).toPrecision(3)} ms`
    : t > 0 ? `${+(t * 1e6).toPrecision(3)} us` : "0 s";
  const thousands = (x) => Math.round(x).toLocaleString("en");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const escapeText = (t) => String(t).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const tip = document.createElement("div"); tip.id = "tip"; tip.hidden = true; document.body.append(tip);
  function showTip(text, x, y) {
    if (!text) { tip.hidden = true; return; }
    tip.textContent = text; tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18}px`;
  }
  function fit(canvas, height) {
    const width = Math.max(120, canvas.parentElement.clientWidth), ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const g = canvas.getContext("2d"); g.setTransform(ratio, 0, 0, ratio, 0, 0); g.clearRect(0, 0, width, height);
    return [g, width];
  }
  const FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif";

  // ---- names ----
  const shortFile = (file) => file.split("/").slice(-2).join("/");
  const TOO_SMALL = -1e9, keyNames = new Map([[TOO_SMALL, ["many, each too small to be drawn", ""]]]);
  function labelName(key) {
    if (key >= 0) {
      const file = data.file_of[key], line = data.line_of[key];
      const where = file >= 0 ? `${shortFile(data.files[file])}${line ? ":" + line : ""}` : data.module_of[key];
      return [data.functions[key], where];
    }
    return keyNames.get(key) || ["all", ""];
  }
  const keyOf = new Int32Array(n), smallSums = new Map();
  let nextKey = -2; const processKeys = new Map();
  for (let i = 1; i < n; i++) {
    if (tree.label[i] >= 0) { keyOf[i] = tree.label[i]; continue; }
    if (tree.hidden[i]) { keyOf[i] = nextKey; keyNames.set(nextKey--, [`${thousands(tree.hidden[i])} smaller`, ""]); smallSums.set(i, true); continue; }
    if (!processKeys.has(tree.process[i])) { processKeys.set(tree.process[i], nextKey); keyNames.set(nextKey--, [data.names[tree.process[i]] || "process", ""]); }
    keyOf[i] = processKeys.get(tree.process[i]);
  }
  const many = processKeys.size > 1;

  // ---- measures ----
  const MODES = [["peak", "At the peak", "live_bytes_at_peak"], ["exit", "Still live at the end", "live_bytes_at_exit"],
    ["allocated", "All allocated bytes", "allocated_bytes"], ["temporary", "Temporary", "temporary_bytes"],
    ["allocations", "Allocations", "allocations"]];
  if (tree.times_s.length) MODES.push(["moment", "At a moment", null], ["added", "Added in the stretch", null]);
  let mode = "peak", moment = -1, chosen = null, zoomed = null, span = null;
  const unit = () => mode === "allocations" ? (x) => `${thousands(x)} allocations` : bytes;
  function values() {
    const name = MODES.find((m) => m[0] === mode)[2];
    if (name) return tree.values[name];
    const held = new Float64Array(n);
    const [first, last] = mode === "added" ? stretch() : [-1, moment];
    for (let m = first + 1; m <= last; m++) { const [nodes, amounts] = tree.changes[m]; for (let i = 0; i < nodes.length; i++) held[nodes[i]] += amounts[i]; }
    for (let i = 1; i < n; i++) if (tree.parent[i] === 0) held[0] += held[i];
    return held;
  }

  // The moments before and at the end of what the line shows; the run ends before it is taken down.
  function stretch() {
    const [since, until] = span || [-Infinity, Math.max(...Object.values(data.details).map((d) => d.exit_s))], count = (t) => tree.times_s.filter((at) => at <= t).length - 1;
    return [count(since), count(until)];
  }

  // ---- the graph: paths of names, put together anew for each way of looking ----
  let root = null, rows = [];
  function build() {
    const all = values(), own = new Float64Array(n);
    for (let i = 0; i < n; i++) own[i] = all[i];
    for (let i = 1; i < n; i++) own[tree.parent[i]] -= all[i];
    const inverted = $("inverted").checked, plain = $("plain").checked, merged = $("merged").checked || !many;
    root = { key: -1, value: 0, kids: new Map(), up: null, depth: 0 };
    const path = [];
    for (let i = 1; i < n; i++) {
      if (own[i] < 0.5) continue;
      path.length = 0;
      let proc = null;
      for (let at = i; at > 0; at = tree.parent[at]) {
        const key = keyOf[at];
        if (tree.parent[at] === 0) { proc = key; continue; }
        if (plain && key >= 0 && data.owner_of[key] === 2 && at !== i) continue;
        if (plain && key >= 0 && data.owner_of[key] === 2 && path.length === 0 && tree.parent[tree.parent[at]] !== 0) continue;
        path.push(key);
      }
      if (!inverted) path.reverse();
      if (!merged) path.unshift(proc);
      let at = root; at.value += own[i];
      for (const key of path) {
        let kid = at.kids.get(key);
        if (!kid) at.kids.set(key, kid = { key, value: 0, kids: new Map(), up: at, depth: at.depth + 1 });
        kid.value += own[i]; at = kid;
      }
    }
    zoomed = pointed = null; layout();
  }
  let found = null, pointed = null;
  function layout() {
    const top = zoomed || root, width = Math.max(120, $("flame").parentElement.clientWidth);
    rows = [];
    const above = []; for (let at = top.up; at; at = at.up) above.unshift(at);
    above.forEach((node, depth) => { (rows[depth] ||= []).push([node, 0, width]); });
    const base = above.length;
    (function place(node, x, w, depth) {
      if (w < 0.4) return;
      (rows[depth] ||= []).push([node, x, w]);
      if (!node.sorted) node.sorted = [...node.kids.values()].sort((a, b) => b.value - a.value);
      let at = x;
      for (let i = 0; i < node.sorted.length; i++) {
        const kid = node.sorted[i], kw = top.value ? width * kid.value / top.value : 0;
        if (kw < 0.4) {
          const rest = node.sorted.slice(i).reduce((sum, small) => sum + small.value, 0), rw = width * rest / top.value;
          if (rw >= 1) (rows[depth + 1] ||= []).push([{ key: TOO_SMALL, value: rest, kids: new Map(), up: node, depth: depth + 1 }, at, rw]);
          break;
        }
        place(kid, at, kw, depth + 1); at += kw;
      }
    })(top, 0, width, base);
    $("whole").hidden = !zoomed;
    draw();
  }
  const ROW = 19;
  function matcher(text) {
    if (!text) return null;
    const re = text.match(/^\/(.+)\/(i?)$/);
    if (re) { try { const r = new RegExp(re[1], re[2] || "i"); return (s) => r.test(s); } catch { return () => false; } }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (s) => { const low = s.toLowerCase(); return words.every((w) => low.includes(w)); };
  }
  const matchCache = new Map();
  function matches(key) {
    if (!found) return false;
    let hit = matchCache.get(key);
    if (hit === undefined) { const [f, w] = labelName(key); hit = found(`${f}, ${w} ${key >= 0 && data.file_of[key] >= 0 ? data.files[data.file_of[key]] : ""}`); matchCache.set(key, hit); }
    return hit;
  }
  function matchedValue(node) { if (matches(node.key)) return node.value; let sum = 0; for (const kid of node.kids.values()) sum += matchedValue(kid); return sum; }
  function draw() {
    const height = Math.max(4, rows.length) * ROW + 2, [g] = fit($("flame"), Math.min(height, 3000));
    const inks = [css("--own"), css("--library"), css("--runtime")], quiet = css("--runtime"), ink = css("--ink"), ground = css("--ground"), hit = css("--found");
    g.font = `12px ${FONT}`; g.textBaseline = "middle";
    rows.forEach((row, depth) => {
      for (const [node, x, w] of row) {
        const y = depth * ROW, key = node.key;
        const matched = found && matches(key);
        g.fillStyle = matched ? hit : key >= 0 ? inks[data.owner_of[key]] : quiet;
        g.globalAlpha = found && !matched ? 0.35 : key >= 0 ? 0.82 + ((key * 7919) % 19) / 100 : 0.55;
        g.fillRect(x, y, Math.max(0.4, w - 0.6), ROW - 1.5);
        g.globalAlpha = 1;
        if (node === pointed) { g.strokeStyle = ink; g.lineWidth = 2; g.strokeRect(x + 1, y + 1, Math.max(1, w - 2.6), ROW - 3.5); }
        if (w < 34) continue;
        const [name, where] = labelName(key);
        g.save(); g.beginPath(); g.rect(x, y, w - 4, ROW); g.clip();
        g.fillStyle = matched ? "#1f2933" : key >= 0 && data.owner_of[key] < 2 ? "#fff" : ink;
        g.fillText(where ? `${name}  ${where}` : name, x + 4, y + ROW / 2);
        g.restore();
      }
    });
    if (!root.value) { g.fillStyle = css("--quiet"); g.fillText("nothing", 8, 14); }
    const show = unit();
    let text = `${show(root.value)}${data.sampled ? " (estimated)" : ""}`;
    if (found) { const m = matchedValue(root); text += ` · found ${show(m)}, ${root.value ? (100 * m / root.value).toFixed(1) : 0} %`; }
    if (mode === "moment") text = `at ${seconds(tree.times_s[moment])}: ` + text;
    if (mode === "added") { const [first, last] = stretch().map((m) => seconds(tree.times_s[m] || 0)); text = `more at ${last} than at ${first}: ` + text; }
    $("graph-total").textContent = text;
  }
  function nodeAt(event) {
    const box = $("flame").getBoundingClientRect(), x = event.clientX - box.left, row = rows[Math.floor((event.clientY - box.top) / ROW)];
    return row && (row.find(([, at, w]) => x >= at && x < at + w) || [])[0];
  }
  function tell(node) {
    const [name, where] = labelName(node.key), show = unit();
    const of = root.value ? ` · ${(100 * node.value / root.value).toFixed(1)} % of all` : "";
    const file = node.key >= 0 && data.file_of[node.key] >= 0 ? `${data.files[data.file_of[node.key]]}${data.line_of[node.key] ? ":" + data.line_of[node.key] : ""}` : where;
    return `${name}\n${file ? file + "\n" : ""}${show(node.value)}${of}`;
  }
  $("flame").addEventListener("mousemove", (e) => { const node = nodeAt(e); showTip(node && tell(node), e.clientX, e.clientY);
    $("hover").textContent = node ? tell(node).replace(/\n/g, " · ") : "\u00a0"; });
  $("flame").addEventListener("mouseleave", () => showTip(""));
  $("flame").addEventListener("click", (e) => { const node = nodeAt(e); if (!node || node.key === TOO_SMALL) return; showTip(""); zoomed = node === root ? null : node; layout(); });
  // Keys walk through the frames that are drawn: down to the largest callee, up, to the neighbours, Enter zooms.
  function step(key) {
    const from = pointed || zoomed || root, near = from.up ? from.up.sorted || [] : [];
    const to = { ArrowDown: (from.sorted || [])[0], ArrowUp: from.up, ArrowLeft: near[near.indexOf(from) - 1], ArrowRight: near[near.indexOf(from) + 1] }[key];
    if (!to || !rows.some((row) => row.some(([node]) => node === to))) return;
    pointed = to; draw();
    $("hover").textContent = tell(to).replace(/\n/g, " · ");
  }
  $("flame").addEventListener("keydown", (e) => {
    if (e.key.startsWith("Arrow")) { e.preventDefault(); step(e.key); }
    else if (e.key === "Enter" && pointed) { zoomed = pointed === root ? null : pointed; layout(); }
    else if (e.key === "Escape" || e.key === "Backspace") { zoomed = zoomed && zoomed.up !== root ? zoomed.up : null; layout(); }
  });
  $("flame").addEventListener("blur", () => { pointed = null; draw(); });
  $("whole").onclick = () => { zoomed = null; layout(); };
  function search(text) { $("search").value = text; found = matcher(text.trim()); matchCache.clear(); draw(); }
  $("search").oninput = () => search($("search").value);
  for (const id of ["inverted", "plain", "merged"]) $(id).onchange = build;
  $("merge-choice").hidden = !many;
  $("modes").innerHTML = MODES.map(([key, title]) => `<button role="tab" data-mode="${key}">${title}</button>`).join("");
  function choose(next) {
    mode = next;
    if (mode === "moment" && moment < 0) moment = highestMoment();
    for (const b of $("modes").children) b.setAttribute("aria-selected", b.dataset.mode === mode);
    addedIn = span; build(); drawLine();
  }
  function highestMoment() { let held = 0, best = 0, at = 0; tree.changes.forEach(([nodes, amounts], m) => { nodes.forEach((node, i) => { if (tree.parent[node] === 0) held += amounts[i]; }); if (held > best) { best = held; at = m; } }); return at; }
  $("modes").onclick = (e) => e.target.dataset.mode && choose(e.target.dataset.mode);
  document.querySelectorAll("button.find").forEach((b) => { b.onclick = () => { const [name] = b.textContent.split(" (through "); search(name.replace(/, ([^,]*)$/, " $1"));
    const kind = b.closest("li").className; choose(kind === "leak" ? "exit" : kind === "churn" ? "allocations" : "peak"); $("where").scrollIntoView({ behavior: "smooth" }); }; });

  // ---- the line over time ----
  const ids = Object.keys(data.details);
  const hasTotal = data.total.times_s.length > 0;
  let process = hasTotal ? "total" : String((data.processes[0] || [""])[0]);
  let drag = null, addedIn = null;
  function series() {
    if (process === "total") {
      const t = data.total;
      return { times: t.times_s, live: t.live, mapped: t.mapped, resident: null, marks: [], drops: [], start: 0, peak: null };
    }
    const d = data.details[process]; if (!d) return null;
    return { times: d.line.times_s, live: d.line.highest, mapped: d.line.mapped, resident: d.memory.times_s.length ? d.memory : null, marks: d.marks, drops: d.drops,
      start: d.start_s, peak: d.peak ? [d.peak_at_s, d.peak] : null };
  }
  const PAD = 62, FOOT = 24, HIGH = 240;
  let scale = null;
  function niceStep(span, count) { const raw = span / count, power = 10 ** Math.floor(Math.log10(raw)); return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw); }
  const ends = (s) => [s.start, Math.max(s.times[s.times.length - 1], s.start + 1e-9)];
  function drawLine() {
    if (mode === "added" && addedIn !== span) { addedIn = span; build(); }
    const s = series(); const [g, width] = fit($("line"), HIGH);
    g.font = `11.5px ${FONT}`; g.textBaseline = "middle";
    if (!s || !s.times.length) { g.fillStyle = css("--quiet"); g.fillText("no events", PAD, 30); return; }
    const [t0, t1] = span || ends(s);
    const inside = (t) => t >= t0 && t <= t1;
    let top = 1;
    s.times.forEach((t, i) => { if (inside(t)) { top = Math.max(top, s.live[i], s.mapped[i]); } });
    if (s.peak && inside(s.peak[0])) top = Math.max(top, s.peak[1]);
    if (s.resident) s.resident.times_s.forEach((t, i) => { if (inside(t)) top = Math.max(top, s.resident.resident[i]); });
    top *= 1.06;
    const x = (t) => PAD + (width - PAD - 8) * (t - t0) / (t1 - t0), y = (v) => 8 + (HIGH - FOOT - 8) * (1 - v / top);
    scale = { t0, t1, x, width, invert: (px) => t0 + (t1 - t0) * (px - PAD) / (width - PAD - 8) };
    const grid = css("--grid"), text = css("--text"), live = css("--live");
    const step = 2 ** Math.ceil(Math.log2(top / 4.2));
    g.strokeStyle = grid; g.fillStyle = text; g.lineWidth = 1; g.textAlign = "right";
    for (let v = 0; v <= top; v += step) { g.beginPath(); g.moveTo(PAD, y(v)); g.lineTo(width - 8, y(v)); g.stroke(); g.fillText(short(bytes(v)), PAD - 7, y(v)); }
    const ts = niceStep(t1 - t0, Math.max(2, width / 130)); g.textAlign = "center";
    for (let t = Math.ceil((t0 - s.start) / ts - 1e-9) * ts + s.start; t <= t1 + 1e-12; t += ts) { g.beginPath(); g.moveTo(x(t), HIGH - FOOT); g.lineTo(x(t), HIGH - FOOT + 4); g.stroke();
      const label = seconds(Math.max(0, +(t - s.start).toPrecision(9))); const half = g.measureText(label).width / 2; g.fillText(label, Math.min(x(t), width - half - 1), HIGH - FOOT + 13); }
    g.save(); g.beginPath(); g.rect(PAD, 0, width - PAD - 8, HIGH - FOOT + 1); g.clip();
    for (const [since, until] of s.drops) { g.fillStyle = css("--limit"); g.globalAlpha = 0.2; g.fillRect(x(since), 0, Math.max(2, x(until) - x(since)), HIGH - FOOT); g.globalAlpha = 1; }
    g.beginPath(); g.moveTo(x(s.start), y(0)); let last = s.start;
    s.times.forEach((t, i) => { g.lineTo(x(last), y(s.live[i])); g.lineTo(x(t), y(s.live[i])); last = t; });
    g.strokeStyle = live; g.lineWidth = 1.8; g.stroke(); g.lineTo(x(last), y(0)); g.closePath(); g.globalAlpha = 0.14; g.fillStyle = live; g.fill(); g.globalAlpha = 1;
    const line = (times, vs, ink) => { g.beginPath(); times.forEach((t, i) => i ? g.lineTo(x(t), y(vs[i])) : g.moveTo(x(t), y(vs[i]))); g.strokeStyle = ink; g.lineWidth = 1.4; g.stroke(); };
    const mapped = s.mapped.some((v) => v > 0);
    if (mapped) line(s.times, s.mapped, css("--mapped"));
    if (s.resident) line(s.resident.times_s, s.resident.resident, css("--resident"));
    for (const [t, name] of s.marks) { g.strokeStyle = css("--frees"); g.setLineDash([4, 3]); g.beginPath(); g.moveTo(x(t), 0); g.lineTo(x(t), HIGH - FOOT); g.stroke(); g.setLineDash([]);
      g.fillStyle = css("--frees"); g.textAlign = "left"; g.fillText(name, x(t) + 4, 12); }
    if (s.peak) { g.fillStyle = live; g.beginPath(); g.arc(x(s.peak[0]), y(s.peak[1]), 4, 0, 7); g.fill(); g.fillStyle = text;
      const label = `peak ${bytes(s.peak[1])}`, w = g.measureText(label).width; g.textAlign = "left";
      const at = x(s.peak[0]); g.fillText(label, at + 8 + w > width - 10 ? at - w - 8 : at + 8, Math.max(9, y(s.peak[1]) - 10)); }
    if (mode === "moment" && moment >= 0) { const t = tree.times_s[moment]; g.strokeStyle = css("--ink"); g.lineWidth = 1.5; g.beginPath(); g.moveTo(x(t), 0); g.lineTo(x(t), HIGH - FOOT); g.stroke(); }
    if (drag && Math.abs(drag[1] - drag[0]) > 3) { g.fillStyle = css("--ink"); g.globalAlpha = 0.12; g.fillRect(Math.min(...drag), 0, Math.abs(drag[1] - drag[0]), HIGH - FOOT); g.globalAlpha = 1; }
    g.restore();
    $("legend").innerHTML = [["live", "--live"], ...(s.resident ? [["resident", "--resident"]] : []), ...(mapped ? [["mapped by the program", "--mapped"]] : [])]
      .map(([name, ink]) => `<span><i style="background:var(${ink})"></i>${name}</span>`).join("");
  }
  const near = (times, t) => { let low = 0, high = times.length - 1; while (low < high) { const mid = (low + high) >> 1; if (times[mid] < t) low = mid + 1; else high = mid; } return low; };
  const offset = (e) => e.clientX - $("line").getBoundingClientRect().left;
  $("line").addEventListener("pointerdown", (e) => { drag = [offset(e), offset(e)]; $("line").setPointerCapture(e.pointerId); });
  $("line").addEventListener("pointermove", (e) => {
    if (!scale) return;
    if (drag) { drag[1] = offset(e); drawLine(); }
    const s = series(), t = scale.invert(offset(e)), i = near(s.times, t);
    let text = `${seconds(Math.max(0, t - s.start))}\nlive ${bytes(s.live[i])}`;
    if (s.resident) text += `\nresident ${bytes(s.resident.resident[near(s.resident.times_s, t)])}`;
    if (s.mapped[i]) text += `\nmapped ${bytes(s.mapped[i])}`;
    showTip(text, e.clientX, e.clientY);
  });
  $("line").addEventListener("pointerleave", () => showTip(""));
  $("line").addEventListener("pointerup", (e) => {
    if (!drag || !scale) return;
    const [a, b] = drag; drag = null;
    if (Math.abs(b - a) > 6) { span = [scale.invert(Math.min(a, b)), scale.invert(Math.max(a, b))]; drawLine(); return; }
    if (tree.times_s.length) { moment = near(tree.times_s, scale.invert(offset(e))); if (moment > 0 && Math.abs(tree.times_s[moment - 1] - scale.invert(offset(e))) < Math.abs(tree.times_s[moment] - scale.invert(offset(e)))) moment--; choose("moment"); }
  });
  $("line").addEventListener("dblclick", () => { span = null; drawLine(); });
  // What is shown is `length_s` long around a time, and stays within the run.
  function show(middle_s, length_s) {
    const [first, last] = ends(series()), length = Math.min(length_s, last - first);
    const since = Math.max(first, Math.min(last - length, middle_s - length / 2));
    span = length < last - first ? [since, since + length] : null; drawLine();
  }
  $("line").addEventListener("keydown", (e) => {
    const s = series(), d = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!s || !s.times.length || e.ctrlKey || e.metaKey || e.altKey) return;
    const [since, until] = span || ends(s), long = until - since, middle = (since + until) / 2;
    const at = mode === "moment" && moment >= 0 ? tree.times_s[moment] : middle, seen = at >= since && at <= until;
    if (e.key === "+" || e.key === "=") show(seen ? at : middle, Math.max(long / 2, 1e-6));
    else if (e.key === "-") show(middle, long * 2);
    else if (e.key === "0" || e.key === "Escape") { span = null; drawLine(); }
    else if (d && e.shiftKey) show(middle + d * long / 4, long);
    else if (d && tree.times_s.length) {
      moment = Math.max(0, Math.min(tree.times_s.length - 1, (moment < 0 ? highestMoment() : moment) + d)); choose("moment");
      const t = tree.times_s[moment]; if (span && (t < span[0] || t > span[1])) show(t, long);
    } else return;
    e.preventDefault();
  });

  // ---- tables ----
  function sortable(table, columns, rowsOf, { most = 100, start = 0 } = {}) {
    const state = { column: start, down: true, shown: most };
    function render() {
      const list = rowsOf(), c = columns[state.column];
      list.sort((a, b) => { const u = c.value(a), v = c.value(b); const r = typeof u === "string" ? u.localeCompare(v) : (u ?? -1) - (v ?? -1); return state.down ? -r : r; });
      table.tHead.innerHTML = `<tr>${columns.map((c, i) => `<th scope="col" tabindex="0" class="${c.text ? "text" : ""}"${i === state.column ? ` aria-sort="${state.down ? "descending" : "ascending"}"` : ""} title="${c.help || ""}">${c.title}</th>`).join("")}</tr>`;
      table.tBodies[0].innerHTML = list.slice(0, state.shown).map((row) => `<tr>${columns.map((c) => `<td class="${c.text ? "text" : ""}">${c.cell(row)}</td>`).join("")}</tr>`).join("");
      [...table.tHead.rows[0].cells].forEach((cell, i) => { cell.onclick = () => { if (state.column === i) state.down = !state.down; else { state.column = i; state.down = !columns[i].text; } render(); };
        cell.onkeydown = (e) => { if (e.key === "Enter") cell.onclick(); }; });
      return list.length;
    }
    return { render, state };
  }
  const num = (title, index, show, help) => ({ title, help, value: (r) => r[index], cell: (r) => r[index] == null ? "" : show(r[index]) });
  const withError = (title, index, error) => ({ title, value: (r) => r[index], cell: (r) => bytes(r[index]) + (r[error] ? ` ± ${bytes(r[error])}` : "") });
  const siteColumns = [
    { title: "place", text: true, value: (r) => r[0], cell: (r) => `<button class="find" title="${escapeText(r[2])}">${escapeText(r[0])} <span class="where">${escapeText(r[1])}</span></button>`
      + (r[6] ? '<span class="tag growing">growing</span>' : "") + (r[5] ? `<span class="tag">${escapeText(r[5])}</span>` : "") + (r[4] ? '<span class="tag">mapping</span>' : "") + (r[15] === 1 ? '<span class="tag">library</span>' : "") },
    withError("at peak", 7, 13), withError("at the end", 8, 14), num("allocated", 9, bytes), num("allocations", 10, thousands),
    num("temporary", 11, thousands, "freed before their thread allocated again"), num("mean lifetime", 12, seconds, "of those that were freed")];
  if (data.processes.length > 1) siteColumns.push({ title: "process", text: true, value: (r) => data.names[r[3]] || "", cell: (r) => escapeText(data.names[r[3]] || "") });
  const places = sortable($("sites"), siteColumns, () => { const test = matcher($("filter").value.trim()); return data.sites.filter((r) => (!test || test(`${r[0]} ${r[1]} ${r[2]} ${r[5]}`)) && !($("no-caches").checked && r[5])); }, { most: 25, start: 1 });
  function renderPlaces() {
    const total = places.render(), shown = Math.min(total, places.state.shown);
    $("more").innerHTML = (shown < total ? `${thousands(shown)} of ${thousands(total)} places. <button id="show-more">show more</button>` : `${thousands(total)} places`) + (data.sites_left_out ? ` (${thousands(data.sites_left_out)} smaller ones are not in this page)` : "");
    if ($("show-more")) $("show-more").onclick = () => { places.state.shown *= 5; renderPlaces(); };
  }
  $("sites").addEventListener("click", (e) => { const b = e.target.closest("button.find"); if (!b) return; search(b.textContent); $("where").scrollIntoView({ behavior: "smooth" }); });
  $("filter").oninput = $("no-caches").onchange = renderPlaces;
  if (data.processes.length > 1) {
    $("processes").hidden = false;
    sortable($("process-table"), [num("peak", 3, bytes), num("at the end", 4, bytes), num("allocated", 5, bytes), num("allocations", 6, thousands), num("threads", 11, thousands), num("started", 8, seconds), num("duration", 9, seconds),
      { title: "end", text: true, value: (r) => r[10], cell: (r) => escapeText(r[10]) }, { title: "process", text: true, value: (r) => r[1], cell: (r) => `${escapeText(r[1])} <span class="where">pid ${r[2]}</span>` }], () => [...data.processes], { most: 1500 }).render();
  }
  const select = $("process");
  select.innerHTML = (hasTotal ? '<option value="total">all together</option>' : "") + data.processes.filter((r) => data.details[r[0]]).map((r) => `<option value="${r[0]}">${escapeText(r[1])} (pid ${r[2]})</option>`).join("");
  $("process-choice").hidden = select.options.length < 2;
  select.value = process;
  select.onchange = () => { process = select.value; span = null; drawLine(); details(); };
  const bars = (table, head, list) => { const high = Math.max(1, ...list.map((r) => r[r.length - 1]));
    table.innerHTML = `<tr>${head.map((h) => `<th>${h}</th>`).join("")}<th></th></tr>` + list.map((r) => `<tr>${r.slice(0, -1).map((c) => `<td>${c}</td>`).join("")}<td><i style="width:${100 * r[r.length - 1] / high}%"></i></td></tr>`).join(""); };
  function doublings(counts, held, name) {
    const used = counts.map((c, i) => c > 0 ? i : -1).filter((i) => i >= 0); if (!used.length) return [];
    const rows = [];
    // Nothing can be told apart below a tick.
    if (name(0).startsWith("one tick") && used[0] === 0) { rows.push([name(0), thousands(counts[0]), bytes(held[0]), counts[0]]); used.shift(); if (!used.length) return rows; }
    for (let i = used[0]; i <= used[used.length - 1]; i++) rows.push([name(i), thousands(counts[i]), bytes(held[i]), counts[i]]);
    return rows;
  }
  function details() {
    const id = data.details[process] ? process : ids.find((i) => i === String((data.processes[0] || [])[0])), d = data.details[id];
    $("details").hidden = !d; if (!d) return;
    $("details-of").textContent = data.processes.length > 1 ? `of ${data.names[id]}` : "";
    $("facts").innerHTML = d.facts.map(([a, b]) => `<tr><td>${escapeText(a)}</td><td>${escapeText(b)}</td></tr>`).join("");
    const held = new Set([...d.classes].sort((a, b) => b[2] - a[2] || b[1] - a[1]).slice(0, 24)), rest = d.classes.filter((r) => !held.has(r));
    const classes = d.classes.filter((r) => held.has(r)), sum = (i) => rest.reduce((all, r) => all + r[i], 0);
    if (rest.length) classes.push([`${rest.length} others`, sum(1), sum(2), sum(3)]);
    bars($("classes"), ["class", "allocations", "at peak", "at the end"], classes.map((r) => [escapeText(r[0]), thousands(r[1]), bytes(r[2]), bytes(r[3]), r[2]]));
    bars($("sizes"), ["requested", "usable", "allocations"], d.sizes.slice(0, 24).map((r) => [bytes(r[0]), bytes(r[1]), thousands(r[2]), r[2]]));
    $("sizes-note").textContent = `the most frequent of ${thousands(d.distinct_sizes)}`;
    if (d.lifetimes.length) {
      bars($("life"), ["below", "blocks", "bytes"], doublings(d.lifetimes[0], d.lifetimes[1], (i) => i === 0 ? `one tick (${seconds(data.tick_ns * 1e-9)})` : seconds(2 ** i * 1e-9)));
      bars($("ages"), ["below", "blocks", "bytes"], doublings(d.lifetimes[2], d.lifetimes[3], (i) => thousands(2 ** i)));
    }
    sortable($("threads"), [num("allocated", 3, bytes), num("allocations", 2, thousands), num("frees", 4, thousands), num("of others' blocks", 5, thousands, "remote frees"), num("freed by others", 6, thousands), num("at the end", 7, bytes), num("temporary", 8, thousands),
      { title: "thread", text: true, value: (r) => r[0], cell: (r) => `${escapeText(r[0])} <span class="where">${r[1] ?? ""}</span>` }], () => [...d.threads], { most: 200 }).render();
  }
  function all() { drawLine(); layout(); }
  choose("peak"); renderPlaces(); details();
  let waiting; addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 60); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  document.documentElement.dataset.ready = "yes";
})();
