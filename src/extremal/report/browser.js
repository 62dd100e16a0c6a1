"use strict";
// Tables of any number of rows, with sorting and filters; only the visible rows are in the document.
(() => {
  const OVERSCAN = 6; // rows rendered above and below the visible ones
  const MIN_SEARCHABLE = 12; // rows from which on a search field is shown
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const collator = new Intl.Collator(undefined, { numeric: true });

  const createElement = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // The sort key of each row as a number; NaN if there is no value.
  const sortKeys = (column) => {
    if (!column.words) return Float64Array.from(column.values, (value) => value ?? NaN);
    const texts = [...new Set(column.values)].sort(collator.compare);
    const ranks = new Map(texts.map((text, rank) => [text, rank]));
    return Float64Array.from(column.values, (text) => (text ? ranks.get(text) : NaN));
  };

  const showTable = (section) => {
    const name = section.dataset.rows;
    const data = read(`${name}-data`);
    const { columns, pictures } = data;
    const cellClass = (column) => (column.words || column.verdicts ? "words" : "number");
    const text = (column, row) => (column.shown ?? column.values)[row];
    const keys = new Map(); // column -> sort keys
    const chunks = new Map(); // index -> images of its rows
    const rendered = new Map(); // position -> element
    const unused = []; // elements of rows that went out of sight
    const filters = new Map(); // column -> required text
    let order = Uint32Array.from({ length: data.count }, (_, row) => row);
    let shown = order, query = "", texts = null, rowHeight = 1, sorted = { column: -1, down: false };

    const status = section.querySelector("[role=status]");
    const body = createElement("div", { role: "rowgroup", class: "body" });
    const head = createElement("div", { role: "row", "aria-rowindex": 1, class: "row" });
    const view = createElement(
      "div",
      {
        ...{ role: "table", class: "view", tabindex: 0, "aria-labelledby": `${name}-heading` },
        ...{ "aria-rowcount": data.count + 1, "aria-colcount": columns.length + (pictures.length ? 1 : 0) },
      },
      createElement("div", { role: "rowgroup", class: "head" }, head),
      body,
    );

    // Images are stored as text in chunks of rows, and a chunk is parsed when one of its rows becomes visible.
    const imageData = (row, index) => {
      const chunk = Math.floor(row / data.per);
      if (!chunks.has(chunk)) chunks.set(chunk, read(`${name}-pictures-${chunk}`));
      return chunks.get(chunk)[row % data.per][index];
    };

    const createRow = () => {
      const row = createElement("div", { role: "row", class: "row" });
      if (pictures.length) {
        row.append(createElement("div", { role: "cell", class: "pictures" }, ...pictures.map((alt) => createElement("img", { alt }))));
      }
      columns.forEach((column, k) => {
        const role = k === 0 ? "rowheader" : "cell";
        const cell = createElement("div", { role, class: cellClass(column), "data-label": column.label });
        cell.append(createElement(column.links ? "a" : "span"), ...(column.notes ? [createElement("small")] : []));
        row.append(cell);
      });
      return row;
    };

    const fillRow = (element, row, position) => {
      element.setAttribute("aria-rowindex", position + 2);
      element.style.transform = `translateY(${position * rowHeight}px)`;
      const cells = [...element.children];
      if (pictures.length) {
        [...cells.shift().children].forEach((image, index) => {
          const source = imageData(row, index);
          image.hidden = !source;
          if (source) image.src = `data:image/jpeg;base64,${source}`;
        });
      }
      columns.forEach((column, k) => {
        const [value, note] = cells[k].children;
        value.textContent = text(column, row);
        value.className = column.verdicts ? `word ${column.verdicts[row]}` : "";
        if (column.links) {
          if (column.links[row]) value.href = column.links[row];
          else value.removeAttribute("href");
        }
        if (note) note.textContent = column.notes[row];
        cells[k].title = cellClass(column) === "words" ? [text(column, row), column.notes?.[row]].filter(Boolean).join(": ") : "";
      });
    };

    const draw = () => {
      const first = Math.max(0, Math.floor(view.scrollTop / rowHeight) - OVERSCAN);
      const last = Math.min(shown.length, Math.ceil((view.scrollTop + view.clientHeight) / rowHeight) + OVERSCAN);
      for (const [position, element] of rendered) {
        if (position >= first && position < last) continue;
        rendered.delete(position);
        element.remove();
        unused.push(element);
      }
      let next = body.firstChild; // rows have the same order in the document as on the screen
      for (let position = first; position < last; position++) {
        let element = rendered.get(position);
        if (!element) {
          element = unused.pop() ?? createRow();
          fillRow(element, shown[position], position);
          rendered.set(position, element);
          body.insertBefore(element, next);
        } else next = element.nextSibling;
      }
    };

    const redraw = () => {
      for (const element of rendered.values()) {
        element.remove();
        unused.push(element);
      }
      rendered.clear();
      rowHeight = parseFloat(getComputedStyle(section).getPropertyValue("--row"));
      body.style.height = `${shown.length * rowHeight}px`;
      draw();
    };

    const applyFilters = () => {
      if (query && !texts) {
        const searched = columns.filter((column) => cellClass(column) === "words");
        texts = Array.from({ length: data.count }, (_, row) =>
          searched.map((column) => `${text(column, row)}\n${column.notes?.[row] ?? ""}`).join("\n").toLowerCase(),
        );
      }
      const conditions = [...filters].filter(([, value]) => value !== "");
      shown = order.filter(
        (row) =>
          conditions.every(([column, value]) => text(column, row) === value) && (!query || texts[row].includes(query)),
      );
      const format = (number) => number.toLocaleString("en");
      const all = shown.length === data.count;
      status.textContent = all ? `${format(data.count)} ${data.what}` : `${format(shown.length)} of ${format(data.count)} ${data.what}`;
      view.setAttribute("aria-rowcount", shown.length + 1);
      view.scrollTop = 0;
      redraw();
    };

    const sort = (index, down) => {
      const column = columns[index], sign = down ? -1 : 1;
      if (column && !keys.has(column)) keys.set(column, sortKeys(column));
      const key = keys.get(column); // undefined: the original order
      order.sort((a, b) => {
        if (!key) return a - b;
        const missing = Number.isNaN(key[a]) - Number.isNaN(key[b]); // last in both directions
        return missing || sign * (key[a] - key[b]) || a - b;
      });
      sorted = { column: index, down };
      headers.forEach((header, k) =>
        header.setAttribute("aria-sort", k !== index ? "none" : down ? "descending" : "ascending"),
      );
      sorting.value = column ? `${index} ${down}` : "";
      applyFilters();
    };

    if (pictures.length) head.append(createElement("div", { role: "columnheader" }, createElement("span", { class: "hidden-text" }, "Thumbnail")));
    const headers = columns.map((column, k) => {
      const button = createElement("button", { type: "button" }, column.label);
      button.addEventListener("click", () => sort(k, sorted.column === k && !sorted.down));
      const header = createElement("div", { role: "columnheader", "aria-sort": "none", class: cellClass(column) }, button);
      head.append(header);
      return header;
    });

    const tools = section.querySelector(".tools");
    const field = (label, control) => {
      tools.append(createElement("label", {}, createElement("span", {}, label), control));
      return control;
    };
    const option = (value, label = value) => createElement("option", { value }, label);
    if (data.count >= MIN_SEARCHABLE) {
      const search = field("Search", createElement("input", { type: "search", autocomplete: "off", spellcheck: "false" }));
      search.addEventListener("input", () => {
        query = search.value.trim().toLowerCase();
        applyFilters();
      });
    }
    for (const column of columns.filter((column) => column.choice)) {
      const values = [...new Set(column.values.map((_, row) => text(column, row)))].filter(Boolean).sort(collator.compare);
      const select = field(column.label, createElement("select", {}, option("", "All"), ...values.map((value) => option(value))));
      select.addEventListener("change", () => {
        filters.set(column, select.value);
        applyFilters();
      });
    }
    const sorting = field("Sort by", createElement("select", {}, option("", "Original order")));
    sorting.parentElement.className = "sorting";
    columns.forEach((column, k) => {
      sorting.append(option(`${k} false`, `${column.label}, ascending`), option(`${k} true`, `${column.label}, descending`));
    });
    sorting.addEventListener("change", () => {
      const [index, down] = sorting.value.split(" ");
      sort(down ? Number(index) : -1, down === "true");
    });

    const tracks = [...(pictures.length ? [`${pictures.length * 72}px`] : []), ...columns.map((column) => column.width)];
    section.style.setProperty("--tracks", tracks.join(" "));
    section.append(view);
    view.addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(redraw).observe(view);
    if (data.sort) sort(data.sort.column, data.sort.down);
    else applyFilters();
  };

  document.querySelectorAll("[data-rows]").forEach(showTable);
})();
