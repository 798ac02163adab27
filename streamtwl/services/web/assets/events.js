// A list of events, with what one may do at once: open it, hear its clip.
import { dayOf, el, lasting, machineTime, timeOf } from "./base.js"

/** A time of day, with its date where that is not today. */
export function when(at) {
  const today = new Date(at * 1000).toDateString() === new Date().toDateString()
  return today ? timeOf(at) : `${dayOf(at)} ${timeOf(at)}`
}

/** How long an event lasted; of one whose end nobody published, at least. */
export const lasted = (event) => `${event.end === null ? "over " : ""}${lasting(event.seconds)}`

export function eventTable(events) {
  const several = new Set(events.map((each) => each.source)).size > 1
  return el(
    "table",
    { class: "events" },
    el(
      "thead",
      {},
      el("tr", {}, el("th", { scope: "col" }, "Began"), el("th", { scope: "col" }, "Sound"),
        several && el("th", { scope: "col", class: "wide" }, "Source"),
        el("th", { scope: "col", class: "number" }, "Lasted"), el("th", { scope: "col", class: "number wide" }, "Peak")),
    ),
    el(
      "tbody",
      {},
      events.map((each) =>
        el(
          "tr",
          { "data-key": each.id },
          el("td", { class: "when" }, machineTime(each.began_at, when(each.began_at))),
          el("td", { class: "label" }, el("a", { href: `/event/${encodeURIComponent(each.id)}` }, each.label),
            each.mark && sign(each.mark), each.clip && playButton(each)),
          several && el("td", { class: "wide soft" }, each.source),
          el("td", { class: "number" }, each.open ? el("span", { class: "open" }, "now") : lasted(each)),
          el("td", { class: "number wide" }, each.peak.toFixed(2)),
        ),
      ),
    ),
  )
}

function sign(verdict) {
  return el("span", { class: `mark ${verdict}`, title: `You said: ${verdict}` },
    el("span", { "aria-hidden": "true" }, verdict === "right" ? " ✓" : " ✗"), el("span", { class: "unseen" }, `, marked as ${verdict}`))
}

// One clip at a time
const player = new Audio()
let playing = null // its button's text
for (const kind of ["ended", "error"]) player.addEventListener(kind, silence)

export function silence() {
  player.pause()
  if (playing) playing.textContent = "Play"
  playing = null
}

function playButton(event) {
  const text = el("span", {}, "Play")
  return el("button", {
    type: "button", class: "quiet play",
    onclick: () => {
      const other = playing !== text
      silence()
      if (!other) return
      playing = text
      text.textContent = "Stop"
      player.src = `/api/events/${encodeURIComponent(event.id)}/clip`
      player.play().catch(() => playing === text && silence())
    },
  }, text, el("span", { class: "unseen" }, ` ${event.label}, ${when(event.began_at)}`))
}
