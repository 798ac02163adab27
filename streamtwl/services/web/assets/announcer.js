// New sounds for those who listen to the page: all that began within five seconds is one sentence.
import { el } from "./base.js"

const GATHER_MS = 5000
const LABELS = 2 // of a source, in full
const SOURCES = 3
const KEY = "announce" // in the browser's own store, which may be forbidden

const place = document.getElementById("announcer")
const began = new Map() // source: labels
let on = kept()
let waiting = 0

export function announce(label, source) {
  if (!on) return
  if (!began.has(source)) began.set(source, new Set())
  began.get(source).add(label)
  waiting ||= setTimeout(say, GATHER_MS)
}

/** Forget what waits. */
export function hush() {
  clearTimeout(waiting)
  waiting = 0
  began.clear()
}

/** The switch. */
export function toggle() {
  const box = el("input", { type: "checkbox", checked: on, onchange: () => {
    on = box.checked
    if (!on) hush()
    try {
      localStorage.setItem(KEY, on ? "yes" : "no")
    } catch {} // it is so until the page is left
  } })
  return el("label", { class: "announce", title: "by a screen reader" }, box, "Announce new sounds")
}

function say() {
  const parts = [...began].slice(0, SOURCES).map(([source, labels]) => `${source}: ${few([...labels])}`)
  if (began.size > SOURCES) parts.push("and elsewhere")
  place.textContent = parts.join("; ")
  hush()
}

/** "Bark, Bow-wow and 3 more" */
function few(labels) {
  const rest = labels.length - LABELS
  return labels.slice(0, LABELS).join(", ") + (rest > 0 ? ` and ${rest} more` : "")
}

function kept() {
  try {
    return localStorage.getItem(KEY) !== "no"
  } catch {
    return true
  }
}
