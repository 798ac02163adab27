// What sounded, from the journal: a heat map, a search, one event.
import { dayOf, el, getJson, hourOf, lasting, machineTime, percent, timeOf, unit } from "./base.js"
import { eventTable } from "./live.js"
import { marks } from "./marks.js"

const PAGE = 100
const RATE = 16_000

export async function show(main) {
  const state = { period: "hour", label: "", source: "", cell: null, offset: 0 }
  const map = el("div", { class: "heat", tabindex: "0", role: "region", "aria-label": "Sounds by time" })
  const summary = el("p", { class: "soft", role: "status" })
  const list = el("div")
  const more = el("button", { type: "button", hidden: true, onclick: () => events(true) }, "More")
  const levels = el("section", { hidden: true })
  const hours = el("button", { type: "button", "aria-pressed": "true", onclick: () => choose("hour") }, "24 hours")
  const days = el("button", { type: "button", "aria-pressed": "false", onclick: () => choose("day") }, "30 days")
  let waiting = 0
  const search = el("input", {
    type: "search", placeholder: "Dog, or *bell*", "aria-label": "Label", maxlength: 200,
    oninput: () => {
      clearTimeout(waiting)
      waiting = setTimeout(() => {
        state.label = search.value.trim()
        state.cell = null
        events()
        press()
      }, 250)
    },
  })
  main.append(
    el("h1", {}, "History"),
    el("div", { class: "tools" }, hours, days, search),
    map,
    el("section", { "aria-labelledby": "sounds" }, el("h2", { id: "sounds" }, "Sounds"), summary, list, more),
    levels,
  )
  let counted = null
  await counts()
  await events()
  await loudness()
  return () => clearTimeout(waiting)

  async function choose(period) {
    state.period = period
    state.cell = null
    hours.setAttribute("aria-pressed", period === "hour")
    days.setAttribute("aria-pressed", period === "day")
    await counts()
    await events()
  }

  async function counts() {
    counted = await getJson(`/api/counts?period=${state.period}`)
    map.replaceChildren(heat(counted, (cell) => {
      state.cell = state.cell && state.cell.key === cell.key ? null : cell
      search.value = state.cell ? cell.label : state.label
      events()
      press()
    }))
    map.scrollLeft = map.scrollWidth // the newest is on the right
  }

  function press() {
    for (const button of map.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(state.cell?.key === button.dataset.key))
    }
  }

  async function events(further) {
    state.offset = further ? state.offset + PAGE : 0
    const { cell, period } = state
    const query = new URLSearchParams({
      since: cell ? cell.since : counted.columns[0],
      limit: PAGE,
      offset: state.offset,
    })
    if (cell) {
      query.set("until", cell.until)
      query.set("label", cell.label.replace(/[[*?]/g, "[$&]"))
    } else if (state.label) {
      query.set("label", /[*?]/.test(state.label) ? state.label : `*${state.label}*`)
    }
    const found = await getJson(`/api/events?${query}`)
    const over = period === "day" ? "in 30 days" : "in 24 hours"
    summary.textContent = `${found.total} ${found.total === 1 ? "event" : "events"} ${cell ? "then" : over}`
    const table = found.events.length ? eventTable(found.events, period === "day" && dayOf) : el("p", { class: "empty" }, "Nothing sounded.")
    if (further) list.append(table)
    else list.replaceChildren(table)
    more.hidden = state.offset + found.events.length >= found.total
  }

  async function loudness() {
    const minutes = await getJson("/api/levels").catch(() => [])
    if (!minutes.length) return
    const names = [...new Set(minutes.map((each) => each.source))]
    levels.hidden = false
    levels.replaceChildren(
      el("h2", {}, "How loud it was"),
      ...names.map((name) => levelChart(name, minutes.filter((each) => each.source === name))),
    )
  }
}

