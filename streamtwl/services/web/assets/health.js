// Delays, losses, load, journal: what the listener and the services say of themselves.
import { el, getJson, lasting, put, renew, timeOf, unit } from "./base.js"
import { fact } from "./history.js"
import { silence } from "./live.js"

const EVERY_MS = 2000

export async function show(main) {
  const problem = el("p", { class: "problem", role: "alert" })
  const place = el("div")
  main.append(el("h1", {}, "Health"), problem, place)
  let over = false
  let waiting = 0
  async function update() {
    try {
      const health = await getJson("/api/health")
      put(problem, "")
      renew(place, sections(health))
    } catch (error) {
      put(problem, error.message)
    }
    place.classList.toggle("away", problem.textContent !== "")
    if (!over) waiting = setTimeout(update, EVERY_MS)
  }
  await update()
  return () => {
    over = true
    clearTimeout(waiting)
  }
}

function sections(health) {
  const made = Object.entries(health.sources).map(([name, source]) => one(name, source))
  if (!made.length) made.push(el("p", { class: "empty" }, "Nothing has come from the listener yet."))
  made.push(
    el("section", {}, el("h2", {}, "Around it"), el("dl", { class: "facts" },
      fact("Journal", health.journal ? "is read" : "none", health.journal ?? health.no_journal),
      fact("Spectrogram", health.no_spectrogram ? "none" : "yes", health.no_spectrogram ?? "from the listener on this machine"),
      ...Object.entries(health.services).flatMap(([name, figures]) =>
        Object.entries(figures).map(([what, count]) => fact(`${name}: ${what}`, String(count)))),
    )),
  )
  return made
}

function one(name, { status, latency_ms: latency, level }) {
  if (!status) return el("section", {}, el("h2", {}, name), el("p", { class: "soft" }, "No status yet."))
  const silent = silence(name)
  const lost = [
    ["samples", status.dropped_samples], ["windows", status.dropped_windows], ["bad samples", status.bad_samples],
    ["messages", status.dropped_messages], ["not in the journal", status.journal_errors],
  ].filter(([, count]) => count)
  return el(
    "section",
    { class: silent && "away" },
    el("h2", {}, name),
    silent && el("p", { class: "problem" }, silent),
    status.error && el("p", { class: "problem" }, status.error),
    status.journal && el("p", { class: "problem" }, status.journal),
    el(
      "dl",
      { class: "facts" },
      fact("State", silent ? `was ${status.state}` : status.state, `as of ${timeOf(status.published_at)}`),
      fact("Decision after the window's end", latency ? `${latency.p50} ms` : "–", latency && `p99 ${latency.p99} ms`),
      fact("Late decisions", String(status.late_hops), `of ${status.hops}`),
      fact("Lost", lost.length ? lost.map(([what, count]) => `${count} ${what}`).join(", ") : "nothing"),
      fact("Load", `${(100 * status.real_time_factor).toFixed(1)} %`, "of the time that the sound takes"),
      fact("Memory", `${Math.round(status.memory_mb)} MB`),
      fact("Sound card to program", status.capture_delay_ms == null ? "–" : `${Math.round(status.capture_delay_ms)} ms`, `${status.resampling_delay_ms.toFixed(0)} ms in the resampler`),
      fact("Opened again", String(status.reopened), status.overflows ? `${status.overflows} overflows in the driver` : null),
      fact("Clipped samples", String(status.clipped_samples), status.clipped_samples ? "turn the gain down" : null),
      fact("Publisher's queue", String(status.queued), status.stalled_subscribers ? `${status.stalled_subscribers} times a subscriber stalled` : null),
      fact("Level", status.level_dba == null ? `${Math.round(status.level_dbfs)} dBFS` : `${status.level_dba.toFixed(0)} ${unit(status.calibrated)}`,
        level && `last minute: Leq ${level.leq_dba.toFixed(0)}, L10 ${level.l10_dba.toFixed(0)}, L90 ${level.l90_dba.toFixed(0)}`),
      fact("Sound so far", lasting(status.position / 16_000)),
    ),
  )
}
