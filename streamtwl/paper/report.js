// Confusion matrices: one at a time, chosen by name.
for (const select of document.querySelectorAll("select[data-of]")) {
  const all = JSON.parse(document.getElementById(select.dataset.of).textContent);
  const table = select.parentElement.querySelector("table");
  const cell = (row, tag, text) => {
    const made = document.createElement(tag);
    made.textContent = text;
    row.append(made);
    return made;
  };
  const draw = () => {
    const { labels, matrices } = all;
    const counts = matrices[select.selectedIndex].counts;
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    cell(head, "th", "");
    for (const label of labels) {
      const span = document.createElement("span");
      span.textContent = label;
      cell(head, "th", "").append(span);
    }
    const body = table.createTBody();
    counts.forEach((row, truth) => {
      const line = body.insertRow();
      cell(line, "th", labels[truth]);
      const total = row.reduce((sum, count) => sum + count, 0) || 1;
      row.forEach((count, decided) => {
        const made = cell(line, "td", count ? +count.toFixed(1) : "");
        made.style.background = `rgba(var(--heat), ${((0.85 * count) / total).toFixed(3)})`;
        if (count / total > 0.5) made.style.color = "var(--card)";
        made.title = `${labels[truth]} named ${labels[decided]}: ${count}`;
      });
    });
  };
  select.addEventListener("change", draw);
  draw();
}