function heat(counted, chosen) {
  const { columns, rows, period } = counted
  if (!rows.length) return el("p", { class: "empty" }, "No event in this time.")
  const most = Math.max(...rows.flatMap((row) => row.cells.map((cell) => cell[1])))
  const named = (at) => (period === "hour" ? hourOf(at) : dayOf(at))
  const header = columns.map((at, i) => {
    const date = new Date(at * 1000)
    const text = period === "hour" ? (date.getHours() % 3 ? "" : date.getHours()) : (columns.length - 1 - i) % 5 ? "" : date.getDate()
    return el("th", { scope: "col", "aria-label": named(at) }, String(text))
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
            const until = columns[column + 1] ?? Date.now() / 1000 + 1
            const said = `${row.label}, ${named(at)}: ${count} ${count === 1 ? "event" : "events"}, ${lasting(seconds)}`
            const cell = { key: `${row.label}/${column}`, label: row.label, since: at, until }
            return el("td", {}, el("button", {
              type: "button", class: `h${strength}`, title: said, "aria-label": said, "aria-pressed": "false",
              "data-key": cell.key, onclick: () => chosen(cell),
            }))
          }),
        )
      }),
    ),
  )
}

function levelChart(name, minutes) {
  const [wide, tall, left] = [narrow() ? 420 : 960, 180, 34]
  const until = Math.max(...minutes.map((each) => each.at))
  const since = Math.min(until - 3600, ...minutes.map((each) => each.at))
  const low = Math.floor((Math.min(...minutes.map((each) => each.l90_dba)) - 3) / 10) * 10
  const high = Math.ceil((Math.max(...minutes.map((each) => each.max_dba)) + 1) / 10) * 10
  const x = (at) => left + ((wide - left) * (at - since)) / (until - since)
  const y = (level) => tall - 20 - ((tall - 30) * (level - low)) / (high - low)
  const runs = []
  minutes.forEach((each, i) => {
    if (!i || each.at - minutes[i - 1].at > 150) runs.push([])
    runs.at(-1).push(each)
  })
  const path = (points) => points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("")
  const chart = el("svg:svg", { class: "chart", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `Level at ${name}` })
  for (let level = low; level <= high; level += high - low > 40 ? 20 : 10) {
    chart.append(
      el("svg:line", { class: "grid", x1: left, x2: wide, y1: y(level), y2: y(level) }),
      el("svg:text", { x: 0, y: y(level) + 4 }, String(level)),
    )
  }
  for (const run of runs) {
    const above = run.map((each) => [x(each.at), y(each.l10_dba)])
    const below = run.map((each) => [x(each.at), y(each.l90_dba)]).reverse()
    chart.append(
      el("svg:path", { class: "band", d: `${path([...above, ...below])}Z` }),
      el("svg:path", { class: "line", d: path(run.map((each) => [x(each.at), y(each.leq_dba)])) }),
    )
  }
  const labels = [since, (since + until) / 2, until]
  labels.forEach((at, i) => chart.append(el("svg:text", { x: x(at), y: tall - 2, "text-anchor": ["start", "middle", "end"][i] }, hourOf(at))))
  const newest = minutes.at(-1)
  return el(
    "figure",
    {},
    el("h3", {}, `${name}: Leq ${newest.leq_dba.toFixed(0)} ${unit(newest.calibrated)} in the last minute; the line is Leq, the band L90 to L10`),
    chart,
  )
}

