// Which view is shown, and the connection to the listener. No library, no build step.
import { el, getJson, session } from "./base.js"
import * as event from "./event.js"
import * as health from "./health.js"
import * as history from "./history.js"
import * as live from "./live.js"
import * as settings from "./settings.js"

const main = document.getElementById("main")
const connection = document.getElementById("connection")
const announcer = document.getElementById("announcer")
const logout = document.getElementById("logout")

const views = [
  { path: /^\/$/, name: "live", title: "Live", view: live },
  { path: /^\/history$/, name: "history", title: "History", view: history },
  { path: /^\/event\/(.+)$/, name: "history", title: "A sound", view: event },
  { path: /^\/health$/, name: "health", title: "Health", view: health },
  { path: /^\/settings$/, name: "settings", title: "Settings", view: settings },
]

let leave = () => {}

async function show(focus) {
  leave()
  leave = () => {}
  const found = views.find((each) => each.path.test(location.pathname)) ?? views[0]
  const [, identity] = location.pathname.match(found.path) ?? []
  document.title = `${found.title} – streamtwl`
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === found.name) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  main.replaceChildren()
  main.dataset.view = found.name
  main.removeAttribute("data-ready")
  if (focus) {
    main.focus({ preventScroll: true })
    scrollTo(0, 0)
  }
  try {
    leave = (await found.view.show(main, identity && decodeURIComponent(identity))) ?? (() => {})
    main.dataset.ready = found.name
  } catch (error) {
    main.append(el("p", { class: "problem", role: "alert" }, error.message))
    main.dataset.ready = found.name
  }
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

// One stream for all views: what came is kept, so that Live is there at once. A page that is left
// lets go of it: a browser has few connections to a server.
let stream

function connect() {
  stream = new EventSource("/api/live?mel=1")
  stream.addEventListener("open", () => said("connected", "good"))
  stream.addEventListener("error", async () => {
    said("no connection: trying again", "bad")
    if (stream.readyState === EventSource.CLOSED) {
      await session(true).catch(() => {}) // goes to the login, should the session be over
      setTimeout(connect, 10_000)
    }
  })
  for (const kind of ["all", "hop", "event", "status", "level", "mel"]) {
    stream.addEventListener(kind, (sent) => {
      const content = JSON.parse(sent.data)
      live.take(kind, content, announce)
      dispatchEvent(new CustomEvent(`stream-${kind}`, { detail: content }))
    })
  }
}

addEventListener("pagehide", () => stream.close())
addEventListener("pageshow", (shown) => shown.persisted && connect())

function said(text, kind) {
  connection.textContent = text
  connection.className = `connection ${kind}`
}

function announce(text) {
  announcer.textContent = text
}

session().then(({ password }) => {
  logout.hidden = !password
}, () => {})
logout.addEventListener("click", async () => {
  const { csrf } = await session()
  await getJson("/api/logout", { method: "POST", headers: { "x-csrf-token": csrf } })
  location.replace("/login")
})

connect()
show(false)
