// What sounds now: one card a source. Positions are samples at 16 kHz from the source's start.
import { announce, hush, toggle } from "./announcer.js"
import { el, hueOf, lasting, machineTime, percent, put, renew, timeOf, unit } from "./base.js"
import { eventTable } from "./events.js"

const RATE = 16_000
const SECONDS = () => (innerWidth < 640 ? 30 : 60) // on the time axis
const BEHIND_S = 0.6 // what is shown is so old: decisions come in hops, and the picture is to flow
const COLUMN = 640 // samples: 40 ms, four frames
const FRAME = 160
const BANDS = 64
const COLUMNS = 2048
const HOPS = 400
const EVENTS = 100
const CHANGES = 6
const NEWEST = 12 // events in the list
const LANES = 3

const sources = new Map()
let spectrogram = false
let noSpectrogram = null
let shown = null // the view's element, while it is shown

class Source {
  constructor(name) {
    this.name = name
    this.session = null
    this.away = null // seconds without a message, as the server says; null while they come
    this.status = null
    this.level = null
    this.windows = []
    this.hops = []
    this.events = new Map()
    this.changes = []
    this.newest = 0 // position
    this.lead = -Infinity // position less ours, of the hop that came earliest
    this.picture = document.createElement("canvas") // a ring of columns
    this.picture.width = COLUMNS
    this.picture.height = BANDS
    this.grey = new Uint8Array(COLUMNS * BANDS) // what it was painted from, for other colours
    this.drawnTo = -1 // column
  }

  hop(hop, live) {
    if (this.session !== hop.session) {
      this.session = hop.session // positions begin anew
      this.hops = []
      this.lead = -Infinity
      this.clear(0, COLUMNS)
      this.drawnTo = -1
    }
    const before = this.hops.at(-1)
    if (before && before.position === hop.position) this.hops.pop() // a refinement of it
    this.hops.push(hop)
    if (this.hops.length > HOPS) this.hops.shift()
    this.newest = hop.position
    if (live) {
      const lead = hop.position - RATE * (performance.now() / 1000)
      this.lead = Math.max(lead, this.lead - 0.002 * RATE) // the clocks may drift
    }
    if (live && before && before.label !== hop.label) {
      const was = before.label ? `, was ${before.label}` : ""
      this.change(hop.at, hop.label ? `${hop.label}, ${percent(hop.confidence)}${was}` : `Quiet${was}`)
    }
    for (const thought of hop.thoughts ?? []) {
      this.change(hop.at, `The language model: ${thought.label ?? "none of the labels"}, not ${thought.instead_of}. ${thought.text}`)
    }
  }

  event(event) {
    const was = this.events.get(event.id)
    if (event.retracted) this.events.delete(event.id)
    else this.events.set(event.id, event)
    while (this.events.size > EVENTS) this.events.delete(this.events.keys().next().value)
    const at = this.hops.at(-1)?.at ?? event.began_at
    if (event.phase === "onset") {
      this.change(at, `Event: ${event.label} began`)
      if (shown) announce(event.label, this.name)
    } else if (event.retracted) {
      this.change(at, `Second thoughts: there was no ${was?.label ?? event.label}`)
    } else if (event.phase === "offset") {
      this.change(at, `Event: ${event.label} is over, ${lasting(event.seconds)}`)
    } else if (was && was.label !== event.label) {
      this.change(at, `Second thoughts: ${was.label} was ${event.label}`)
    } else if (was && was.start !== event.start) {
      const by = Math.abs(event.start - was.start) / RATE
      this.change(at, `Second thoughts: ${event.label} began ${lasting(by)} ${event.start < was.start ? "earlier" : "later"}`)
    } else if (was && event.end !== was.end) {
      this.change(at, event.end === null
        ? `Second thoughts: ${event.label} goes on`
        : `Second thoughts: ${event.label} ended sooner, ${lasting(event.seconds)}`)
    }
  }

  /** What its silence is called; null while messages come, or where it has ended. */
  silence() {
    if (this.away === null || this.status?.state === "ended") return null
    return `nothing from the listener${this.away ? ` for ${lasting(this.away)}` : ""}`
  }

  /** Its events; whether one still sounds is not known while it is away. */
  list() {
    const events = [...this.events.values()]
    return this.away === null ? events : events.map((event) => ({ ...event, open: false }))
  }

