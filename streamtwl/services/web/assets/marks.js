// The user's word on an event: right, wrong, what it was; and its clip, where one is kept.
import { el, getJson, session } from "./base.js"

/** A section for an event; what the API says of its mark and clip, and the labels that there are. */
export function marks(event, { clip, no_clip: noClip, mark }, labels) {
  const path = `/api/events/${encodeURIComponent(event.id)}`
  const was = el("input", { type: "text", id: "was", maxlength: 200, autocomplete: "off", list: "labels", placeholder: "Kettle" })
  const said = el("p", { class: "said", role: "status" })
  const undo = el("button", { type: "button", class: "quiet", onclick: () => send("DELETE") }, "Take it back")
  const verdicts = ["right", "wrong"].map((verdict) =>
    el("button", { type: "button", "data-verdict": verdict, onclick: () => send("POST", { verdict }) }, verdict === "right" ? "Right" : "Wrong"),
  )

  function show(verdict, words, bad = false) {
    for (const button of verdicts) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict))
    said.textContent = words && words[0].toUpperCase() + words.slice(1)
    said.classList.toggle("problem", bad)
    if (!verdict && document.activeElement === undo) verdicts[0].focus()
    undo.hidden = !verdict
  }

  async function send(method, word) {
    const section = said.parentElement
    if (section.ariaBusy === "true") return
    section.ariaBusy = "true" // a mark is learnt from at once, which takes a moment
    said.textContent = "A moment"
    try {
      const { csrf } = await session()
      const answer = await getJson(`${path}/mark`, { method, headers: { "x-csrf-token": csrf }, body: word && JSON.stringify(word) })
      const words = answer.said || (method === "DELETE" ? "Taken back" : "")
      show(word?.verdict, answer.problem ? `${words}; the listener did not take it in: ${answer.problem}` : words, Boolean(answer.problem))
    } catch (error) {
      show(mark?.verdict, error.message, true)
      return
    } finally {
      section.ariaBusy = "false"
    }
    mark = word
  }

  const form = el(
    "form",
    { class: "tools", onsubmit: (submitted) => {
      submitted.preventDefault()
      if (was.value.trim()) send("POST", { verdict: "wrong", was: was.value.trim() })
    } },
    ...verdicts,
    el("label", { for: "was" }, "It was"),
    was,
    el("datalist", { id: "labels" }, labels.map((label) => el("option", { value: label }))),
    el("button", {}, "Say so"),
    undo,
  )
  show(mark?.verdict, mark?.said ?? "")
  return el(
    "section",
    { id: "marks", "data-event": event.id },
    el("h2", {}, `Was it ${event.label}?`),
    clip
      ? el("div", { class: "tools" }, el("audio", { controls: true, preload: "none", src: `${path}/clip`, "aria-label": `Clip of ${event.label}` }),
        el("a", { href: `${path}/clip`, download: `${event.id}.flac` }, "Download"))
      : el("p", { class: "soft" }, `${noClip[0].toUpperCase()}${noClip.slice(1)}.`),
    form,
    said,
  )
}
