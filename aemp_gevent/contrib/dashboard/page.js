// SPDX-License-Identifier: MIT
// The dashboard's page. Everything that nodes say is shown as text, never as markup.
"use strict";

const MOST_DOTS = 120;    // nodes that are drawn one by one; with more, groups are
const MOST_EDGES = 600;   // lines that are drawn: those that carry most
const MOST_ROWS = 100;    // rows of the table to begin with
const MOST_LINES = 500;   // log lines that are kept
const LATE_MS = 500;      // a loop that was later than this is shown as late

const nodes = new Map(), links = new Map();
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let mayKill = false, mayTrace = false, rowsShown = MOST_ROWS, sortBy = "", sortUp = false, due = false, selected = null;

const COLUMNS = [
  ["id", "node", r => r.id], ["state", "state", r => r.up ? (isLate(r) ? "late" : "up") : "gone"],
  ["links", "links", r => r.links], ["in", "in/s", r => r.in], ["out", "out/s", r => r.out],
  ["unsent", "unsent B", r => r.unsent], ["ports", "ports", r => r.ports], ["messages", "mailboxes", r => r.messages],
  ["deepest", "deepest", r => r.deepest], ["blocked", "blocked", r => r.blocked], ["lag", "lag ms", r => r.lag],
  ["cpu", "cpu %", r => r.cpu], ["memory", "MB", r => r.memory], ["since", "up", r => duration(r.since)],
  ["host", "host", r => r.host], ["roles", "roles", r => r.roles],
];
const TEXTS = new Set(["id", "state", "host", "roles"]);

function make(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in made && name !== "role") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function setText(element, value) {
  const text = value === null || value === undefined ? "" : typeof value === "number" ? value.toLocaleString() : value;
  if (element.textContent !== text) element.textContent = text;
}

function duration(since) {
  if (!since) return "";
  const seconds = Math.max(0, Date.now() / 1000 - since);
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

const isLate = row => row.up && (row.lag > LATE_MS || (row.blocked > 0 && row.messages > 0));
const stateOf = row => !row.up ? "down" : isLate(row) ? "warn" : "ok";
const trouble = row => !row.up ? 2 : isLate(row) ? 1 : 0;
const WORDS = {ok: "up", warn: "blocked or late", down: "gone"};

function wanted() {
  const text = byId("filter").value.trim().toLowerCase();
  const rows = [...nodes.values()];
  return text ? rows.filter(r => `${r.id} ${r.group} ${r.host}`.toLowerCase().includes(text)) : rows;
}

// --- what comes ---

function change(rows, changes) {
  for (const [key, row] of Object.entries(changes)) {
    if (row === null) rows.delete(key); else rows.set(key, row);
  }
}

function begin() {
  const stream = new EventSource("events");
  stream.addEventListener("hello", event => {
    const hello = JSON.parse(event.data);
    nodes.clear(); links.clear();  // also after a lost connection: everything is sent again
    mayKill = hello.may_kill;
    mayTrace = hello.may_trace;
    setText(byId("own"), `seen by ${hello.node}`);
  });
  stream.addEventListener("network", event => {
    const changes = JSON.parse(event.data);
    for (const [key, row] of Object.entries(changes.nodes)) {
      const before = nodes.get(key);
      if (row && !row.up && (!before || before.up)) setText(byId("news"), `${key} is gone: ${row.error}`);
      if (row && row.up && before && !before.up) setText(byId("news"), `${key} is back`);
    }
    change(nodes, changes.nodes);
    change(links, changes.links);
    draw();
  });
  stream.onerror = () => setText(byId("summary"), "connection lost, trying again …");
}

function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const began = performance.now();
    const rows = wanted();
    drawSummary();
    drawTable(rows);
    drawGraph(rows);
    drawTrouble();
    document.body.dataset.nodes = nodes.size;
    document.body.dataset.milliseconds = (performance.now() - began).toFixed(1);
  });
}

function drawSummary() {
  const all = [...nodes.values()], up = all.filter(r => r.up);
  const sum = name => up.reduce((total, r) => total + (r[name] || 0), 0);
  setText(byId("summary"), `${up.length} of ${all.length} nodes up, ${all.filter(isLate).length} late or blocked, ` +
    `${sum("ports").toLocaleString()} ports, ${Math.round(sum("in")).toLocaleString()} messages/s`);
}

// --- the table ---

const lines = new Map();  // table rows by node

