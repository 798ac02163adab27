// The password, sent as JSON; the answer is a cookie that scripts cannot read.
const form = document.getElementById("form")
const problem = document.getElementById("problem")

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault()
  problem.textContent = ""
  const answer = await fetch("/api/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ password: form.password.value }),
  })
  if (answer.ok) {
    location.replace("/")
    return
  }
  problem.textContent = (await answer.json()).error
  form.password.select()
})
form.querySelector("button").disabled = false // only now: else the browser would send it by itself
