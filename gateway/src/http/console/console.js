"use strict";
// Polls /api/v1/status once a second and shows it. Rows are kept and updated in place, so that focus, selection and
// opened topics survive.

const POLL_MS = 1000;
const TIMEOUT_MS = 4000;
const CHART_POINTS = 120;
const $ = (id) => document.getElementById(id);
const history = [];
let lastSeen = null;
let latest = null;

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function count(n) {
  return n < 10000 ? whole.format(Math.round(n)) : short.format(n);
}

function rate(n) {
  return n > 0 && n < 10 ? n.toFixed(1) : count(n);
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  return ms < 1 ? `${Math.round(ms * 1000)} µs` : ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${seconds.toFixed(1)} s`;
}

function duration(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, length]) => seconds >= length);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).map(([unit, length]) => {
    const whole = Math.floor(seconds / length);
    seconds -= whole * length;
    return `${whole} ${unit}`;
  }).join(" ");
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

// Makes the children of `parent` those of `items`, by key: new ones are created, gone ones removed, all updated.
function sync(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let position = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    if (child !== position) parent.insertBefore(child, position);
    else position = position.nextElementSibling;
    update(child, item);
  }
  for (const gone of known.values()) gone.remove();
}

function cells(row, values) {
  values.forEach((value, index) => text(row.cells[index], value));
}

function newRow(classes) {
  return make("tr", "", ...classes.map((name) => make("td", name)));
}

function showChart(value) {
  history.push(value);
  if (history.length > CHART_POINTS) history.shift();
  const top = Math.max(...history, 1);
  const step = 240 / (CHART_POINTS - 1);
  const start = 240 - (history.length - 1) * step;
  const points = history.map((y, x) => `${(start + x * step).toFixed(1)},${(46 - (y / top) * 42).toFixed(1)}`);
  document.querySelector("#chart .line").setAttribute("d", `M${points.join("L")}`);
  document.querySelector("#chart .area").setAttribute("d", `M${start.toFixed(1)},48L${points.join("L")}L240,48Z`);
}

function showPartitions(body, topic) {
  const create = () => {
    const row = newRow(["num", "bar-cell", "num", "num", "num", "num", "offline bad"]);
    row.cells[1].append(make("div", "bar", make("span", "cold"), make("span", "hot")));
    return row;
  };
  sync(body, topic.partitions, (p) => p.partition, create, (row, p) => {
    const total = Math.max(p.high_watermark - p.log_start, 1);
    const cold = Math.max(p.local_start - p.log_start, 0);
    const hot = Math.max(p.high_watermark - Math.max(p.local_start, p.log_start), 0);
    const bar = row.querySelector(".bar");
    bar.title = `${whole.format(cold)} records in the lake only, ${whole.format(hot)} on local disk`;
    bar.children[0].style.width = `${(100 * cold) / total}%`;
    bar.children[1].style.width = `${(100 * hot) / total}%`;
    text(row.cells[0], p.partition);
    [p.log_start, p.local_start, p.high_watermark].forEach((n, i) => text(row.cells[i + 2], whole.format(n)));
    text(row.cells[5], size(p.local_bytes));
    text(row.cells[6], p.offline ? `offline: ${p.offline}` : "");
  });
}

function newTopic(topic) {
  const head = make("tr");
  [["Partition", "num"], ["Cold and hot", ""], ["Log start", "num"], ["Local start", "num"], ["High watermark", "num"], ["Local size", "num"], ["", ""]]
    .forEach(([label, className]) => {
      const cell = make("th", className, label);
      if (label) cell.scope = "col";
      head.append(cell);
    });
  const table = make("table", "", make("thead", "", head), make("tbody"));
  const summary = make("summary", "", make("b"), make("span", "quiet"));
  const details = make("details", "", summary, make("div", "scroll", table));
  details.open = !topic.internal && topic.records > 0 && topic.partitions.length <= 16;
  return details;
}

function showTopics(topics) {
  const shown = topics.filter((topic) => $("internal").checked || !topic.internal);
  $("no-topics").hidden = shown.length > 0;
  sync($("topics"), shown, (topic) => topic.name, newTopic, (details, topic) => {
    text(details.querySelector("b"), topic.name);
    const some = topic.partitions.length === 1 ? "1 partition" : `${topic.partitions.length} partitions`;
    text(details.querySelector("summary span"), `${some} · ${whole.format(topic.records)} records · ${size(topic.local_bytes)} local`);
    if (details.open) showPartitions(details.querySelector("tbody"), topic);
  });
}

function showAlerts(active) {
  const shown = [...active].sort((a, b) => (a.state === b.state ? 0 : a.state === "firing" ? -1 : 1));
  $("no-alerts").hidden = shown.length > 0;
  $("alerts").parentElement.hidden = shown.length === 0;
  const create = () => newRow(["state", "", "", "wrap", ""]);
  sync(document.querySelector("#alerts tbody"), shown, (alert) => alert.id, create, (row, alert) => {
    row.cells[0].className = `state ${alert.state}`;
    const labels = Object.entries(alert.labels || {}).filter(([name]) => name !== "alertname");
    const since = alert.starts_at || alert.active_at || "";
    cells(row, [
      alert.state, alert.alert, labels.map(([name, value]) => `${name}=${value}`).join("  "),
      (alert.annotations || {}).summary || "", since.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC"),
    ]);
  });
}

function showLake(tables) {
  $("no-lake").hidden = tables.length > 0;
  $("lake").parentElement.hidden = tables.length === 0;
  const create = () => newRow(["", "num", "num", "num", "num", "num", "wrap"]);
  sync(document.querySelector("#lake tbody"), tables, (table) => table.topic, create, (row, table) => {
    cells(row, [
      table.topic, table.table_version ?? "–", whole.format(table.files), whole.format(table.rows), size(table.bytes),
      whole.format(table.lag_records), table.error || table.url,
    ]);
    row.cells[6].classList.toggle("bad", Boolean(table.error));
  });
}

function showProblems(problems) {
  $("problems").hidden = problems.length === 0;
  sync($("problems").firstElementChild, problems, (problem) => problem, () => make("li"), text);
}

// Nodes, and the partitions that need somebody's attention; nothing of a node that is alone.
function showCluster(status) {
  $("cluster").hidden = status.nodes.length < 2;
  const create = () => newRow(["num", "state", "", "", "num", "num", ""]);
  sync(document.querySelector("#nodes tbody"), status.nodes, (node) => node.id, create, (row, node) => {
    const role = node.controller ? "leads" : node.voter ? "votes" : "follows";
    const late = node.quorum_lag > 0 ? `, ${whole.format(node.quorum_lag)} entries behind` : "";
    const state = node.draining ? `${node.state}, draining` : node.state;
    row.cells[1].className = node.state === "up" ? "state" : "state bad";
    cells(row, [node.id, state, role + late, node.rack || "–", node.leaderships, node.replicas, node.addresses.cluster || "–"]);
  });
  const figures = [["under-replicated", status.under_replicated], ["without a leader", status.offline], ["moving", status.reassigning]];
  const summary = figures.map(([what, list]) => `${whole.format(list.length)} ${what}`).join(" · ");
  text($("cluster-summary"), `${whole.format(status.partition_count)} partitions: ${summary}`);
  const shown = status.partitions.slice(0, 100);
  $("troubled").parentElement.hidden = shown.length === 0;
  const trouble = () => newRow(["", "num", "", "", "", ""]);
  sync(document.querySelector("#troubled tbody"), shown, (one) => `${one.topic}-${one.partition}`, trouble, (row, one) => {
    const moving = [...one.adding.map((id) => `+${id}`), ...one.removing.map((id) => `-${id}`)].join(" ");
    const behind = one.behind.map((late) => `node ${late.node}: ${whole.format(late.records)} records, ${size(late.bytes)}, ${duration(late.seconds)}`);
    row.classList.toggle("bad", one.leader === null);
    cells(row, [`${one.topic}-${one.partition}`, one.leader ?? "none", one.replicas.join(" "), one.isr.join(" "), moving, behind.join("; ")]);
  });
}

function showState(label, className) {
  text($("state"), label);
  $("state").className = `pill ${className}`;
  document.body.classList.toggle("stale", className === "bad");
}

function show(status) {
  const sum = (list, pick) => list.reduce((total, item) => total + pick(item), 0);
  const outside = status.topics.filter((topic) => !topic.internal);
  text($("node"), `node ${status.node} · version ${status.version} · up ${duration(status.uptime_seconds)}`);
  showState(status.ready ? "ready" : "not ready", status.ready ? "good" : "warn");
  showProblems([...status.reasons, ...status.problems]);
  text($("records"), rate(status.rates.records_per_second));
  showChart(status.rates.records_per_second);
  text($("bytes"), size(status.rates.bytes_per_second));
  text($("local"), `${size(sum(outside, (topic) => topic.local_bytes))} local`);
  text($("ack50"), latency(status.rates.ack_p50_seconds));
  text($("ack99"), latency(status.rates.ack_p99_seconds));
  text($("mqtt"), count(status.connections.mqtt));
  text($("kafka"), count(status.connections.kafka));
  text($("firing"), count(status.alerts.firing));
  text($("pending"), count(status.alerts.pending));
  $("firing-tile").classList.toggle("alarm", status.alerts.firing > 0);
  text($("rows"), count(sum(status.lake, (table) => table.rows)));
  text($("lag"), count(sum(status.lake, (table) => table.lag_records)));
  showTopics(status.topics);
  showAlerts(status.alerts.active);
  showLake(status.lake);
  text($("listeners"), Object.entries(status.listeners).map(([name, at]) => `${name} ${at}`).join("  ·  "));
  document.title = status.alerts.firing > 0 ? `(${status.alerts.firing}) Forebay` : "Forebay";
}

async function poll() {
  try {
    const answer = await fetch("/api/v1/status", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
    latest = body;
    show(body);
    lastSeen = Date.now();
  } catch (error) {
    const since = lastSeen === null ? "" : `, last seen ${duration((Date.now() - lastSeen) / 1000)} ago`;
    const unreachable = error instanceof TypeError || error.name === "TimeoutError";
    showState(unreachable ? `node unreachable${since}` : error.message, "bad");
  }
  setTimeout(poll, POLL_MS);
}

async function pollCluster() {
  try {
    const asked = { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) };
    const answer = await fetch("/api/v1/cluster?partitions=troubled", asked);
    if (answer.ok) showCluster(await answer.json());
  } catch {
    // The status says that the node cannot be reached.
  }
  setTimeout(pollCluster, 2 * POLL_MS);
}

$("internal").addEventListener("change", () => latest && showTopics(latest.topics));
poll();
pollCluster();
