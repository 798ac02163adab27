// What sounded, from the journal: a heat map and a list, filtered as the address says.
import { el, getJson } from "./base.js"
import { levelChart, narrow } from "./charts.js"
import { eventTable, silence } from "./events.js"
import { heat, keyOf } from "./heat.js"

const PAGE = 100
const MOST = 500 // events in an answer
const SETTLED_MS = 7000 // after which an event is in all answers: the server keeps those of 6 s

/** Where the list was last, and its events: for the page of one of them. */
export const shown = { address: "/history", events: [] }

let streams = 0 // begun: after the first, what is shown may have missed something
addEventListener("stream-all", () => streams++)

export async function show(main) {
  const state = stateOf(location.search)
  const over = new AbortController()
  const fresh = new Set() // ids of events that came after the list
  let counted = null
  let minutes = []
  let turn = 0 // of requests: a newer one makes an older one's answer void
  let waiting = 0
  let offering = 0

  const map = el("div", { class: "heat", tabindex: "0", role: "region", "aria-label": "Sounds by time" })
  const cut = el("p", { class: "soft" })
  const problem = el("p", { class: "problem", role: "alert" })
  const summary = el("p", { class: "soft", role: "status" })
  const news = el("button", { type: "button", hidden: true, onclick: () => load().then(() => heading.focus()) })
  const heading = el("h2", { id: "sounds", tabindex: "-1" }, "Sounds")
  const list = el("div")
  const more = el("button", { type: "button", hidden: true, onclick: further }, "More")
  const table = el("a", { download: "events.csv" }, "As a table (CSV)")
  const levels = el("section", { hidden: true })
  const periods = [["hour", "24 hours"], ["day", "30 days"]].map(([period, name]) =>
    el("button", { type: "button", "data-period": period, onclick: () => choose({ period }) }, name))
  const search = el("input", {
    type: "search", placeholder: "Dog, or *bell*", "aria-label": "Label", maxlength: 190,
    oninput: () => {
      clearTimeout(waiting)
      waiting = setTimeout(() => choose({ label: search.value.trim() }), 250)
    },
  })
  const day = el("input", { type: "date", "aria-label": "Day", onchange: () => choose({ day: day.value }) })
  const source = el("select", { "aria-label": "Source", onchange: () => choose({ source: source.value }) })
  main.append(
    el("h1", {}, "History"),
    el("div", { class: "tools" }, periods, day, source, search),
    problem,
    map,
    cut,
    el("section", { "aria-labelledby": "sounds" }, heading, el("div", { class: "tools" }, summary, news), list,
      el("p", { class: "tools" }, more, table)),
    levels,
  )
  addEventListener("stream-all", () => streams > 1 && load(), { signal: over.signal })
  addEventListener("stream-event", ({ detail }) => came(detail), { signal: over.signal })
  narrow.addEventListener("change", turned, { signal: over.signal })
  const span = () => (state.day ? spanOf(new Date(`${state.day}T00:00`)) : {})
  const isLate = (mine) => mine !== turn || !list.isConnected
  await load()
  return () => {
    clearTimeout(waiting)
    clearTimeout(offering)
    over.abort()
    silence()
  }

  function choose(changed) {
    Object.assign(state, { cell: null, offset: 0 }, changed)
    return load()
  }

  /** Show all of it, or, where another cell was chosen, the list alone. */
  async function load(anew = true) {
    const mine = ++turn
    if (!list.isConnected) return
    controls()
    try {
      const [counts, loud] = anew ? await Promise.all([getJson(`/api/counts?${queryOfMap()}`), loudness()]) : [counted, minutes]
      const found = await getJson(`/api/events?${queryOfList(counts)}&limit=${Math.min(MOST, state.offset + PAGE)}`)
      if (isLate(mine)) return
      ;[counted, minutes] = [counts, loud]
      problem.textContent = ""
      if (anew) drawMap()
      drawLevels()
      shown.events = []
      list.replaceChildren()
      add(found)
    } catch (error) {
      if (!isLate(mine)) problem.textContent = error.message
    }
  }

  async function further() {
    const mine = ++turn
    try {
      const offset = shown.events.length
      const found = await getJson(`/api/events?${queryOfList(counted)}&limit=${PAGE}&offset=${offset}`)
      if (isLate(mine)) return
      state.offset = offset
      problem.textContent = ""
      add(found)
    } catch (error) {
      if (!isLate(mine)) problem.textContent = error.message
    }
  }

  function controls() {
    for (const button of periods) button.setAttribute("aria-pressed", String(button.dataset.period === state.period))
    if (search.value.trim() !== state.label) search.value = state.label
    day.value = state.day
    state.day = day.value // "" of what is no date
    shown.address = addressOf(state)
    window.history.replaceState(null, "", shown.address)
  }

  function drawMap() {
    const { labels, rows, sources } = counted
    map.replaceChildren(heat(counted, (cell) => {
      state.cell = state.cell && keyOf(state.cell) === keyOf(cell) ? null : cell
      state.offset = 0
      load(false)
    }))
    cut.textContent = rows.length < labels ? `${rows.length} of ${labels} labels: search for others.` : ""
    source.replaceChildren(...["", ...new Set([...sources, state.source].filter(Boolean))].map((name) =>
      el("option", { value: name, selected: name === state.source }, name || "All sources")))
    source.hidden = source.options.length < 3 && !state.source
    turned()
  }

  function turned() {
    drawLevels()
    map.scrollLeft = map.scrollWidth // the newest is on the right
  }

  function add(found) {
    shown.events.push(...found.events)
    for (const each of found.events) fresh.delete(each.id)
    offer()
    for (const button of map.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Boolean(state.cell) && button.dataset.key === keyOf(state.cell)))
    }
    const { cell } = state
    const time = state.period === "day" ? "in 30 days" : state.day ? "on that day" : "in 24 hours"
    const then = cell ? `then: ${cell.label}` : time
    summary.textContent = `${found.total} ${found.total === 1 ? "event" : "events"} ${then}`
    if (found.events.length) list.append(eventTable(found.events))
    else list.replaceChildren(el("p", { class: "empty" }, state.label && !cell ? `No such label ${time === "in 24 hours" ? "in the last day" : time}.` : "Nothing sounded."))
    more.hidden = shown.events.length >= found.total
    table.href = `/api/events.csv?${queryOfList(counted)}`
    table.hidden = !found.total
    shown.address = addressOf(state)
    window.history.replaceState(null, "", shown.address)
  }

  /** An event that is published while the list is shown. */
  function came(event) {
    const until = counted && queryOfList(counted).get("until")
    if (!counted || until) return // what is shown is over
    const named = state.cell ? event.label === state.cell.label : glob(patternOf(state.label)).test(event.label)
    if (event.retracted || !named || (state.source && event.source !== state.source)) fresh.delete(event.id)
    else if (event.phase === "onset" && !shown.events.some((each) => each.id === event.id)) fresh.add(event.id)
    offering ||= setTimeout(offer, SETTLED_MS)
  }

  function offer() {
    offering = 0
    news.textContent = `${fresh.size} new: show`
    news.hidden = !fresh.size
  }

  function drawLevels() {
    const names = [...new Set(minutes.map((each) => each.source))]
    levels.hidden = !names.length
    levels.replaceChildren(
      el("h2", {}, "How loud it was"),
      ...names.map((name) => levelChart(name, minutes.filter((each) => each.source === name))),
    )
  }

  async function loudness() {
    const found = await getJson(`/api/levels?${new URLSearchParams(span())}`).catch(() => [])
    return found.filter((each) => !state.source || each.source === state.source)
  }

  function queryOfMap() {
    const { until } = span()
    return filled({ period: state.period, until, label: patternOf(state.label), source: state.source })
  }

  function queryOfList({ columns }) {
    const { cell, source } = state
    const { until } = span()
    if (!cell) return filled({ since: columns[0], until, label: patternOf(state.label), source })
    return filled({ since: cell.since, until: columns.find((at) => at > cell.since) ?? until, label: cell.label.replace(/[[*?]/g, "[$&]"), source, began: 1 })
  }
}