function drawHeads() {
  for (const [key, title] of COLUMNS) {
    const button = make("button", {type: "button"}, title);
    const head = make("th", {scope: "col", className: TEXTS.has(key) ? "text" : ""}, button);
    button.onclick = () => {
      sortUp = sortBy === key ? !sortUp : TEXTS.has(key);
      sortBy = key;
      for (const other of byId("heads").children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sortUp ? "ascending" : "descending");
      draw();
    };
    byId("heads").append(head);
  }
}

function compare(one, two) {
  if (sortBy) {
    const value = COLUMNS.find(([key]) => key === sortBy)[2], raw = r => TEXTS.has(sortBy) ? value(r) : r[sortBy];
    const a = raw(one) ?? -1, b = raw(two) ?? -1;
    const order = a < b ? -1 : a > b ? 1 : 0;
    if (order) return sortUp ? order : -order;
  }
  return trouble(two) - trouble(one) || (one.id < two.id ? -1 : 1);
}

function drawTable(rows) {
  const body = byId("rows"), shown = rows.sort(compare).slice(0, rowsShown);
  const kept = new Set(shown.map(r => r.id));
  for (const [id, line] of lines) if (!kept.has(id)) { line.remove(); lines.delete(id); }
  let place = body.firstElementChild;
  for (const row of shown) {
    let line = lines.get(row.id);
    if (!line) {
      line = make("tr");
      for (const [key] of COLUMNS) line.append(make("td", {className: TEXTS.has(key) ? "text" : ""}));
      const button = make("button", {type: "button", className: "name"}, row.id);
      button.onclick = () => open(row.id, button);
      line.cells[0].append(button);
      lines.set(row.id, line);
    }
    if (line !== place) body.insertBefore(line, place); else place = place.nextElementSibling;
    line.className = stateOf(row);
    COLUMNS.forEach(([, , value], at) => { if (at) setText(line.cells[at], value(row)); });
  }
  byId("more").hidden = rows.length <= rowsShown;
  setText(byId("more"), `Show more (${rows.length - shown.length} not shown)`);
}

// --- the graph ---

const dots = new Map(), edges = new Map();

function grouping(rows) {
  if (rows.length <= MOST_DOTS) return [r => r.id, ""];
  for (const [key, word] of [["group", "nodes of one kind"], ["host", "hosts"]]) {
    if (new Set(rows.map(r => r[key])).size <= MOST_DOTS) return [r => r[key], `${rows.length} nodes, drawn as ${word}`];
  }
  return [r => r.id.split(/[/:.]/)[0], `${rows.length} nodes, drawn as groups by the first word of their IDs`];
}

function drawGraph(rows) {
  const [keyOf, note] = grouping(rows), items = new Map();
  for (const row of rows) {
    const key = keyOf(row), item = items.get(key) || {key, rows: [], state: "ok"};
    item.rows.push(row);
    if (trouble(row) > {ok: 0, warn: 1, down: 2}[item.state]) item.state = stateOf(row);
    items.set(key, item);
  }
  const list = [...items.values()].sort((a, b) => a.key < b.key ? -1 : 1).slice(0, 2 * MOST_DOTS);
  setText(byId("graph-note"), note);
  list.forEach((item, at) => {
    const angle = 2 * Math.PI * at / list.length - Math.PI / 2, inner = list.length > 40 && at % 2 ? 0.78 : 1;
    const alone = list.length === 1 ? 0 : 1;
    item.x = 500 + 400 * inner * alone * Math.cos(angle);
    item.y = 310 + 250 * inner * alone * Math.sin(angle);
  });
  drawEdges(list, keyOf);
  drawDots(list);
}

