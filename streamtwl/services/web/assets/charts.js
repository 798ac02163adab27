// Charts over time, SVG.
import { el, hourOf, unit } from "./base.js"

const RATE = 16_000

// Figures in a chart are to be legible, so a narrow one is not a wide one made small
export const narrow = matchMedia("(max-width: 639px)")

export const offset = (samples) => `${samples < 0 ? "−" : "+"}${(Math.abs(samples) / RATE).toFixed(2)} s`

/** How loud each minute was at a source. */
export function levelChart(name, minutes) {
  const [wide, tall, left] = [narrow.matches ? 420 : 960, 180, 34]
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

/** The score of an event's label around it, hop by hop, and its peak. */
export function confidence(event, hops) {
  const [wide, tall, left] = [narrow.matches ? 420 : 960, 160, 34]
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
  chart.append(
    el("svg:path", { class: "line", d: path }),
    el("svg:line", { class: "peak", x1: left, x2: wide, y1: y(event.peak), y2: y(event.peak) }),
  )
  chart.append(el("svg:text", { x: left, y: tall - 2 }, offset(first - event.start)), el("svg:text", { x: wide, y: tall - 2, "text-anchor": "end" }, offset(last - event.start)))
  const scores = hops.filter((hop) => hop.position >= event.start && hop.position <= end).map(score)
  const revised = Math.abs(Math.max(0, ...scores) - event.peak) > 0.005 ? "; revised later" : ""
  const caption = `As first decided${revised}. The dashed line is the event's peak, ${event.peak.toFixed(2)}.`
  return el("figure", {}, chart, el("figcaption", { class: "soft" }, caption))
}
