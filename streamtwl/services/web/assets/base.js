// What the views share. All text goes in as text, never as HTML: labels are not to be trusted.

/** An element with attributes (or on...: listeners) and children. */
export function el(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value)
    else if (value === true) made.setAttribute(key, "")
    else if (value !== false && value != null) made.setAttribute(key, value)
  }
  made.append(...children.flat().filter((child) => child != null && child !== false))
  return made
}

/** JSON from our own API; throws an Error with the server's own words. */
export async function getJson(path, options = {}) {
  let answer
  try {
    answer = await fetch(path, options)
  } catch {
    throw new Error("The page's server does not answer.")
  }
  if (answer.status === 401) {
    location.replace("/login")
    return new Promise(() => {})
  }
  const content = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Error(content.error ?? `The server answers ${answer.status}.`)
  return content
}

let asked
export function session(anew = false) {
  if (anew) asked = undefined
  asked ??= getJson("/api/session")
  return asked
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false })
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false })
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" })

export const timeOf = (at) => clock.format(at * 1000)
export const hourOf = (at) => short.format(at * 1000)
export const dayOf = (at) => day.format(at * 1000)
export const percent = (share) => `${Math.round(100 * share)}\u00a0%`

/** "0.8 s", "12 s", "3 min 20 s", "2 h 5 min" */
export function lasting(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)}\u00a0s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole}\u00a0s`
  if (whole < 3600) return `${Math.floor(whole / 60)}\u00a0min${whole % 60 ? ` ${whole % 60}\u00a0s` : ""}`
  return `${Math.floor(whole / 3600)}\u00a0h ${Math.floor((whole % 3600) / 60)}\u00a0min`
}

export function machineTime(at, text) {
  return el("time", { datetime: new Date(at * 1000).toISOString() }, text)
}

/** The same colour for a label wherever it is, of even lightness. */
export function hueOf(label) {
  let hash = 2166136261
  for (const letter of label) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0
  return hash % 360
}

export function unit(calibrated) {
  return calibrated ? "dB(A)" : "dBFS(A)"
}