/** The Unix seconds between which the day of a Date is, of local time. */
export function spanOf(day) {
  const [begin, end] = [new Date(day), new Date(day)]
  begin.setHours(0, 0, 0, 0)
  end.setHours(24, 0, 0, 0)
  return { since: begin / 1000, until: end / 1000 - 0.001 }
}

const filled = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value))

const patternOf = (label) => (!label || /[*?]/.test(label) ? label : `*${label}*`)

const glob = (pattern) =>
  new RegExp(`^${(pattern || "*").replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".")}$`, "is")

function stateOf(search) {
  const given = new URLSearchParams(search)
  const said = (name) => given.get(name) ?? ""
  const since = Number(said("at"))
  return {
    period: said("period") === "day" ? "day" : "hour",
    label: said("label"),
    source: said("source"),
    day: said("day"),
    cell: since && said("sound") ? { label: said("sound"), since } : null,
    offset: Math.max(0, Math.trunc(Number(said("offset"))) || 0),
  }
}

function addressOf({ period, label, source, day, cell, offset }) {
  const query = filled({ period: period === "day" && period, label, source, day, sound: cell?.label, at: cell?.since, offset })
  return query.size ? `/history?${query}` : "/history"
}

export function fact(name, value, more) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("small", {}, more)))
}
