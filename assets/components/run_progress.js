// One run's progress with a way to cancel it; or, without a run, the wait for the backend to come up.
const kept = new WeakMap()
const NEWS_PAUSE_MS = 4000
let runEvents

function clock(seconds) {
  const whole = Math.floor(seconds)
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`
}

const WORDS = {
  step: (event) => [`Decoding: token ${event.step + 1}`, null],
  scoring: (event) => [event.message, null],
  waiting: (event) => [runEvents.waitText(event), null],
  loading: (event) => [event.message, event.fraction],
  measuring: (event) => [event.message, event.fraction],
  prefill: (event) => [
    `Prefill: ${event.tokens_done.toLocaleString("en-US")} of ${event.num_tokens.toLocaleString("en-US")} tokens`,
    event.tokens_done / event.num_tokens,
  ],
}

function show(view, text, fraction) {
  view.text.textContent = text
  if (fraction === null || fraction === undefined) view.bar.removeAttribute("value")
  else view.bar.value = fraction
}

function awaitBackend(view, ended) {
  const started = performance.now()
  let over = false
  const stop = () => {
    over = true
    clearInterval(timer)
  }
  const ask = async () => {
    const answer = await fetch("/backend").then((told) => told.json()).catch(() => null)
    if (over) return // another one of the questions under way was answered first, or nobody waits any more
    if (answer?.up) {
      stop()
      ended("up")
    } else view.time.textContent = clock((performance.now() - started) / 1000)
  }
  const timer = setInterval(ask, 500)
  ask()
  return stop
}

// Calls `tell` at once or when the pause since the last call is over, however often it is asked to.
function sparing(tell) {
  let due = 0
  let timer
  return {
    ask() {
      if (timer) return
      timer = setTimeout(() => {
        timer = undefined
        due = performance.now() + NEWS_PAUSE_MS
        tell()
      }, Math.max(due - performance.now(), 0))
    },
    stop: () => clearTimeout(timer),
  }
}

function awaitRun(view, token, news, age, ended, tell) {
  const started = performance.now() - age * 1000
  const told = sparing(tell)
  const tick = () => (view.time.textContent = clock((performance.now() - started) / 1000))
  const timer = setInterval(tick, 1000)
  if (age >= 1) tick()
  const stop = runEvents.followRun(
    token,
    (event) => {
      const words = WORDS[event.kind]
      if (event.kind === news) told.ask()
      if (words) show(view, ...words(event))
      else if (["done", "failed", "cancelled", "lost"].includes(event.kind)) {
        clearInterval(timer)
        told.stop()
        ended(event.kind)
      }
    },
    (message) => {
      view.trouble.textContent = message ?? ""
      view.trouble.hidden = !message
    },
  )
  return () => {
    clearInterval(timer)
    told.stop()
    stop()
  }
}

export default function (component) {
  const { data: [data], parentElement, setTriggerValue } = component
  const find = (name) => parentElement.querySelector(`.${name}`)
  const view = Object.fromEntries(["text", "time", "bar", "cancel", "trouble"].map((name) => [name, find(name)]))
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  slot.ended = (kind) => setTriggerValue("ended", { kind, token: data.token })
  slot.tell = () => setTriggerValue("news", performance.now())
  if (slot.token !== data.token) {
    slot.stop?.()
    slot.token = data.token
    view.cancel.hidden = !data.cancellable
    view.cancel.disabled = false
    view.bar.setAttribute("aria-label", data.label)
    view.time.textContent = ""
    show(view, data.label, null)
    const ended = (kind) => slot.ended(kind)
    if (!data.token) slot.stop = awaitBackend(view, ended)
    else {
      const loading = import(new URL(data.module, document.baseURI))
      const token = data.token
      view.cancel.onclick = () => {
        view.cancel.disabled = true
        loading.then((events) => events.cancelRun(token)) // who is quick clicks before the module is there
      }
      loading.then((events) => {
        runEvents = events
        if (slot.token === token && parentElement.isConnected)
          slot.stop = awaitRun(view, token, data.news, data.age_s, ended, () => slot.tell())
      })
    }
  }
  return () => {
    slot.stop?.()
    kept.delete(parentElement)
  }
}
