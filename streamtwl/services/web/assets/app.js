// Which view is shown, and the connection to the listener. No library, no build step.
import { el, getJson, put, session } from "./base.js"
import * as event from "./event.js"
import * as health from "./health.js"
import * as history from "./history.js"
import * as live from "./live.js"
import * as settings from "./settings.js"

const main = document.getElementById("main")
const connection = document.getElementById("connection")
const logout = document.getElementById("logout")

const views = [
  { path: /^\/$/, name: "live", title: "Live", view: live },
  { path: /^\/history$/, name: "history", title: "History", view: history },
  { path: /^\/event\/(.+)$/, name: "history", title: "A sound", view: event },
  { path: /^\/health$/, name: "health", title: "Health", view: health },
  { path: /^\/settings$/, name: "settings", title: "Settings", view: settings },
]
const unknown = { path: /^/, name: "unknown", title: "Not found", view: { show: notFound } }

let leave = () => {}

async function show(focus) {
  leave()
  leave = () => {}
  const found = views.find((each) => each.path.test(location.pathname)) ?? unknown
  const [, identity] = location.pathname.match(found.path) ?? []
  document.title = `${found.title} – streamtwl`
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === found.name) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  const place = el("div", { class: "view" }) // its own: one that is left while it loads shows nothing
  main.replaceChildren(place)
  main.dataset.view = found.name
  main.removeAttribute("data-ready")
  if (focus) {
    main.focus({ preventScroll: true })
    scrollTo(0, 0)
  }
  try {
    const over = (await found.view.show(place, identity && decodeURIComponent(identity))) ?? (() => {})
    if (place.isConnected) leave = over
    else over()
  } catch (error) {
    place.append(el("p", { class: "problem", role: "alert" }, error.message))
  }
  if (place.isConnected) main.dataset.ready = found.name
}

function notFound(main) {
  main.append(
    el("h1", {}, "Not found"),
    el("p", { class: "empty" }, `There is nothing at ${location.pathname}. `, el("a", { href: "/" }, "To what sounds now")),
  )
}

addEventListener("click", (clicked) => {
  const link = clicked.target.closest?.("a[href^='/']")
  if (!link || clicked.metaKey || clicked.ctrlKey || clicked.shiftKey || link.target) return
  if (!views.some((each) => each.path.test(new URL(link.href).pathname))) return
  clicked.preventDefault()
  if (link.href !== location.href) history_push(link.href)
  show(true)
})
addEventListener("popstate", () => show(true))

function history_push(address) {
  window.history.pushState(null, "", address)
}

// One stream for all views: what came is kept, so that Live is there at once. A page that is left,
// or hidden for a while, lets go of it: a browser has six connections to a server.
const HIDDEN_MS = 30_000
const RETRY_MS = 10_000
let stream = null
let later = 0 // the timer of what is next: to let go of it, or to connect again

function connect() {
  clearTimeout(later)
  if (stream) return
  stream = new EventSource("/api/live?mel=1")
  stream.addEventListener("error", async () => {
    said("no connection: trying again", "bad")
    main.classList.add("away")
    if (stream?.readyState !== EventSource.CLOSED) return
    stream = null
    await session(true).catch(() => {}) // goes to the login, should the session be over
    if (!document.hidden) later = setTimeout(connect, RETRY_MS)
  })
  for (const kind of ["all", "away", "hop", "event", "status", "level", "mel"]) {
    stream.addEventListener(kind, (sent) => {
      const content = JSON.parse(sent.data)
      live.take(kind, content)
      said(...live.standing())
      main.classList.remove("away")
      dispatchEvent(new CustomEvent(`stream-${kind}`, { detail: content }))
    })
  }
}

function letGo() {
  clearTimeout(later)
  stream?.close()
  stream = null
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(later)
  if (document.hidden) later = setTimeout(letGo, HIDDEN_MS)
  else connect()
})
addEventListener("pagehide", letGo)
addEventListener("pageshow", (shown) => shown.persisted && connect())

function said(text, kind) {
  put(connection, text)
  connection.className = `connection ${kind}`
}

const refused = el("p", { class: "problem", role: "alert" })

session().then(({ password }) => {
  logout.hidden = !password
}, () => {})
logout.addEventListener("click", async () => {
  try {
    const { csrf } = await session()
    await getJson("/api/logout", { method: "POST", headers: { "x-csrf-token": csrf } })
    location.replace("/login")
  } catch (error) {
    main.prepend(refused)
    put(refused, `You are still logged in. ${error.message}`)
  }
})

if (!document.hidden) connect()
show(false)
