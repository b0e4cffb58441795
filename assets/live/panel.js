// The live panel: follows a run, or replays one that is over, and hands what is seen to lanes, charts and numbers.
import { TokenChart, klContent, kvContent, latencyContent } from "./charts.js"
import { cancelRun, commandRun, followRun, waitText } from "./events.js"
import { LaneView } from "./lanes.js"
import { Player } from "./player.js"
import { LANES, RunState, bytesText, count, natsText, secondsText } from "./run.js"

const FINAL = { done: "Finished", failed: "Failed", cancelled: "Cancelled", lost: "Lost" }

export class View {
  constructor(root, emit) {
    this.root = root
    this.emit = emit
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]))
    this.state = new RunState()
    this.views = new Map()
    this.cursor = null
    this.focus = "b"
    this.player = new Player((shown) => this.replay(shown), () => this.controls())
    this.makeCharts()
    this.wire()
  }

  update(data) {
    this.data = data
    this.root.inert = false
    this.look = readLook(this.root, data)
    const identity = data.token ?? data.name
    if (identity !== this.identity) {
      this.identity = identity
      this.begin()
    }
    this.controls()
    this.refresh()
  }

  // Whether a click on a layer can lead anywhere: a recorded run of elsewhere cannot be changed.
  get changeable() {
    return Boolean(this.data.changeable)
  }

  get live() {
    return Boolean(this.stopFollowing) && !this.over
  }

  begin() {
    this.stopFollowing?.()
    this.stopFollowing = undefined
    this.events = []
    this.over = null
    this.chosen = null
    this.reset()
    this.say(null)
    this.parts.candidates.hidden = true
    if (this.data.events) {
      this.events = this.data.events
      this.over = "done"
      this.events.forEach((event) => this.state.take(event))
      this.player.load(this.events)
      this.refresh()
      return
    }
    this.parts.status.textContent = "Starting"
    this.stopFollowing = followRun(
      this.data.token,
      (event) => this.seen(event),
      (message) => this.say(message),
    )
  }

  reset() {
    this.state = new RunState()
    for (const view of this.views.values()) view.close()
    this.views.clear()
  }

  seen(event) {
    this.events.push(event)
    if (event.kind in FINAL) this.end(event)
    else this.state.take(event)
    if (event.kind === "pace") this.controls()
    this.refresh()
  }

  end(event) {
    this.over = event.kind
    this.reason = event.reason ?? event.error?.message ?? ""
    if (event.kind === "done") this.player.load(this.events)
    this.controls()
    this.emit("ended", { kind: event.kind, token: this.data.token })
  }

  // The first so many events, drawn anew where that goes back.
  replay(shown) {
    const ahead = this.replayed !== undefined && shown >= this.replayed
    if (!ahead) this.state = new RunState()
    this.events.slice(ahead ? this.replayed : 0, shown).forEach((event) => this.state.take(event))
    this.replayed = shown
    this.refresh()
  }

  refresh() {
    if (this.frame) return
    this.frame = requestAnimationFrame(() => {
      this.frame = 0
      this.render()
    })
  }

  render() {
    const { state } = this
    for (const name of state.lanes.keys()) {
      if (!this.views.has(name)) this.views.set(name, new LaneView(this, name, this.parts.lane, this.parts.lanes))
    }
    if (!state.lanes.has(this.focus) && state.lanes.size) this.focus = [...state.lanes.keys()].at(-1)
    for (const view of this.views.values()) view.render(state)
    for (const chart of this.charts) chart.draw(state, this.look, this.cursor)
    this.status()
    this.memory()
    this.lost()
    if (this.chosen) this.keepInPlace(this.clicked, () => this.candidates())
    this.clicked = null
  }

  // What was clicked stays under the cursor, though something appears above it.
  keepInPlace(element, change) {
    const before = element?.getBoundingClientRect().top
    change()
    if (!element) return
    let host = this.root.getRootNode().host ?? this.root
    while (host && !/auto|scroll/.test(getComputedStyle(host).overflowY)) host = host.parentElement
    if (host) host.scrollTop += element.getBoundingClientRect().top - before
  }

  status() {
    const { state, parts } = this
    const limit = state.facts ? state.facts.max_new_tokens * state.turns.length : 0
    if (this.over) {
      const replaying = this.player.shown < this.events.length || this.player.playing
      parts.status.textContent = replaying
        ? `Replay: ${count(this.player.step)} of ${count(this.player.steps.length)} steps`
        : `${FINAL[this.over]} after ${count(state.total)} tokens${this.over === "done" ? "" : this.reason ? `. ${this.reason}` : ""}`
      parts.bar.hidden = true
      return
    }
    const event = state.status
    const paused = state.pace.paused ? "Paused at" : "Decoding:"
    const words = {
      waiting: () => [waitText(event), null],
      loading: () => [event.message, event.fraction],
      prefill: () => [`Prefill: ${count(event.tokens_done)} of ${count(event.num_tokens)} tokens`, event.tokens_done / event.num_tokens],
    }[event?.kind] ?? (() => [limit ? `${paused} ${count(state.total)} of at most ${count(limit)} tokens` : "Starting", limit ? state.total / limit : null])
    const [text, share] = words()
    parts.status.textContent = text
    parts.bar.hidden = false
    if (share === null || share === undefined) parts.bar.removeAttribute("value")
    else parts.bar.value = share
  }

  memory() {
    const { memory } = this.state
    this.parts.memory.hidden = !memory
    if (!memory) return
    const process = `process ${bytesText(memory.process)}`
    const device = memory.device === "cpu" ? "" : `allocated ${bytesText(memory.allocated)}, reserved ${bytesText(memory.reserved)} of ${bytesText(memory.total)}; `
    this.parts.memory.textContent = `Memory of ${memory.device}, weights and all: ${device}${process}. The KV cache above is counted from its own tensors.`
  }

  // What streaming layers can no longer see, said plainly once there is anything.
  lost() {
    const told = [...this.state.lanes.values()].flatMap((lane) => {
      const seen = lane.last?.seen_tokens
      const { sink, recent } = lane.settings.plan.window
      if (!lane.lazy.size || !seen || seen <= sink + recent) return []
      const [from, to] = [sink, seen - recent]
      const prompt = Math.min(to, this.state.facts.num_tokens)
      const what = from < prompt ? `, of the prompt tokens ${count(from)} to ${count(prompt - 1)}` : ""
      return [`${lane.name.toUpperCase()}: its ${lane.lazy.size} lazy layers no longer see ${count(to - from)} of the ${count(seen)} tokens read so far${what}`]
    })
    this.parts.lost.hidden = !told.length
    this.parts.lost.textContent = told.join(". ") + (told.length ? "." : "")
  }

  choose(turn, step) {
    this.chosen = { turn, step }
    this.cursor = this.state.offset(turn) + step
    for (const view of this.views.values()) view.select(turn, step)
    this.refresh()
  }

  candidates() {
    const { turn, step } = this.chosen
    const columns = [...this.state.lanes.values()].flatMap((lane) => {
      const token = lane.turns[turn]?.[step]
      return token?.top ? [this.candidateColumn(lane, token)] : []
    })
    const box = this.parts.candidates
    box.hidden = !columns.length
    if (!columns.length) return
    box.querySelector(".title").textContent = `Token ${step}${turn ? ` of answer ${turn + 1}` : ""}: what each lane could have said`
    box.querySelector(".columns").replaceChildren(...columns)
  }

  candidateColumn(lane, token) {
    const column = document.createElement("div")
    column.dataset.lane = lane.name
    const kl = token.kl === undefined || token.kl === null ? "" : `, KL on A’s text ${natsText(token.kl)} nats`
    column.append(element("h3", `${lane.name.toUpperCase()}${kl}`))
    const list = document.createElement("ol")
    for (const [id, text, logprob] of token.top) {
      const item = document.createElement("li")
      item.style.setProperty("--part", Math.exp(logprob))
      item.classList.toggle("taken", id === token.token_id)
      item.append(element("code", visible(text)), element("span", `${(100 * Math.exp(logprob)).toFixed(logprob > -7 ? 1 : 3)}%`))
      item.title = `token id ${id}, log-probability ${logprob.toFixed(3)}${id === token.token_id ? ", taken" : ""}`
      list.append(item)
    }
    column.append(list)
    return column
  }

  focusOn(name) {
    this.focus = name
    this.refresh()
  }

  async changeLane(name, change) {
    const lane = this.state.lanes.get(name)
    const follow = change.follow ?? lane.settings.follow
    const plan = { ...lane.settings.plan, lazy_layers: change.layers ?? lane.settings.plan.lazy_layers }
    const told = { lane: name, layers: plan.lazy_layers, follow, token: this.live ? this.data.token : null }
    if (this.live && !(await this.command({ action: "lane", lane: LANES.indexOf(name), settings: { plan, follow } }))) {
      this.refresh()
      return
    }
    this.emit("lane", told)
  }

  async command(command) {
    const error = await commandRun(this.data.token, command)
    this.say(error?.message ?? null, error?.type === "SharedRunError")
    return !error
  }

  // Until the page brings the copy nothing here may be clicked: it would go to the run that is being left.
  copy() {
    this.root.inert = true
    this.emit("copy", { token: this.data.token })
  }

  say(message, offerCopy = false) {
    this.parts.trouble.hidden = !message
    this.parts.trouble.querySelector("span").textContent = message ?? ""
    this.parts.copy.hidden = !offerCopy
  }

  controls() {
    const { parts, over } = this
    const live = this.live
    const paused = this.state.pace.paused
    for (const part of ["pause", "step", "pace", "cancel"]) parts[part].hidden = !live
    for (const part of ["play", "speed", "scrub"]) parts[part].hidden = over !== "done"
    parts.pause.textContent = paused ? "Continue" : "Pause"
    if (over !== "done") return
    parts.play.textContent = this.player.playing ? "Stop replay" : "Replay"
    parts.scrub.max = this.player.steps.length
    parts.scrub.value = this.player.step
  }

  wire() {
    const { parts } = this
    parts.pause.onclick = () => this.command({ action: this.state.pace.paused ? "continue" : "pause" })
    parts.step.onclick = () => this.command({ action: "step" })
    parts.pace.onchange = () => this.command({ action: "speed", tokens_per_s: Number(parts.pace.value) || null })
    parts.cancel.onclick = () => cancelRun(this.data.token)
    parts.copy.onclick = () => this.copy()
    parts.play.onclick = () => this.player.toggle()
    parts.speed.onchange = () => (this.player.speed = parts.speed.value)
    parts.scrub.oninput = () => {
      const steps = Number(parts.scrub.value) // stopping moves the slider to where the replay is
      this.player.stop()
      this.player.seek(steps)
    }
  }

  makeCharts() {
    const build = (host, options) => new TokenChart(this.parts[host], { ...options, name: `${options.name}-per-token` })
    this.charts = [
      build("kv", { name: "kv-cache", title: "KV cache, measured", unit: "MiB", scale: 1 / 1048576, build: (state) => kvContent(state, this.look, this.focus) }),
      build("latency", { name: "latency", title: "Latency of each step, measured", unit: "ms", scale: 1000, build: latencyContent }),
      build("kl", { name: "kl", title: "KL(A ‖ lane) on A’s text", unit: "nats", scale: 1, digits: natsText, build: klContent }),
    ]
    for (const chart of this.charts) {
      chart.canvas.onpointermove = (event) => this.point(chart.tokenAt(event))
      chart.canvas.onpointerleave = () => this.point(this.chosen ? this.state.offset(this.chosen.turn) + this.chosen.step : null)
      chart.canvas.onclick = (event) => {
        const token = chart.tokenAt(event)
        if (token === null) return
        this.clicked = chart.canvas
        this.choose(...Object.values(this.state.place(token)))
      }
    }
  }

  point(token) {
    this.cursor = token
    this.refresh()
  }

  close() {
    this.stopFollowing?.()
    this.player.stop()
    cancelAnimationFrame(this.frame)
    for (const chart of this.charts) chart.close()
  }
}

function element(name, text) {
  const made = document.createElement(name)
  made.textContent = text
  return made
}

// A token that is blank or begins so shows where.
const visible = (text) => text.replaceAll("\n", "↵").replace(/^ /, "␣") || "(empty)"

function readLook(root, data) {
  const style = getComputedStyle(root)
  const read = (name) => style.getPropertyValue(name).trim()
  return {
    ink: read("--st-text-color"),
    paper: read("--st-background-color"),
    grid: read("--st-border-color"),
    font: read("--st-font") || "sans-serif",
    scale: parseFloat(getComputedStyle(document.documentElement).fontSize) / 16,
    lanes: data.colours.lanes,
    full: `${data.colours.full}44`,
    lazy: `${data.colours.lazy}55`,
  }
}