  change(at, text) {
    this.changes.unshift({ at, text })
    this.changes.length = Math.min(this.changes.length, CHANGES)
  }

  /** The position at the right edge of what is shown. */
  edge() {
    if (this.lead === -Infinity) return this.newest
    const now = this.lead + RATE * (performance.now() / 1000 - BEHIND_S)
    return Math.min(now, this.newest + 2 * RATE)
  }

  frames(position, grey) {
    const first = Math.floor(position / COLUMN)
    const last = Math.floor((position + FRAME * (grey.length / BANDS)) / COLUMN)
    if (last <= first) return
    if (this.drawnTo >= 0 && first > this.drawnTo + 1) this.clear(this.drawnTo + 1, first)
    for (let at = Math.max(first, this.drawnTo); at < last; at++) {
      const column = BANDS * (at % COLUMNS)
      const from = Math.max(0, Math.floor((at * COLUMN - position) / FRAME))
      const to = Math.min(grey.length / BANDS, Math.floor(((at + 1) * COLUMN - position) / FRAME))
      for (let band = 0; band < BANDS; band++) {
        let loudest = 0
        for (let frame = from; frame < to; frame++) loudest = Math.max(loudest, grey[frame * BANDS + band])
        this.grey[column + band] = loudest
      }
      this.paint(at % COLUMNS, 1)
    }
    this.drawnTo = last
  }

  clear(from, to) {
    for (let at = Math.max(from, to - COLUMNS); at < to; at++) {
      this.grey.fill(0, BANDS * (at % COLUMNS), BANDS * ((at % COLUMNS) + 1))
      this.paint(at % COLUMNS, 1)
    }
  }

  /** Paint columns of the picture in the colours of now. */
  paint(first, count) {
    const context = this.picture.getContext("2d")
    const image = context.createImageData(count, BANDS)
    const colour = shades()
    for (let i = 0; i < count; i++) {
      for (let band = 0; band < BANDS; band++) {
        const shade = colour[this.grey[BANDS * (first + i) + band]]
        image.data.set(shade, 4 * (count * (BANDS - 1 - band) + i))
      }
    }
    context.putImageData(image, first, 0)
  }
}

/** What the stream of the server says; kept whichever view is shown. */
export function take(kind, content) {
  if (kind === "all") {
    spectrogram = content.spectrogram
    noSpectrogram = content.no_spectrogram
    for (const source of sources.values()) source.away = 0 // unless the server knows of it
    for (const [name, known] of Object.entries(content.sources)) {
      const source = of(name)
      source.away = known.away_s
      source.status = known.status
      source.level = known.level
      source.windows = known.windows
      source.hops = []
      for (const hop of known.hops) source.hop(hop, false)
      source.lead = -Infinity
      source.events = new Map(known.events.map((each) => [each.id, each]))
      history(source)
    }
    shown?.build()
    return
  }
  const source = of(content.source)
  if (kind === "mel") {
    const grey = Uint8Array.from(atob(content.frames), (letter) => letter.charCodeAt(0))
    source.frames(content.position, grey)
    return
  }
  source.away = kind === "away" ? content.away_s : null
  if (kind === "hop") source.hop(content, true)
  else if (kind === "event") source.event(content)
  else if (kind === "status") source.status = content
  else if (kind === "level") source.level = content
  shown?.update(source)
}

/** What the header says of the listener, and whether that is good. */
export function standing() {
  if (!sources.size) return ["waiting for the listener", ""]
  const all = [...sources.values()]
  if (all.every((source) => source.away !== null)) return ["listener away", "bad"]
  const silent = all.filter((source) => source.silence()).length
  return silent ? [`${silent} of ${all.length} sources away`, "bad"] : ["connected", "good"]
}

export const silence = (name) => sources.get(name)?.silence() ?? null

/** What changed before the page was opened, or while it was hidden. */
function history(source) {
  const known = source.changes[0]?.at ?? 0
  let before = null
  for (const hop of source.hops) {
    if (before && before.label !== hop.label && hop.at > known) {
      source.change(hop.at, hop.label ? `${hop.label}, ${percent(hop.confidence)}` : "Quiet")
    }
    before = hop
  }
}

function of(name) {
  if (!sources.has(name)) {
    sources.set(name, new Source(name))
    shown?.build()
  }
  return sources.get(name)
}

