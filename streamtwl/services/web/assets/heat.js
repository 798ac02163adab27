// How often each label sounded, by hours or by days.
import { dayOf, el, hourOf, lasting } from "./base.js"

export const keyOf = (cell) => `${cell.label}/${cell.since}`

/** A table of `counted`; `chosen` takes the cell that is clicked. */
export function heat(counted, chosen) {
  const { columns, rows, period } = counted
  if (!rows.length) return el("p", { class: "empty" }, "No event in this time.")
  const most = Math.max(...rows.flatMap((row) => row.cells.map((cell) => cell[1])))
  const named = (at) => (period === "hour" ? hourOf(at) : dayOf(at))
  const header = columns.map((at, i) => {
    const date = new Date(at * 1000)
    const text = period === "hour" ? (date.getHours() % 3 ? "" : date.getHours()) : (columns.length - 1 - i) % 5 ? "" : date.getDate()
    return el("th", { scope: "col" }, el("span", { "aria-hidden": "true" }, String(text)), el("span", { class: "unseen" }, named(at)))
  })
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, el("td"), ...header)),
    el(
      "tbody",
      {},
      rows.map((row) => {
        const cells = new Map(row.cells.map(([column, count, seconds]) => [column, [count, seconds]]))
        return el(
          "tr",
          {},
          el("th", { scope: "row", title: row.label }, row.label, el("small", {}, String(row.events))),
          columns.map((at, column) => {
            const [count, seconds] = cells.get(column) ?? [0, 0]
            if (!count) return el("td", {}, el("i"))
            const strength = Math.max(1, Math.ceil((4 * Math.log1p(count)) / Math.log1p(most)))
            const said = `${row.label}, ${named(at)}: ${count} ${count === 1 ? "event" : "events"}, ${lasting(seconds)}`
            const cell = { label: row.label, since: at }
            return el("td", {}, el("button", {
              type: "button", class: `h${strength}`, title: said, "aria-label": said, "aria-pressed": "false",
              "data-key": keyOf(cell), onclick: () => chosen(cell),
            }))
          }),
        )
      }),
    ),
  )
}