export async function showEvent(main, identity) {
  const { event, messages, hops, marking } = await getJson(`/api/events/${encodeURIComponent(identity)}`)
  main.append(
    el("p", { class: "soft" }, el("a", { href: "/history" }, "History")),
    el("h1", {}, event.retracted ? `${event.label}, or not` : event.label),
    el(
      "dl",
      { class: "facts" },
      fact("Began", machineTime(event.began_at, timeOf(event.began_at)), dayOf(event.began_at)),
      fact("Lasted", event.open ? "still sounds" : event.retracted ? "there was no such event" : lasting(event.seconds)),
      fact("Source", event.source),
      fact("Confidence", percent(event.peak), `${percent(event.mean)} on average`),
    ),
  )
  if (marking && !event.retracted) main.append(marks(event, marking))
  if (hops.length) main.append(el("section", {}, el("h2", {}, "How sure it was, hop by hop"), confidence(event, hops)))
  let before = null
  const steps = messages.map((each) => {
    const text = said(each, before)
    before = each
    return el("li", {}, machineTime(each.published_at, timeOf(each.published_at)), el("span", {}, text))
  })
  main.append(el("section", {}, el("h2", {}, "What was published"), el("ol", { class: "steps" }, steps)))
  if (hops.length) {
    main.append(
      el("section", {}, el("h2", {}, "The decisions around it"), el("ol", { class: "steps" },
        hops.filter((hop, i) => !i || hop.label !== hops[i - 1].label || hop.thoughts.length).map((hop) =>
          el("li", {}, el("span", { class: "soft" }, offset(hop.position - event.start)),
            el("span", {}, hop.label ? `${hop.label}, ${percent(hop.confidence)}` : "Quiet",
              hop.thoughts.map((each) => ` The language model: ${each.label ?? "none of the labels"}. ${each.text}`)))))),
    )
  }
}

export function fact(name, value, more) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("small", {}, more)))
}

// Figures in a chart are to be legible, so a narrow one is not a wide one made small
const narrow = () => innerWidth < 640

const offset = (samples) => `${samples < 0 ? "−" : "+"}${(Math.abs(samples) / RATE).toFixed(2)} s`

function said(message, before) {
  if (message.phase === "onset") return `It began: ${message.label}, ${percent(message.peak)}`
  if (message.retracted) return "Second thoughts: there was no such event"
  if (message.phase === "offset") return `It is over, after ${lasting(message.seconds)}`
  const parts = []
  if (before && before.label !== message.label) parts.push(`it was ${message.label}, not ${before.label}`)
  if (before && before.start !== message.start) parts.push(`it began ${offset(message.start - before.start)} from where it was`)
  if (before && before.end !== message.end) parts.push(message.end === null ? "it goes on" : `it lasted ${lasting(message.seconds)}`)
  return `Second thoughts: ${parts.join(", ") || "the same"}`
}

function confidence(event, hops) {
  const [wide, tall, left] = [narrow() ? 420 : 960, 160, 34]
  const first = hops[0].position
  const last = Math.max(hops.at(-1).position, event.end ?? 0)
  const x = (position) => left + ((wide - left) * (position - first)) / Math.max(1, last - first)
  const y = (score) => tall - 20 - (tall - 30) * score
  const score = (hop) => hop.top.find((each) => each.label === event.label)?.score ?? 0
  const path = hops.map((hop, i) => `${i ? "L" : "M"}${x(hop.position).toFixed(1)} ${y(score(hop)).toFixed(1)}`).join("")
  const chart = el("svg:svg", { class: "chart", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `The score of ${event.label} around the event` })
  const end = event.end ?? last
  chart.append(el("svg:rect", { class: "span", x: Math.max(left, x(event.start)), y: 4, width: Math.max(2, x(Math.min(end, last)) - Math.max(left, x(event.start))), height: tall - 24 }))
  for (const level of [0, 0.5, 1]) {
    chart.append(
      el("svg:line", { class: "grid", x1: left, x2: wide, y1: y(level), y2: y(level) }),
      el("svg:text", { x: 0, y: y(level) + 4 }, level.toFixed(1)),
    )
  }
  chart.append(el("svg:path", { class: "line", d: path }))
  chart.append(el("svg:text", { x: left, y: tall - 2 }, offset(first - event.start)), el("svg:text", { x: wide, y: tall - 2, "text-anchor": "end" }, offset(last - event.start)))
  return chart
}
