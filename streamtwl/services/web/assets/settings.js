// Labels and thresholds with what they would have done in the last day; sounds that were taught.
import { dayOf, el, getJson, lasting, timeOf } from "./base.js"
import { fact } from "./history.js"

const FIRST = 40

export async function show(main) {
  const waiting = el("p", { class: "soft", role: "status" }, "Reading the last day …")
  main.append(el("h1", {}, "Settings"), waiting)
  const settings = await getJson("/api/settings").finally(() => waiting.remove())
  if (!settings.windows) {
    main.append(el("p", { class: "empty" }, "The listener has not said yet what it is set to: that comes once a minute."))
    return
  }
  main.append(
    el("dl", { class: "facts" },
      fact("Labels", String(settings.labels)),
      fact("Windows", settings.windows.join(", ")),
      fact("Decides", `every ${settings.hop_s} s`),
      fact("Reasoner", settings.reasoner),
      fact("Microphones calibrated", String(Object.keys(settings.level?.calibration_db ?? {}).length)),
    ),
    thresholds(settings),
    sounds(settings.sounds),
  )
}

function thresholds(settings) {
  const body = el("tbody")
  const cut = el("p", { class: "soft", role: "status" })
  const search = el("input", { type: "search", placeholder: "Find a label", "aria-label": "Find a label", oninput: list })
  list()
  function list() {
    const named = search.value.trim().toLowerCase()
    const found = settings.thresholds.filter((each) => each.label.toLowerCase().includes(named))
    const rows = found.slice(0, FIRST)
    body.replaceChildren(...rows.map(row))
    cut.textContent = rows.length < found.length ? `${rows.length} of ${found.length} labels: search for others.`
      : named && !rows.length ? "No such label in the last day." : ""
  }
  function row(each) {
    const choice = el("button", { type: "button", class: "row", "aria-expanded": "false", onclick: () => {
      const opens = choice.ariaExpanded === "false"
      body.querySelector(".opened")?.remove()
      for (const one of body.querySelectorAll("[aria-expanded]")) one.ariaExpanded = "false"
      if (!opens) return
      choice.ariaExpanded = "true"
      choice.closest("tr").after(el("tr", { class: "opened" }, el("td", { colspan: 4 }, trial(each))))
    } }, each.label)
    return el("tr", {},
      el("td", {}, choice),
      el("td", { class: "number" }, String(each.events)),
      el("td", { class: "number" }, each.wanted ? each.on.toFixed(2) : "left out"),
      el("td", { class: "number wide" }, each.off.toFixed(2)))
  }
  return el(
    "section",
    { class: "rows", "aria-labelledby": "thresholds" },
    el("h2", { id: "thresholds" }, "Thresholds"),
    el("p", { class: "soft" }, "Choose a label to see what other thresholds would have done in the last day."),
    el("div", { class: "tools" }, search),
    settings.thresholds.length
      ? el("table", { class: "events" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Label"), el("th", { scope: "col", class: "number" }, "Events, 24 h"),
          el("th", { scope: "col", class: "number" }, "Begins at"), el("th", { scope: "col", class: "number wide" }, "Ends below"))),
        body)
      : el("p", { class: "empty" }, "The journal has no decision of the last day."),
    cut,
  )
}

function trial({ label, on, off }) {
  const values = { on, off }
  const result = el("div", { role: "status" })
  const toml = el("pre", {})
  const sliders = ["on", "off"].map((name) => {
    const shown = el("output", {}, values[name].toFixed(2))
    const input = el("input", {
      type: "range", min: 0.02, max: 0.98, step: 0.01, value: values[name], name,
      oninput: () => {
        values[name] = Number(input.value)
        shown.textContent = values[name].toFixed(2)
        later()
      },
    })
    return el("label", {}, name === "on" ? "An event begins at " : "and ends below ", shown, input)
  })
  let waiting = 0
  function later() {
    clearTimeout(waiting)
    waiting = setTimeout(update, 150)
  }
  async function update() {
    if (values.off > values.on) {
      result.replaceChildren(el("p", { class: "problem" }, "It cannot end above where it begins."))
      return
    }
    const ask = (of) => getJson(`/api/what-if?${new URLSearchParams({ label, on: of.on, off: of.off })}`)
    try {
      const [would, does] = await Promise.all([ask(values), ask({ on, off })])
      result.replaceChildren(
        el("output", {}, `${would.events} ${would.events === 1 ? "event" : "events"}, ${lasting(would.seconds)}`),
        el("p", { class: "soft" }, `As it is set: ${does.events}, ${lasting(does.seconds)}. The highest score was ${would.highest.toFixed(2)}.`),
        el("ol", {}, would.newest.slice(0, 5).map((each) => el("li", { class: "soft" }, `${dayOf(each.began_at)} ${timeOf(each.began_at)}, ${lasting(each.seconds)}, ${each.source}`))),
      )
    } catch (error) {
      result.replaceChildren(el("p", { class: "problem" }, error.message))
    }
    toml.textContent = `[events.label]\n${JSON.stringify(label)} = { on = ${values.on.toFixed(2)}, off = ${values.off.toFixed(2)} }`
  }
  update()
  return el(
    "div",
    { class: "trial" },
    el("div", {}, el("h3", {}, label), ...sliders),
    el("div", {}, el("h3", {}, "In the last day"), result),
    el("div", {}, el("h3", {}, "For your pipeline file"), toml),
  )
}

function sounds(taught) {
  const content = taught === null
    ? el("p", { class: "soft" }, "They are on the listener's machine.")
    : !taught.length
      ? el("p", { class: "soft" }, "None yet: `streamtwl teach \"kettle\" kettle.wav` teaches one.")
      : el("table", { class: "events" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Name"), el("th", { scope: "col", class: "number" }, "Recordings"),
          el("th", { scope: "col", class: "number wide" }, "Seconds"), el("th", { scope: "col", class: "number wide" }, "False alarms a day, at most"))),
        el("tbody", {}, taught.map((each) => el("tr", {},
          el("td", { class: "label" }, each.name), el("td", { class: "number" }, String(each.recordings)),
          el("td", { class: "number wide" }, each.seconds.toFixed(1)), el("td", { class: "number wide" }, String(each.false_alarms_a_day))))))
  return el("section", { "aria-labelledby": "taught" }, el("h2", { id: "taught" }, "Your own sounds"), content)
}
