// Two lanes that answer one prompt, side by side, as their tokens arrive. Text is only ever set as text.
const kept = new WeakMap()
const FINAL_KINDS = ["done", "failed", "cancelled", "lost"]
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]

function bytesText(count) {
  let unit = 0
  for (; count >= 1000 && unit < UNITS.length - 1; unit++) count /= 1024
  return `${unit ? count.toFixed(count < 100 ? 1 : 0) : count} ${UNITS[unit]}`
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

const small = (value) => (value >= 0.001 || value === 0 ? value.toFixed(4) : value.toExponential(2))
const sum = (values) => values.reduce((total, value) => total + value, 0)

function emptyState(data) {
  return {
    total: data.total,
    lazy: data.lazy,
    tokens: { a: [], b: [] },
    latency: { a: [], b: [] },
    kv: { a: [], b: [] },
    kl: [],
    formula: { a: [], b: [] },
    divergence: null,
    same: 0,
    both: 0,
  }
}

function take(slot, event) {
  const { state, view } = slot
  const step = event.step
  for (const lane of ["a", "b"]) {
    const token = event[lane]
    if (!token) continue
    state.tokens[lane][step] = token.token_id
    state.latency[lane].push(token.latency_s)
    if (token.kv_bytes?.length) state.kv[lane] = token.kv_bytes
  }
  if (event.kl !== null && event.kl !== undefined) state.kl.push(event.kl)
  for (const lane of ["a", "b"]) state.formula[lane] = event[`kv_formula_${lane}`] ?? state.formula[lane]
  const differs = (event.a || event.b) && event.a?.token_id !== event.b?.token_id
  if (event.a && event.b) {
    state.both += 1
    state.same += event.a.token_id === event.b.token_id ? 1 : 0
  }
  const parts = differs && state.divergence === null
  if (parts) state.divergence = step
  for (const lane of ["a", "b"]) if (event[lane]) append(view.lane[lane].text, event[lane].text, step, differs, parts)
}

function append(box, text, step, differs, parts) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24
  const span = document.createElement("span")
  span.textContent = text
  span.title = `token ${step}`
  if (differs) span.className = "differs"
  if (parts) {
    const mark = document.createElement("span")
    mark.className = "mark"
    mark.textContent = "first difference"
    box.append(mark)
  }
  box.append(span)
  if (atEnd) box.scrollTop = box.scrollHeight
}

function refresh(slot) {
  if (slot.frame) return
  slot.frame = requestAnimationFrame(() => {
    slot.frame = 0
    numbers(slot)
    if (!slot.data.final) charts(slot)
  })
}

function numbers({ state, view }) {
  for (const lane of ["a", "b"]) {
    const steps = state.latency[lane].slice(1)
    view.lane[lane].tokens.textContent = String(state.latency[lane].length)
    view.lane[lane].latency.textContent = steps.length ? `${(median(steps) * 1000).toFixed(1)} ms` : "–"
    view.lane[lane].kv.textContent = state.kv[lane].length ? bytesText(sum(state.kv[lane])) : "–"
    view.lane[lane].formula.textContent = state.formula[lane].length ? bytesText(sum(state.formula[lane])) : "–"
  }
  view.divergence.textContent = state.divergence === null ? "none so far" : `token ${state.divergence}`
  view.agreement.textContent = state.both ? `${state.same} of ${state.both} tokens` : "–"
  view.kl.textContent = state.kl.length ? `${small(sum(state.kl) / state.kl.length)} nats` : "–"
}

function charts({ state, view }) {
  drawKl(view.charts.kl, state)
  drawLatency(view.charts.latency, state)
  drawKv(view.charts.kv, state)
}

function viewOf(root) {
  const find = (name) => root.querySelector(`.${name}`)
  const lane = (name) => {
    const box = find(`lane.${name}`)
    const parts = ["name", "text", "tokens", "latency", "kv", "formula"].map((part) => [part, box.querySelector(`.${part}`)])
    return Object.fromEntries(parts)
  }
  const names = ["status", "bar", "cancel", "trouble", "divergence", "agreement", "kl", "live"]
  const charts = { kl: find("chart.of-kl"), latency: find("chart.of-latency"), kv: find("chart.of-kv") }
  return { ...Object.fromEntries(names.map((name) => [name, find(name)])), lane: { a: lane("a"), b: lane("b") }, charts }
}

function progress({ view, state }, event) {
  const step = Math.max(state.latency.a.length, state.latency.b.length)
  const words = {
    waiting: () => [event.place > 1 ? `Waiting; ${event.place - 1} ahead` : "Waiting for its turn", null],
    loading: () => [event.message, event.fraction],
    prefill: () => [`Prefill: ${event.tokens_done} of ${event.num_tokens} tokens`, event.tokens_done / event.num_tokens],
    step: () => [`Decoding: ${step} of at most ${state.total} tokens`, step / state.total],
  }[event.kind]
  if (!words) return
  const [text, share] = words()
  view.status.textContent = text
  if (share === null || share === undefined) view.bar.removeAttribute("value")
  else view.bar.value = share
}

function settle(slot, kind) {
  const { view, state } = slot
  const words = { done: "Finished", failed: "Failed", cancelled: "Cancelled", lost: "Lost" }
  view.status.textContent = `${words[kind]} after ${Math.max(state.latency.a.length, state.latency.b.length)} tokens`
  view.bar.hidden = view.cancel.hidden = true
  if (state.divergence === null && kind === "done") view.divergence.textContent = "none"
  if (slot.data.final) for (const lane of ["a", "b"]) view.lane[lane].text.scrollTop = 0
  else slot.emit("ended", { kind, token: slot.data.token })
}

function begin(slot) {
  const { data, view } = slot
  slot.state = emptyState(data)
  for (const lane of ["a", "b"]) view.lane[lane].text.replaceChildren()
  view.bar.hidden = view.cancel.hidden = Boolean(data.final)
  view.bar.removeAttribute("value")
  view.cancel.disabled = false
  view.status.textContent = data.final ? "" : "Starting"
  if (data.steps) {
    data.steps.forEach((event) => take(slot, event))
    Object.assign(slot.state.kv, data.kv)
    Object.assign(slot.state.formula, data.formula)
    numbers(slot)
    settle(slot, "done")
    return () => {}
  }
  view.cancel.onclick = () => {
    view.cancel.disabled = true
    cancelRun(data.token)
  }
  return followRun(
    data.token,
    (event) => {
      if (event.kind === "step") take(slot, event)
      progress(slot, event)
      refresh(slot)
      if (FINAL_KINDS.includes(event.kind)) requestAnimationFrame(() => settle(slot, event.kind))
    },
    (message) => {
      view.trouble.textContent = message ?? ""
      view.trouble.hidden = !message
    },
  )
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const slot = kept.get(parentElement) ?? { view: viewOf(parentElement) }
  kept.set(parentElement, slot)
  slot.emit = setTriggerValue
  slot.data = data
  slot.view.lane.a.name.textContent = data.names[0]
  slot.view.lane.b.name.textContent = data.names[1]
  slot.view.live.hidden = Boolean(data.final)
  if (slot.identity !== data.identity) {
    slot.stop?.()
    slot.identity = data.identity
    slot.stop = begin(slot)
  }
  return () => {
    slot.stop?.()
    cancelAnimationFrame(slot.frame)
    kept.delete(parentElement)
  }
}