function drawDots(list) {
  const kept = new Set(list.map(item => item.key));
  for (const [key, dot] of dots) if (!kept.has(key)) { dot.remove(); dots.delete(key); }
  for (const item of list) {
    let dot = dots.get(item.key);
    if (!dot) {
      dot = document.createElementNS(SVG, "g");
      for (const tag of ["circle", "text"]) dot.append(document.createElementNS(SVG, tag));
      dot.setAttribute("tabindex", "0");
      dot.setAttribute("role", "button");
      dot.onkeydown = event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); dot.onclick(); } };
      dots.set(item.key, dot);
      byId("dots").append(dot);
    }
    const single = item.rows.length === 1, radius = single ? 14 : Math.min(46, 14 + 3 * Math.sqrt(item.rows.length));
    const short = item.key.length > 22 ? "…" + item.key.slice(-21) : item.key;
    dot.onclick = () => { if (single) open(item.rows[0].id, dot); else { byId("filter").value = item.key.split("*")[0]; draw(); } };
    const gone = item.rows.filter(r => !r.up).length;
    const words = single ? WORDS[item.state] : `${item.rows.length} nodes, ${gone} gone`;
    setAttributes(dot, {class: item.state, transform: `translate(${item.x.toFixed(1)} ${item.y.toFixed(1)})`,
      "aria-label": `${item.key}: ${words}`});
    setAttributes(dot.firstChild, {r: radius.toFixed(1)});
    setAttributes(dot.lastChild, {y: (item.y < 310 ? -radius - 8 : radius + 20).toFixed(1)});
    setText(dot.lastChild, list.length > 60 && single ? "" : single ? short : `${short} (${item.rows.length})`);
  }
}

function setAttributes(element, wantedOnes) {
  for (const [name, value] of Object.entries(wantedOnes)) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
}

function drawEdges(list, keyOf) {
  const places = new Map(list.map(item => [item.key, item])), found = new Map();
  for (const link of links.values()) {
    const one = nodes.get(link.a), two = nodes.get(link.b);
    if (!one || !two) continue;
    const from = keyOf(one), to = keyOf(two);
    if (from === to || !places.has(from) || !places.has(to)) continue;
    const key = from < to ? `${from} ${to}` : `${to} ${from}`;
    const edge = found.get(key) || {key, from, to, rate: 0, unsent: 0, count: 0, rtt: null, state: "up"};
    edge.count += 1; edge.rate += link.rate || 0; edge.unsent += link.unsent || 0;
    if (link.rtt !== null) edge.rtt = Math.max(edge.rtt || 0, link.rtt);
    if (link.state !== "up") edge.state = link.state;
    found.set(key, edge);
  }
  const shown = [...found.values()].sort((a, b) => b.rate - a.rate).slice(0, MOST_EDGES), kept = new Set(shown.map(e => e.key));
  for (const [key, line] of edges) if (!kept.has(key)) { line.remove(); edges.delete(key); }
  for (const edge of shown) {
    let line = edges.get(edge.key);
    if (!line) {
      line = document.createElementNS(SVG, "line");
      line.append(document.createElementNS(SVG, "title"));
      edges.set(edge.key, line);
      byId("edges").append(line);
    }
    const a = places.get(edge.from), b = places.get(edge.to), full = edge.unsent > 1e6 ? " full" : "";
    setAttributes(line, {x1: a.x.toFixed(1), y1: a.y.toFixed(1), x2: b.x.toFixed(1), y2: b.y.toFixed(1),
      class: edge.state + full, "stroke-width": (1 + Math.log10(1 + edge.rate)).toFixed(1)});
    setText(line.firstChild, `${edge.from} – ${edge.to}: ${edge.state}, ${Math.round(edge.rate)} messages/s` +
      (edge.rtt === null ? "" : `, ${edge.rtt} ms`) + (edge.unsent ? `, ${edge.unsent} B unsent` : "") +
      (edge.count > 1 ? `, ${edge.count} links` : ""));
  }
}

// --- one node ---

const TABS = {Overview: overview, Ports: ports, Blocked: blocked, Supervision: supervision, Links: linkTable, Directory: families, Log: log};
let tab = "Overview", cameFrom = null, timer = 0, logStream = null, asking = 0;

function open(id, from) {
  selected = id;
  cameFrom = from;
  setText(byId("details-title"), id);
  byId("details").hidden = false;
  byId("details-title").focus();
  choose(tab);
}

function close() {
  selected = null;
  stop();
  byId("details").hidden = true;
  if (cameFrom && cameFrom.isConnected) cameFrom.focus();
}

function stop() {
  clearTimeout(timer);
  asking += 1;
  if (logStream) { logStream.close(); logStream = null; }
}

function drawTrouble() {
  const row = selected && nodes.get(selected);
  setText(byId("trouble"), row && !row.up ? `gone: ${row.error}` : "");
}

function choose(name) {
  stop();
  tab = name;
  for (const button of byId("tabs").children) {
    const isIt = button.textContent === name;
    button.setAttribute("aria-selected", isIt);
    button.tabIndex = isIt ? 0 : -1;
  }
  byId("panel").setAttribute("aria-label", name);
  byId("panel").replaceChildren("asking …");
  drawTrouble();
  if (name === "Log") log(); else ask();
}