export function show(main) {
  const cards = el("div", { class: "sources" })
  const recent = el("div")
  main.append(
    el("h1", { class: "unseen" }, "Live"),
    cards,
    el("section", { "aria-labelledby": "recent" }, el("h2", { id: "recent" }, "Just now"), toggle(), recent),
  )
  shown = new View(cards, recent)
  shown.build()
  return () => {
    shown.stop()
    shown = null
    hush()
  }
}

class View {
  constructor(cards, recent) {
    this.element = cards
    this.recent = recent
    this.cards = new Map()
    this.empty = el("p", { class: "empty" }, "Nothing has come from the listener yet. Is `streamtwl listen` running?")
    this.element.append(this.empty)
    this.over = false
    this.drawn = 0
    const still = matchMedia("(prefers-reduced-motion: reduce)")
    const draw = (now) => {
      if (this.over) return
      if (now - this.drawn >= (still.matches ? 1000 : 50)) {
        this.drawn = now
        for (const card of this.cards.values()) card.draw()
      }
      requestAnimationFrame(draw)
    }
    requestAnimationFrame(draw)
  }

  build() {
    for (const [name, source] of sources) {
      if (this.cards.has(name)) continue
      const card = new Card(source)
      this.cards.set(name, card)
      this.element.append(card.element)
    }
    this.empty.hidden = sources.size > 0
    for (const card of this.cards.values()) card.update()
    this.list()
  }

  update(source) {
    this.cards.get(source.name)?.update()
    this.list()
  }

  list() {
    const events = [...sources.values()].flatMap((source) => source.list())
    events.sort((a, b) => b.began_at - a.began_at)
    const focused = document.activeElement?.closest("[data-key]")?.dataset.key // it stays
    const newest = events.filter((each, i) => i < NEWEST || each.id === focused)
    const state = JSON.stringify(newest)
    if (state === this.listed) return
    this.listed = state
    renew(this.recent, [newest.length ? eventTable(newest) : el("p", { class: "soft" }, "No event yet.")])
  }

  stop() {
    this.over = true
  }
}

class Card {
  constructor(source) {
    this.source = source
    this.state = el("span", { class: "state" })
    this.level = el("span", { class: "loudness" })
    this.bar = el("i")
    this.levelText = el("span")
    this.level.append(el("span", { class: "track", "aria-hidden": "true" }, this.bar), this.levelText)
    this.label = el("span", { class: "label" })
    this.confidence = el("span", { class: "confidence" })
    this.before = el("p", { class: "before" })
    this.spectrogram = el("canvas", { class: "spectrogram", role: "img", "aria-label": `Spectrogram of ${source.name}` })
    this.timeline = el("canvas", { class: "timeline", role: "img", "aria-label": "Decisions and events on the same axis; the newest are listed below" })
    this.caption = el("figcaption")
    this.heard = el("div", { class: "hearing" })
    this.fives = []
    this.changes = el("ol")
    this.element = el(
      "article",
      { class: "source", "aria-label": source.name },
      el("header", {}, el("h2", {}, source.name), this.state, this.level),
      el("p", { class: "now" }, this.label, this.confidence),
      this.before,
      el("figure", { class: "scroll" }, this.spectrogram, this.timeline, this.caption),
      this.heard,
      el("div", { class: "changes" }, el("h3", {}, "How it changed its mind"), this.changes),
    )
  }

  update() {
    const { status, hops } = this.source
    const hop = hops.at(-1)
    const silence = this.source.silence()
    if (silence || status) {
      this.state.textContent = silence ?? (status.error ? `${status.state}: ${status.error}` : status.state)
      this.state.className = `state ${silence ? "lost" : status.state}`
    }
    this.element.classList.toggle("away", this.source.away !== null)
    this.loudness(status, hop)
    if (!hop) {
      this.label.textContent = "…"
      return
    }
    this.label.textContent = hop.label ?? "Quiet"
    this.label.classList.toggle("quietly", !hop.label)
    this.confidence.textContent = hop.label ? percent(hop.confidence) : ""
    let first = hops.length - 1
    while (first > 0 && hops[first - 1].label === hop.label) first--
    const since = (hop.position - hops[first].position) / RATE
    const before = hops[first - 1]
    const how = since > 1 ? `for ${lasting(since)}` : "just now"
    this.before.textContent =
      (this.source.away === null ? how : `at ${timeOf(hop.at)}`) + (before ? `, before that ${before.label ?? "quiet"}` : "")
    const columns = []
    if (hop.heard) columns.push([this.source.windows[0] ?? "first window", hop.heard])
    for (const other of hop.others ?? []) columns.push([other.window, other.top])
    if (hop.drawn?.length) columns.push(["the trace's samples", hop.drawn])
    columns.push(["decision", hop.top])
    this.five(columns)
    const listed = JSON.stringify(this.source.changes)
    if (listed !== this.listed) {
      this.listed = listed
      this.changes.replaceChildren(
        ...this.source.changes.map(({ at, text }) => el("li", {}, machineTime(at, timeOf(at)), el("span", {}, text))),
      )
    }
  }

