// The page of an event: what was published on it, the decisions around it, the user's word.
import { dayOf, el, getJson, lasting, machineTime, percent, timeOf } from "./base.js"
import { confidence, narrow, offset } from "./charts.js"
import { lasted, when } from "./events.js"
import { fact, shown, spanOf } from "./history.js"
import { marks } from "./marks.js"

export async function show(main, identity) {
  const { event, messages, hops, marking, labels } = await getJson(`/api/events/${encodeURIComponent(identity)}`)
  document.title = `${event.label}, ${when(event.began_at)} – streamtwl`
  const ways = el("p", { class: "ways soft" }, el("a", { href: shown.address }, "History"))
  main.append(
    ways,
    el("h1", {}, event.retracted ? `${event.label}, or not` : event.label),
    el(
      "dl",
      { class: "facts" },
      fact("Began", machineTime(event.began_at, timeOf(event.began_at)), dayOf(event.began_at)),
      fact("Lasted", event.open ? "still sounds" : event.retracted ? "there was no such event" : lasted(event)),
      fact("Source", event.source),
      fact("Confidence", percent(event.peak), `${percent(event.mean)} on average`),
    ),
  )
  if (marking && !event.retracted) main.append(marks(event, marking, labels))
  const chart = el("div")
  const draw = () => chart.replaceChildren(confidence(event, hops))
  if (hops.length) {
    main.append(el("section", {}, el("h2", {}, "How sure it was, hop by hop"), chart))
    draw()
    narrow.addEventListener("change", draw)
  }
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
  neighbours(event).then((found) => ways.append(...found), () => {})
  return () => narrow.removeEventListener("change", draw)
}

/** Links to the events before and after one: in the list that History showed, else of its day. */
async function neighbours(event) {
  const at = (events) => events.findIndex((each) => each.id === event.id)
  let { events } = shown
  if (at(events) < 0) {
    const query = new URLSearchParams({ ...spanOf(new Date(event.began_at * 1000)), limit: 500 })
    events = (await getJson(`/api/events?${query}`)).events
  }
  const i = at(events)
  if (i < 0) return []
  return [["Newer", events[i - 1]], ["Older", events[i + 1]]].filter(([, each]) => each).map(([name, each]) =>
    el("a", { href: `/event/${encodeURIComponent(each.id)}` }, `${name}: ${each.label}, ${when(each.began_at)}`))
}

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