async function ask() {
  const mine = asking, id = selected;
  let found;
  try {
    const answer = await fetch(`node?id=${encodeURIComponent(id)}`);
    found = answer.ok ? await answer.json() : {error: await answer.text()};
  } catch (error) {
    found = {error: "the dashboard does not answer"};
  }
  if (mine !== asking) return;
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.port : "";
  let shown;
  try {
    shown = found.error ? make("p", {}, found.error) : TABS[tab](found);
  } catch (error) {  // a node may send anything
    shown = make("p", {}, "The node sent an unexpected answer.");
  }
  byId("panel").replaceChildren(shown);
  if (focused) for (const button of byId("panel").querySelectorAll("button")) if (button.dataset.port === focused) button.focus();
  timer = setTimeout(ask, 2000);
}

function tableOf(caption, heads, rows) {
  if (!rows.length) return make("p", {}, "none");
  const kind = value => typeof value(rows[0]) === "number" ? "" : "text";
  const head = make("tr", {}, ...heads.map(([title, value]) => make("th", {scope: "col", className: kind(value)}, title)));
  const body = rows.map(row => make("tr", {}, ...heads.map(([, value]) => {
    const found = value(row), text = found instanceof Node ? found : String(found ?? "");
    return make("td", {className: typeof found === "number" ? "" : "text"}, text);
  })));
  return make("div", {className: "wide"}, make("table", {}, make("caption", {className: "hidden"}, caption),
    make("thead", {}, head), make("tbody", {}, ...body)));
}

function overview(found) {
  const list = make("dl");
  const names = ["provider", "python", "host", "pid", "roles", "directory", "master", "addresses", "seeds", "port_count",
    "link_count", "messages", "deepest", "blocked", "discarded", "queue", "lag", "worst_lag", "memory", "cpu", "refusals"];
  for (const name of names) {
    const value = found[name];
    if (value === null || value === undefined || value === "") continue;
    const text = typeof value === "object" ? (Array.isArray(value) ? value.join(", ") : JSON.stringify(value)) : String(value);
    if (text && text !== "{}") list.append(make("dt", {}, name.replace("_", " ")), make("dd", {}, text));
  }
  return list;
}

function portTable(rows) {
  const heads = [["port", r => [r.port.split("#")[1], ...r.names].join(" ")], ["state", r => r.state], ["messages", r => r.messages],
    ["monitors", r => r.monitors], ["kind", r => r.kind], ["handler, tags", r => [r.handler, ...r.tags].filter(Boolean).join(" ")],
    ["waits for", r => r.calls || ""], ["at", r => r.at], ["", r => lookButton(r.port)]];
  if (mayKill) heads.push(["", r => killButton(r.port)]);
  return tableOf("Ports", heads, rows);
}

// --- one port ---

function lookButton(port) {
  const button = make("button", {type: "button", "aria-label": `Look into ${port}`}, "Look");
  button.dataset.port = `look ${port}`;
  button.onclick = () => lookAt(port);
  return button;
}

function lookAt(port) {
  stop();
  const back = make("button", {type: "button"}, "Back"), title = make("h3", {tabIndex: -1}, port), state = make("p");
  const stack = make("pre", {tabIndex: 0, "aria-label": `Where the code of ${port} waits`, className: "stack"});
  const got = make("ol", {className: "log", "aria-label": "Messages, the newest first"});
  const trace = make("button", {type: "button", "aria-pressed": "false"}, "Trace messages"), mine = asking;
  let isTraced = false, shown = 0;
  back.onclick = () => choose(tab);
  trace.onclick = () => {
    isTraced = !isTraced;
    trace.setAttribute("aria-pressed", isTraced);
    clearTimeout(timer);
    look();
  };
  const look = async () => {
    let found;
    try {
      const answer = await fetch(`port?id=${encodeURIComponent(selected)}&port=${encodeURIComponent(port)}` + (isTraced ? "&messages=1" : ""));
      found = answer.ok ? await answer.json() : {error: await answer.text()};
    } catch (error) {
      found = {error: "the dashboard does not answer"};
    }
    if (mine !== asking) return;
    setText(state, found.error || `${found.state}${found.seen === undefined ? "" : `; ${found.seen} messages since the trace began`}`);
    if (!found.error) setText(stack, found.stack.join("\n") || "No code of this port waits.");
    const messages = found.messages || [];
    if (messages.length && messages[messages.length - 1].number < shown) shown = 0;  // a new trace
    for (const each of messages) {
      if (each.number <= shown) continue;
      shown = each.number;
      const time = new Date(each.time * 1000).toLocaleTimeString(), kind = each.is_call ? "call: " : "";
      got.prepend(make("li", {}, `${time} ${kind}${each.text} (${each.elements})`));
      while (got.children.length > MOST_LINES) got.lastElementChild.remove();
    }
    clearTimeout(timer);
    timer = setTimeout(look, 1000);
  };
  byId("panel").replaceChildren(back, title, state, stack, ...(mayTrace ? [trace, got] : []));
  title.focus();
  look();
}

