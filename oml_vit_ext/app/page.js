"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  // Text goes in as text only: a label or a file name may look like HTML.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const addressOf = (entry, side) =>
    "image?" + new URLSearchParams({ index: at("index").value, path: entry.path, box: entry.box, side });
  const EDGES = ["left", "top", "right", "bottom"];

  let indexes = [];
  let query = null; // {file} or {entry}
  let seed = Math.floor(Math.random() * 1e6);

  const sayError = (text) => { at("message").textContent = text; };

  async function json(address, options) {
    let response;
    try {
      response = await fetch(address, options);
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    const content = await response.json().catch(() => ({}));
    if (response.ok) return content;
    throw new Error(typeof content.detail === "string" ? content.detail : `The server answers ${response.status}.`);
  }

  // --- the index

  async function start() {
    indexes = await json("indexes");
    at("index").replaceChildren(...indexes.map(({ name }) => make("option", "", name)));
    at("choose").hidden = indexes.length < 2;
    await chooseIndex();
  }

  async function chooseIndex() {
    const chosen = indexes.find(({ name }) => name === at("index").value);
    at("size").textContent = `${chosen.n_images} images`;
    at("reranking").hidden = !chosen.reranker;
    at("fusing").hidden = chosen.first_stage_weight === null;
    at("weight").value = chosen.first_stage_weight ?? 0;
    showValues();
    at("found").replaceChildren();
    if (query && query.entry) forget();
    await showSome();
  }

  async function showSome() {
    const entries = await json("some?" + new URLSearchParams({ index: at("index").value, n: 12, seed }));
    at("some").replaceChildren(
      ...entries.map((entry) => {
        const item = make("li");
        const button = make("button");
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-label", entry.label ? `${entry.label}: ${entry.path}` : entry.path);
        const image = make("img");
        image.alt = "";
        image.src = addressOf(entry, 96);
        button.append(image);
        button.addEventListener("click", () => pick(entry, button));
        item.append(button);
        return item;
      })
    );
  }

  // --- the query

  function pick(entry, button) {
    setQuery({ entry }, addressOf(entry, 640));
    if (button) button.setAttribute("aria-pressed", "true");
  }

  function upload(file) {
    if (!file) return;
    const most = indexes[0].max_upload_mb;
    if (file.size > most * 1e6) {
      sayError(`The photo has ${(file.size / 1e6).toFixed(1)} MB, expected at most ${most} MB.`);
      return;
    }
    setQuery({ file }, URL.createObjectURL(file));
  }

  function setQuery(next, address) {
    sayError("");
    query = next;
    document.querySelectorAll("#some [aria-pressed=true]").forEach((b) => b.setAttribute("aria-pressed", "false"));
    at("no-preview").hidden = true;
    at("stage").hidden = false;
    at("query").src = address;
    at("crop").hidden = false;
    at("search").disabled = false;
    setBox([0, 0, 1, 1]);
  }

  function forget() {
    query = null;
    at("crop").hidden = true;
    at("search").disabled = true;
  }

  // --- the crop: shares of width and height

  const getBox = () => EDGES.map((id) => Number(at(id).value) / 100);
  const isWhole = (box) => box[0] === 0 && box[1] === 0 && box[2] === 1 && box[3] === 1;

  function setBox(box) {
    EDGES.forEach((id, i) => { at(id).value = String(Math.round(100 * box[i])); });
    drawBox();
  }

  function drawBox() {
    const [left, top, right, bottom] = getBox();
    at("box").hidden = isWhole([left, top, right, bottom]) || !(left < right && top < bottom);
    Object.assign(at("box").style, {
      left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
  }

  let corner = null;
  function place(event) {
    const area = at("query").getBoundingClientRect();
    const share = (value, from, length) => Math.min(1, Math.max(0, (value - from) / length));
    return [share(event.clientX, area.left, area.width), share(event.clientY, area.top, area.height)];
  }
  at("stage").addEventListener("pointerdown", (event) => {
    event.preventDefault();
    corner = place(event);
    at("stage").setPointerCapture(event.pointerId);
  });
  at("stage").addEventListener("pointermove", (event) => {
    if (!corner) return;
    const [x, y] = place(event);
    setBox([Math.min(x, corner[0]), Math.min(y, corner[1]), Math.max(x, corner[0]), Math.max(y, corner[1])]);
  });
  const drop = () => {
    corner = null;
    const [left, top, right, bottom] = getBox();
    if (right - left < 0.03 || bottom - top < 0.03) setBox([0, 0, 1, 1]); // a click, no drag
  };
  at("stage").addEventListener("pointerup", drop);
  at("stage").addEventListener("pointercancel", drop);

  // --- search

  async function search(event) {
    event.preventDefault();
    if (!query) return;
    sayError("");
    at("search").disabled = true;
    at("status").textContent = "Searching …";
    try {
      draw(await json("query", { method: "POST", body: question() }));
    } catch (error) {
      at("status").textContent = "";
      at("found").replaceChildren();
      sayError(error.message);
    }
    at("search").disabled = false;
  }

  function question() {
    const form = new FormData();
    if (query.file) form.set("image", query.file);
    else {
      form.set("path", query.entry.path);
      form.set("box", query.entry.box);
    }
    const box = getBox();
    if (!isWhole(box)) form.set("crop_to", box.join(","));
    form.set("index", at("index").value);
    form.set("k", at("k").value);
    form.set("attention", String(at("attention").checked));
    if (!at("reranking").hidden && at("rerank").value !== "0") {
      form.set("rerank", String(Math.max(2, Number(at("rerank").value))));
      form.set("budget", String(Number(at("budget").value) / 100));
      if (!at("fusing").hidden) form.set("first_stage_weight", at("weight").value);
    }
    return form;
  }

  function draw(answer) {
    const times = Object.entries(answer.seconds).map(([name, value]) => `${name} ${value < 1 ? `${(1000 * value).toFixed(0)} ms` : `${value.toFixed(1)} s`}`);
    at("status").textContent = [times.join(", "), answer.note, answer.attention_note].filter(Boolean).join(". ");
    const maps = answer.attention;
    const lists = [];
    if (maps) {
      const section = make("section", "list looks-at-query");
      const image = make("img", "looks");
      image.src = maps.query;
      image.alt = "Where the model looks in the query";
      section.append(make("h3", "", "Where the model looks in the query"), image);
      lists.push(section);
    }
    if (answer.reranked) {
      const old = new Map(answer.before_reranking.map((hit) => [hit.path + "\n" + hit.box, hit.rank]));
      lists.push(listOf("After re-ranking", "after", answer.hits, maps && maps.hits, old));
      lists.push(listOf("Before re-ranking", "before", answer.before_reranking));
    } else lists.push(listOf("Hits", "before", answer.hits, maps && maps.hits));
    at("found").replaceChildren(...lists);
    if (matchMedia("(max-width: 52rem)").matches) at("results").scrollIntoView(); // there it is below the form
  }

  function listOf(title, name, hits, maps, oldRanks) {
    const section = make("section", `list ${name}`);
    const list = make("ol", "hits");
    list.append(
      ...hits.map((hit, i) => {
        const figure = make("figure");
        const image = make("img");
        image.src = addressOf(hit, 320);
        image.alt = hit.label || hit.path;
        const again = make("button", "again");
        again.type = "button";
        again.title = "Search with this image";
        again.append(image);
        again.addEventListener("click", () => pick(hit));
        const caption = make("figcaption");
        if (hit.label) caption.append(make("span", "name", hit.label));
        const line = make("span", "", `${hit.rank}. distance ${hit.distance.toFixed(3)} `);
        caption.append(line, ...moved(hit, oldRanks), make("span", "path", hit.path));
        figure.append(again, caption);
        if (maps) {
          const looks = make("img", "looks");
          looks.src = maps[i];
          looks.alt = "Where the model looks";
          figure.append(looks);
        }
        const item = make("li");
        item.append(figure);
        return item;
      })
    );
    section.append(make("h3", "", title), list);
    return section;
  }

  function moved(hit, oldRanks) {
    if (!oldRanks) return [];
    const old = oldRanks.get(hit.path + "\n" + hit.box);
    if (old === hit.rank) return [];
    if (old === undefined) return [make("span", "up", "▲ new")];
    return [make("span", old > hit.rank ? "up" : "down", `${old > hit.rank ? "▲" : "▼"} was ${old}`)];
  }

  // --- what is connected to what

  function showValues() {
    at("k-value").textContent = at("k").value;
    at("rerank-value").textContent = at("rerank").value === "0" ? "none" : String(Math.max(2, Number(at("rerank").value)));
    at("budget-value").textContent = `${at("budget").value} %`;
    at("weight-value").textContent = Number(at("weight").value).toFixed(2);
  }
  for (const id of ["k", "rerank", "budget", "weight"]) at(id).addEventListener("input", showValues);
  for (const id of EDGES) at(id).addEventListener("input", drawBox);
  at("whole").addEventListener("click", () => setBox([0, 0, 1, 1]));
  at("query").addEventListener("error", () => {
    at("stage").hidden = true;
    at("no-preview").hidden = !(query && query.file);
  });
  const guarded = (action) => (...args) => action(...args).catch((error) => sayError(error.message));
  at("index").addEventListener("change", guarded(chooseIndex));
  at("others").addEventListener("click", guarded(() => { seed += 1; return showSome(); }));
  at("file").addEventListener("change", () => upload(at("file").files[0]));
  at("ask").addEventListener("submit", search);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.documentElement.classList.toggle("dragging", kind === "dragover");
      if (kind === "drop") upload(event.dataTransfer.files[0]);
    });
  }
  guarded(start)();
})();