  loudness(status, hop) {
    const dba = status?.level_dba
    const dbfs = hop?.level_dbfs ?? status?.level_dbfs ?? -120
    this.levelText.textContent = dba == null ? `${Math.round(dbfs)} dBFS` : `${Math.round(dba)} ${unit(status.calibrated)}`
    this.bar.style.transform = `scaleX(${Math.min(1, Math.max(0, (dbfs + 80) / 80))})`
  }

  five(columns) {
    if (this.fives.length !== columns.length) {
      this.fives = columns.map(([name]) => new Five(name))
      this.heard.replaceChildren(...this.fives.map((each) => each.element))
    }
    columns.forEach(([name, top], i) => this.fives[i].update(name, top))
  }

  draw() {
    const { source } = this
    const seconds = SECONDS()
    const edge = source.edge()
    const wants = spectrogram && source.drawnTo >= 0
    const context = fitted(this.spectrogram)
    const { width, height } = this.spectrogram
    context.clearRect(0, 0, width, height)
    if (wants) drawPicture(context, source, edge, seconds)
    else drawLevel(context, source, edge, seconds)
    const caption = wants
      ? `${seconds} seconds; 125 Hz to 7.5 kHz`
      : `${seconds} seconds of level. No spectrogram: ${noSpectrogram ?? "none has come yet"}.`
    put(this.caption, caption)
    drawTimeline(fitted(this.timeline), source, edge, seconds)
  }
}

class Five {
  constructor(name) {
    this.name = el("h3", {}, name)
    this.rows = Array.from({ length: 5 }, () => {
      const row = { text: el("span", { class: "text" }), value: el("span", { class: "value" }), bar: el("i") }
      row.element = el("li", {}, row.text, row.value, el("span", { class: "track", "aria-hidden": "true" }, row.bar))
      return row
    })
    this.element = el("div", { class: "five" }, this.name, el("ol", {}, ...this.rows.map((row) => row.element)))
  }

  update(name, top) {
    this.name.textContent = name
    this.rows.forEach((row, i) => {
      const each = top[i]
      row.element.hidden = i >= 3 && !each // a trace names three
      row.text.textContent = each?.label ?? ""
      row.text.title = each?.label ?? ""
      row.value.textContent = each ? each.score.toFixed(2) : ""
      row.bar.style.transform = `scaleX(${each?.score ?? 0})`
    })
  }
}

// --- drawing ---

function fitted(canvas) {
  const ratio = Math.min(2, devicePixelRatio || 1)
  const { width, height } = canvas.getBoundingClientRect()
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))]
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h })
  return canvas.getContext("2d")
}

let palette = { key: "", colours: {}, shades: [] }

function colours() {
  const style = getComputedStyle(document.documentElement)
  const names = ["ink", "soft", "line", "paper", "accent", "accent-soft", "spec-0", "spec-1", "spec-2", "spec-3", "sheet", "sans"]
  const key = style.getPropertyValue("--paper")
  if (palette.key !== key) {
    const read = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]))
    palette = { key, colours: read, shades: ramp([0, 1, 2, 3].map((i) => hex(read[`spec-${i}`]))) }
    for (const source of sources.values()) source.paint(0, COLUMNS)
  }
  return palette.colours
}

function shades() {
  colours()
  return palette.shades
}

const hex = (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16))

/** 256 colours from the first to the last, even below, as most of the sound is soft. */
function ramp(stops) {
  return Array.from({ length: 256 }, (_, level) => {
    const at = Math.max(0, Math.min(1, (level / 255 - 0.2) / 0.68)) * (stops.length - 1)
    const i = Math.min(stops.length - 2, Math.floor(at))
    return [...stops[i].map((from, c) => Math.round(from + (at - i) * (stops[i + 1][c] - from))), 255]
  })
}