function killButton(port) {
  const button = make("button", {type: "button", "aria-label": `Kill ${port}`}, "Kill");
  button.dataset.port = port;
  button.onclick = async () => {
    if (!confirm(`Kill port ${port}?`)) return;
    const body = new URLSearchParams({port});
    const answer = await fetch("kill", {method: "POST", headers: {"X-Aemp": "kill"}, body});
    setText(byId("news"), answer.ok ? `${port} was killed` : await answer.text());
  };
  return button;
}

function ports(found) { return portTable(found.ports || []); }
function blocked(found) {
  const rows = (found.ports || []).filter(r => r.state === "blocked" || r.calls);
  return rows.length ? portTable(rows) : make("p", {}, "No port is blocked.");
}
function supervision(found) {
  const trees = found.trees || [];
  if (!trees.length) return make("p", {}, "No supervisors.");
  const columns = [["child", c => c.id], ["state", c => c.state], ["restarts", c => c.restarts], ["messages", c => c.messages],
    ["port", c => (c.port || "").split("#").pop()], ["died last of", c => c.reason]];
  return make("div", {}, ...trees.map(tree => make("section", {},
    make("h3", {}, `${tree.name}, ${tree.strategy}: ${tree.active} of ${tree.child_count} children running`),
    tableOf(`Children of ${tree.name}`, columns, tree.children || []))));
}
function linkTable(found) {
  return tableOf("Links", [["node", r => r.node], ["state", r => r.state], ["via", r => r.via || ""], ["in", r => r.packets_in ?? ""],
    ["out", r => r.packets_out ?? ""], ["unsent", r => r.unsent], ["ms", r => r.round_trip ? r.round_trip * 1000 : ""],
    ["TLS", r => r.tls || "no"], ["error", r => r.error]], found.links || []);
}
function families(found) {
  return tableOf("Own entries in the directory", [["family", r => r[0]], ["entries", r => r[1]]], Object.entries(found.families || {}));
}

function log() {
  const list = make("ol", {className: "log", "aria-label": "Log, the newest first"}), level = make("select", {"aria-label": "Lowest level"});
  for (const name of ["debug", "info", "warning", "error"]) level.append(make("option", {value: name, selected: name === "info"}, name));
  const listen = () => {
    if (logStream) logStream.close();
    logStream = new EventSource(`log?id=${encodeURIComponent(selected)}&level=${level.value}`);
    logStream.addEventListener("log", event => {
      const record = JSON.parse(event.data);
      if (record.error) logStream.close();  // otherwise the browser would ask again and again
      const time = record.time ? new Date(record.time * 1000).toLocaleTimeString() : "";
      const text = record.error || record.text || `listening from level ${record.level} on`;
      const skipped = record.left_out ? ` (${record.left_out} left out before)` : "";
      list.prepend(make("li", {className: record.text ? record.level : ""}, `${time} ${record.text ? record.level : ""} ${text}${skipped}`));
      while (list.children.length > MOST_LINES) list.lastElementChild.remove();
    });
  };
  level.onchange = listen;
  byId("panel").replaceChildren(make("label", {}, "From level ", level), list);
  listen();
}

// --- the beginning ---

drawHeads();
for (const name of Object.keys(TABS)) {
  const button = make("button", {type: "button", role: "tab"}, name);
  button.onclick = () => choose(name);
  byId("tabs").append(button);
}
byId("tabs").onkeydown = event => {
  const all = [...byId("tabs").children], at = all.indexOf(document.activeElement);
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (step) { const next = all[(at + step + all.length) % all.length]; next.focus(); choose(next.textContent); }
};
byId("close").onclick = close;
document.onkeydown = event => { if (event.key === "Escape" && selected) close(); };
byId("filter").oninput = draw;
byId("more").onclick = () => { rowsShown += 5 * MOST_ROWS; draw(); };
begin();
