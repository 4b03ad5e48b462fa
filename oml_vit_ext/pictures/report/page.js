"use strict";
(() => {
  const { stages, compared, queries, images } = JSON.parse(document.getElementById("data").textContent);
  if (!queries.length) return;
  const at = (id) => document.getElementById(id);
  const [filter, order, label, before, after] = ["filter", "order", "label", "before", "after"].map(at);

  // Text goes in as text only: a label may look like HTML.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const picture = (number, alt) => {
    const { uri } = images[number];
    if (!uri) return make("div", "gone", "cannot be read");
    const image = make("img");
    image.src = uri;
    image.alt = alt;
    return image;
  };

  const old = () => Number(before.value);
  const now = () => Number(after.value);
  const several = stages.length > 1;
  const change = (query) => (several ? query.stages[now()].average_precision - query.stages[old()].average_precision : 0);
  const firstRight = (query) => query.stages[now()].first_right === 1;
  const FILTERS = {
    all: ["all", () => true],
    wrong: ["first hit wrong", (query) => !firstRight(query)],
    right: ["first hit right", firstRight],
    ...(several && {
      better: ["improvements", (query) => change(query) > 1e-6],
      worse: ["worsenings", (query) => change(query) < -1e-6],
      same: ["no change", (query) => Math.abs(change(query)) <= 1e-6],
    }),
  };
  const precision = (query) => query.stages[now()].average_precision;
  const ORDERS = {
    drawn: () => 0,
    worst: (a, b) => precision(a) - precision(b),
    best: (a, b) => precision(b) - precision(a),
    change: (a, b) => Math.abs(change(b)) - Math.abs(change(a)),
    label: (a, b) => images[a.image].label.localeCompare(images[b.image].label),
  };

  let chosen = [];
  let position = 0;

  function fillChoices() {
    stages.forEach((name, i) => {
      for (const select of [before, after]) {
        const option = make("option", "", name);
        option.value = String(i);
        select.append(option);
      }
    });
    after.value = String(stages.length - 1);
    before.value = String(compared);
    at("compare").hidden = stages.length < 3;
    if (!several) order.querySelector("[value=change]").remove();
  }

  function countFilters() {
    const value = filter.value || "all";
    filter.replaceChildren(
      ...Object.entries(FILTERS).map(([key, [name, fits]]) => {
        const option = make("option", "", `${name} (${queries.filter(fits).length})`);
        option.value = key;
        return option;
      })
    );
    filter.value = value;
  }

  function choose() {
    countFilters();
    const wanted = label.value.trim().toLowerCase();
    const [, fits] = FILTERS[filter.value];
    chosen = queries.filter((query) => fits(query) && images[query.image].label.toLowerCase().includes(wanted));
    chosen.sort(ORDERS[order.value]);
    drawOverview();
    show(0);
  }

  function drawOverview() {
    at("overview").replaceChildren(
      ...chosen.map((query, i) => {
        const item = make("li");
        const { label: name } = images[query.image];
        const button = make("button", firstRight(query) ? "right" : "");
        button.type = "button";
        button.setAttribute("aria-label", `Query ${i + 1}, ${name}, first hit ${firstRight(query) ? "right" : "wrong"}`);
        button.append(picture(query.image, ""));
        button.addEventListener("click", () => {
          show(i);
          at("card").scrollIntoView({ block: "nearest" });
        });
        item.append(button);
        return item;
      })
    );
  }

  function show(i) {
    position = i;
    const query = chosen[i];
    for (const id of ["previous", "next", "random"]) at(id).disabled = chosen.length < 2;
    at("position").textContent = query ? `${i + 1} of ${chosen.length}` : "0 of 0";
    document.querySelectorAll("#overview button").forEach((button, j) => button.setAttribute("aria-current", String(j === i)));
    if (!query) {
      at("card").replaceChildren(make("p", "", "No query fits. Show all of them, or another label."));
      return;
    }
    const found = make("div", "found");
    found.append(...query.stages.map((stage, s) => stageOf(query, stage, s)));
    at("card").replaceChildren(queryOf(query), found);
  }

  function queryOf(query) {
    const { label: name, path } = images[query.image];
    const figure = make("figure", "query");
    const caption = make("figcaption");
    caption.append(make("span", "hint", "query"), make("span", "label", name), make("span", "path", path));
    figure.append(picture(query.image, `The query, ${name}`), caption);
    return figure;
  }

  function stageOf(query, stage, s) {
    const section = make("section", "stage");
    const heading = make("h3", "", stages[s]);
    const first = stage.first_right ? `first right hit at rank ${stage.first_right}` : "no right hit";
    heading.append(make("span", "", `${first}, average precision ${stage.average_precision.toFixed(2)}`));
    if (several && s === now() && s !== old() && Math.abs(change(query)) > 1e-6) {
      const up = change(query) > 0;
      heading.append(make("span", up ? "up" : "down", `${up ? "▲ improved" : "▼ worsened"} by ${Math.abs(change(query)).toFixed(2)}`));
    }
    const hits = make("ol", "hits");
    hits.append(...stage.hits.map(([image, right, distance]) => hitOf(image, right, distance)));
    section.append(heading, hits);
    return section;
  }

  function hitOf(image, right, distance) {
    const { label: name, path } = images[image];
    const item = make("li", right ? "hit right" : "hit");
    const figure = make("figure");
    figure.title = path;
    const caption = make("figcaption");
    caption.append(
      make("span", "verdict", right ? "✓ " : "✗ "),
      make("span", "name", name),
      make("span", "distance", ` ${distance.toFixed(3)}`)
    );
    figure.append(picture(image, `${right ? "right" : "wrong"}: ${name}`), caption);
    item.append(figure);
    return item;
  }

  const step = (by) => chosen.length && show((position + by + chosen.length) % chosen.length);
  function random() {
    if (chosen.length < 2) return;
    let other = Math.floor(Math.random() * (chosen.length - 1));
    if (other >= position) other += 1;
    show(other);
  }

  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("random").addEventListener("click", random);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const select of [filter, order, before, after]) select.addEventListener("change", choose);
  label.addEventListener("input", choose);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input, select, textarea, .scroll, pre");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), r: random }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });

  fillChoices();
  at("explorer").hidden = false;
  choose();
})();