function drawPicture(context, source, edge, seconds) {
  const { width, height } = context.canvas
  context.fillStyle = colours()["spec-0"]
  context.fillRect(0, 0, width, height)
  context.imageSmoothingEnabled = true
  const [from, to] = [(edge - seconds * RATE) / COLUMN, edge / COLUMN]
  const scale = width / (to - from)
  const first = Math.max(Math.floor(from), source.drawnTo - COLUMNS, 0)
  const last = Math.min(Math.ceil(to), source.drawnTo)
  for (let at = first; at < last; ) {
    const slot = at % COLUMNS
    const count = Math.min(last - at, COLUMNS - slot)
    context.drawImage(source.picture, slot, 0, count, BANDS, (at - from) * scale, 0, count * scale, height)
    at += count
  }
}

function drawLevel(context, source, edge, seconds) {
  const { width, height } = context.canvas
  const { "spec-0": ground, "spec-2": fill } = colours()
  context.fillStyle = ground
  context.fillRect(0, 0, width, height)
  context.fillStyle = fill
  const x = (position) => width * (1 - (edge - position) / RATE / seconds)
  source.hops.forEach((hop, i) => {
    if (hop.level_dbfs == null) return
    const left = i ? x(source.hops[i - 1].position) : x(hop.position - 7680)
    const tall = Math.max(0.02, Math.min(1, (hop.level_dbfs + 80) / 80)) * height
    context.fillRect(left, height - tall, Math.max(1, x(hop.position) - left - 1), tall)
  })
}

function drawTimeline(context, source, edge, seconds) {
  const { width, height } = context.canvas
  const ratio = width / Math.max(1, context.canvas.clientWidth)
  const { ink, soft, line, sans } = colours()
  context.clearRect(0, 0, width, height)
  const x = (position) => width * (1 - (edge - position) / RATE / seconds)
  context.font = `${11 * ratio}px ${sans}`
  context.textBaseline = "middle"
  // the decision, run by run
  const row = height / (LANES + 1)
  let first = 0
  source.hops.forEach((hop, i) => {
    const next = source.hops[i + 1]
    if (next && next.label === hop.label && next.position - hop.position < 2 * RATE) return
    if (hop.label) {
      const left = x(source.hops[first].position - 7680)
      const right = x(hop.position)
      if (right > 0 && left < width) run(context, hop.label, left, right, 0.5 * row, 4 * ratio, ink, ratio)
    }
    first = i + 1
  })
  // events, in as many lanes as they need; one without a free lane is a bar without its name
  context.fillStyle = line
  context.fillRect(0, row, width, ratio)
  const ends = Array(LANES).fill(-Infinity)
  const events = [...source.events.values()].filter((each) => each.id.startsWith(source.session))
  events.sort((a, b) => a.start - b.start)
  for (const event of events) {
    const right = x(event.end ?? edge)
    const left = x(event.start)
    if (right < 0 || left > width) continue
    const free = ends.findIndex((end) => end <= left)
    const lane = free >= 0 ? free : ends.indexOf(Math.min(...ends))
    const wide = free >= 0 ? context.measureText(event.label).width + 10 * ratio : 0
    ends[lane] = Math.max(ends[lane], right, Math.max(0, left) + wide)
    run(context, event.label, left, right, (1.5 + lane) * row, 7 * ratio, free >= 0 && ink, ratio)
  }
  if (!events.length && !source.hops.some((hop) => hop.label)) {
    context.fillStyle = soft
    context.fillText("decisions and events appear here", 4 * ratio, 1.5 * row)
  }
}

function run(context, label, left, right, middle, thick, ink, ratio) {
  const hue = hueOf(label)
  const dark = matchMedia("(prefers-color-scheme: dark)").matches
  context.fillStyle = `hsl(${hue} ${dark ? "38% 58%" : "42% 48%"})`
  context.beginPath()
  context.roundRect(left, middle + 5 * ratio, Math.max(2 * ratio, right - left - ratio), thick / 2, thick / 4)
  context.fill()
  const from = Math.max(0, left)
  if (ink && (thick > 5 * ratio || right - from > context.measureText(label).width)) {
    context.fillStyle = ink
    context.fillText(label, from, middle - 3 * ratio)
  }
}


