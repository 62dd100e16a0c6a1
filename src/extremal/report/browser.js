"use strict";
// Tables of any number of rows: sorted and chosen from here, and only the rows in sight are in the document.
(() => {
  const SPARE = 6; // rows beyond either edge, so that they are there before they are seen
  const LEAST = 12; // rows, from which on there is something to look for
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const collator = new Intl.Collator(undefined, { numeric: true });

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // A number for each row, by which a column is sorted; NaN where there is nothing.
  const ranked = (column) => {
    if (!column.words) return Float64Array.from(column.values, (value) => value ?? NaN);
    const texts = [...new Set(column.values)].sort(collator.compare);
    const ranks = new Map(texts.map((text, rank) => [text, rank]));
    return Float64Array.from(column.values, (text) => (text ? ranks.get(text) : NaN));
  };

  const browse = (place) => {
    const name = place.dataset.rows;
    const data = read(`${name}-data`);
    const { columns, pictures } = data;
    const side = (column) => (column.words || column.verdicts ? "words" : "number");
    const text = (column, row) => (column.shown ?? column.values)[row];
    const ranks = new Map(), parts = new Map(), live = new Map(), spare = [];
    const chosen = new Map(); // column -> what it must say
    let order = Uint32Array.from({ length: data.count }, (_, row) => row);
    let shown = order, wanted = "", texts = null, height = 1, sorted = { column: -1, down: false };

    const told = place.querySelector("[role=status]");
    const body = make("div", { role: "rowgroup", class: "body" });
    const head = make("div", { role: "row", "aria-rowindex": 1, class: "row" });
    const view = make(
      "div",
      {
        ...{ role: "table", class: "view", tabindex: 0, "aria-labelledby": `${name}-heading` },
        ...{ "aria-rowcount": data.count + 1, "aria-colcount": columns.length + (pictures.length ? 1 : 0) },
      },
      make("div", { role: "rowgroup", class: "head" }, head),
      body,
    );

    // Pictures are kept as text, some rows together, and read when one of them comes into sight.
    const pictured = (row, which) => {
      const part = Math.floor(row / data.per);
      if (!parts.has(part)) parts.set(part, read(`${name}-pictures-${part}`));
      return parts.get(part)[row % data.per][which];
    };

    const blank = () => {
      const row = make("div", { role: "row", class: "row" });
      if (pictures.length) {
        row.append(make("div", { role: "cell", class: "pictures" }, ...pictures.map((alt) => make("img", { alt }))));
      }
      columns.forEach((column, k) => {
        const role = k === 0 ? "rowheader" : "cell";
        const cell = make("div", { role, class: side(column), "data-label": column.label });
        cell.append(make("span"), ...(column.notes ? [make("small")] : []));
        row.append(cell);
      });
      return row;
    };

    const fill = (element, row, at) => {
      element.setAttribute("aria-rowindex", at + 2);
      element.style.transform = `translateY(${at * height}px)`;
      const cells = [...element.children];
      if (pictures.length) {
        [...cells.shift().children].forEach((image, which) => {
          const source = pictured(row, which);
          image.hidden = !source;
          if (source) image.src = `data:image/jpeg;base64,${source}`;
        });
      }
      columns.forEach((column, k) => {
        const [value, note] = cells[k].children;
        value.textContent = text(column, row);
        value.className = column.verdicts ? `word ${column.verdicts[row]}` : "";
        if (note) note.textContent = column.notes[row];
        cells[k].title = side(column) === "words" ? [text(column, row), column.notes?.[row]].filter(Boolean).join(": ") : "";
      });
    };

    const draw = () => {
      const first = Math.max(0, Math.floor(view.scrollTop / height) - SPARE);
      const last = Math.min(shown.length, Math.ceil((view.scrollTop + view.clientHeight) / height) + SPARE);
      for (const [at, element] of live) {
        if (at >= first && at < last) continue;
        live.delete(at);
        element.remove();
        spare.push(element);
      }
      let next = body.firstChild; // in the document rows come as on the screen
      for (let at = first; at < last; at++) {
        let element = live.get(at);
        if (!element) {
          element = spare.pop() ?? blank();
          fill(element, shown[at], at);
          live.set(at, element);
          body.insertBefore(element, next);
        } else next = element.nextSibling;
      }
    };

    const again = () => {
      for (const element of live.values()) {
        element.remove();
        spare.push(element);
      }
      live.clear();
      height = parseFloat(getComputedStyle(place).getPropertyValue("--row"));
      body.style.height = `${shown.length * height}px`;
      draw();
    };

    const choose = () => {
      if (wanted && !texts) {
        const searched = columns.filter((column) => side(column) === "words");
        texts = Array.from({ length: data.count }, (_, row) =>
          searched.map((column) => `${text(column, row)}\n${column.notes?.[row] ?? ""}`).join("\n").toLowerCase(),
        );
      }
      const conditions = [...chosen].filter(([, value]) => value !== "");
      shown = order.filter(
        (row) =>
          conditions.every(([column, value]) => text(column, row) === value) && (!wanted || texts[row].includes(wanted)),
      );
      const count = (number) => number.toLocaleString("en");
      const all = shown.length === data.count;
      told.textContent = all ? `${count(data.count)} ${data.what}` : `${count(shown.length)} of ${count(data.count)} ${data.what}`;
      view.setAttribute("aria-rowcount", shown.length + 1);
      view.scrollTop = 0;
      again();
    };

    const sort = (which, down) => {
      const column = columns[which], sign = down ? -1 : 1;
      if (column && !ranks.has(column)) ranks.set(column, ranked(column));
      const rank = ranks.get(column); // none: as the rows came
      order.sort((a, b) => {
        if (!rank) return a - b;
        const nothing = Number.isNaN(rank[a]) - Number.isNaN(rank[b]); // last, in either direction
        return nothing || sign * (rank[a] - rank[b]) || a - b;
      });
      sorted = { column: which, down };
      headers.forEach((header, k) =>
        header.setAttribute("aria-sort", k !== which ? "none" : down ? "descending" : "ascending"),
      );
      sorting.value = column ? `${which} ${down}` : "";
      choose();
    };

    if (pictures.length) head.append(make("div", { role: "columnheader" }, make("span", { class: "hidden-text" }, "Picture")));
    const headers = columns.map((column, k) => {
      const button = make("button", { type: "button" }, column.label);
      button.addEventListener("click", () => sort(k, sorted.column === k && !sorted.down));
      const header = make("div", { role: "columnheader", "aria-sort": "none", class: side(column) }, button);
      head.append(header);
      return header;
    });

    const tools = place.querySelector(".tools");
    const field = (label, control) => {
      tools.append(make("label", {}, make("span", {}, label), control));
      return control;
    };
    const option = (value, label = value) => make("option", { value }, label);
    if (data.count >= LEAST) {
      const search = field("Search", make("input", { type: "search", autocomplete: "off", spellcheck: "false" }));
      search.addEventListener("input", () => {
        wanted = search.value.trim().toLowerCase();
        choose();
      });
    }
    for (const column of columns.filter((one) => one.choice)) {
      const values = [...new Set(column.values.map((_, row) => text(column, row)))].filter(Boolean).sort(collator.compare);
      const select = field(column.label, make("select", {}, option("", "All"), ...values.map((value) => option(value))));
      select.addEventListener("change", () => {
        chosen.set(column, select.value);
        choose();
      });
    }
    const sorting = field("Sorted by", make("select", {}, option("", "As they come")));
    sorting.parentElement.className = "sorting";
    columns.forEach((column, k) => {
      sorting.append(option(`${k} false`, `${column.label}, rising`), option(`${k} true`, `${column.label}, falling`));
    });
    sorting.addEventListener("change", () => {
      const [which, down] = sorting.value.split(" ");
      sort(down ? Number(which) : -1, down === "true");
    });

    const tracks = [...(pictures.length ? [`${pictures.length * 72}px`] : []), ...columns.map((column) => column.width)];
    place.style.setProperty("--tracks", tracks.join(" "));
    place.append(view);
    view.addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(again).observe(view);
    if (data.sort) sort(data.sort.column, data.sort.down);
    else choose();
  };

  document.querySelectorAll("[data-rows]").forEach(browse);
})();
