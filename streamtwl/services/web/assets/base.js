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

/**
 * Give a place these children, touching only what differs: focus, a selection and what was read
 * aloud stay. A child is the one of the same `data-key`, else the next. Listeners are not taken over.
 */
export function renew(place, wanted) {
  const focused = document.activeElement
  const keyOf = (node) => node?.dataset?.key
  const keys = new Set(wanted.map(keyOf))
  const keyed = new Map()
  for (const child of [...place.children]) {
    if (keyOf(child) === undefined) continue
    if (keys.has(keyOf(child))) keyed.set(keyOf(child), child)
    else child.remove()
  }
  let at = place.firstChild
  for (const node of wanted) {
    const old = keyOf(node) === undefined ? at : keyed.get(keyOf(node))
    if (old?.nodeName !== node.nodeName || keyOf(old) !== keyOf(node)) {
      place.insertBefore(node, at)
      continue
    }
    if (old !== at) {
      place.insertBefore(old, at)
      if (old.contains(focused)) focused.focus({ preventScroll: true })
    }
    become(old, node)
    at = old.nextSibling
  }
  while (at) {
    const next = at.nextSibling
    at.remove()
    at = next
  }
}

function become(old, node) {
  if (!(node instanceof Element)) {
    if (old.nodeValue !== node.nodeValue) old.nodeValue = node.nodeValue
    return
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name)
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value)
  renew(old, [...node.childNodes])
}

/** Text that is set only where it is another: else a screen reader reads it again. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text
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
  asked ??= getJson("/api/session").catch((error) => {
    asked = undefined
    throw error
  })
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
