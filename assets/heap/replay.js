// The replay of the queue during a prefill: played, stepped through, or put to any step, without a run of the page.
import { TokenChart } from "../live/charts.js"
import { bytesText } from "../live/run.js"
import { Steps } from "./steps.js"

const NUMBERED_LAYERS = 40
const FAST = 8
const ROW_WIDTH_EM = 11

export class View {
  constructor(root) {
    this.root = root
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]))
    this.step = 0
    this.chart = new TokenChart(this.parts.chart, {
      name: "kv-cache-prefill",
      title: "KV cache during the prefill, by formula",
      unit: "MiB",
      scale: 1 / 1048576,
      build: (steps) => steps.content(),
      along: "step",
      axis: "step: a layer passed, or one cut",
    })
    this.resized = new ResizeObserver(() => this.steps && this.arrange())
    this.resized.observe(this.parts.queue)
    this.wire()
  }

  update(data) {
    this.look = readLook(this.root, data)
    const shape = JSON.stringify([data.layers, data.moments, data.room])
    if (shape !== this.shape) {
      this.shape = shape
      this.stop()
      this.steps = new Steps(data)
      this.build()
      this.step = this.steps.count
    }
    this.render()
  }

  get playing() {
    return this.timer !== undefined
  }

  toggle() {
    if (this.playing) this.stop()
    else this.play()
    this.render()
  }

  play() {
    if (this.step >= this.steps.count) this.step = 0
    this.timer = setTimeout(() => this.tick(), this.pause)
  }

  tick() {
    this.step += 1
    if (this.step < this.steps.count) this.timer = setTimeout(() => this.tick(), this.pause)
    else this.stop()
    this.render()
  }

  stop() {
    clearTimeout(this.timer)
    this.timer = undefined
  }

  get pause() {
    return 1000 / Number(this.parts.speed.value)
  }

  // To a step, by hand: that ends playing.
  go(step) {
    this.stop()
    this.step = Math.min(Math.max(step, 0), this.steps.count)
    this.render()
  }

  build() {
    const { parts, steps } = this
    const every = steps.layers.length > NUMBERED_LAYERS ? 5 : 1
    this.bars = steps.layers.map((layer, index) => {
      const bar = document.createElement("div")
      bar.className = "bar"
      const number = document.createElement("span")
      number.textContent = index % every ? "" : index
      bar.append(number)
      return bar
    })
    parts.bars.replaceChildren(...this.bars)
    parts.native.hidden = !steps.layers.some((layer) => layer.reason)
    parts.peak.textContent = `peak ${bytesText(steps.totals[steps.peak])} at step ${steps.peak}`
    parts.room.textContent = `Queue, laziest first: ${steps.room} may stay full`
    this.arrange()
    parts.scrub.max = steps.count
    const scores = steps.layers.map((layer) => layer.score).filter((score) => score !== null)
    this.low = Math.min(...scores)
    this.high = Math.max(...scores)
  }

  // As many rows of the queue as it ever needs, so that nothing below it moves.
  arrange() {
    const { queue } = this.parts
    const longest = Math.max(0, ...this.steps.moments.map((moment) => moment.queue.length)) + 1
    const columns = Math.max(1, Math.floor(queue.clientWidth / (ROW_WIDTH_EM * parseFloat(getComputedStyle(queue).fontSize))))
    queue.style.gridTemplateRows = `repeat(${Math.ceil(longest / columns)}, 1.45rem)`
  }

  render() {
    const { parts, steps, step } = this
    parts.play.textContent = this.playing ? "Pause" : "Play"
    parts.back.disabled = step === 0
    parts.next.disabled = step === steps.count
    parts.scrub.value = step
    parts.place.textContent = `Step ${step} of ${steps.count}`
    parts.words.setAttribute("aria-live", this.playing ? "off" : "polite")
    parts.words.textContent = steps.words(step)
    this.root.classList.toggle("fast", this.playing && Number(parts.speed.value) > FAST)
    this.drawBars()
    this.drawQueue()
    this.chart.draw(steps, this.look, step)
  }

  drawBars() {
    const { steps, step } = this
    const [bytes, cut, now] = [steps.bytes(step), steps.cut(step), steps.moment(step)?.layer]
    this.bars.forEach((bar, layer) => {
      const { reason } = steps.layers[layer]
      bar.style.setProperty("--part", bytes[layer] / steps.most)
      bar.classList.toggle("lazy", cut.has(layer))
      bar.classList.toggle("native", Boolean(reason))
      bar.classList.toggle("now", layer === now)
      const state = reason ? `not convertible: ${reason}` : cut.has(layer) ? "lazy" : bytes[layer] ? "full" : "not reached yet"
      bar.title = `Layer ${layer}, ${state}, ${bytesText(bytes[layer])}, score ${steps.score(layer)}`
    })
    const full = this.bars.filter((_bar, layer) => bytes[layer] && !cut.has(layer) && !steps.layers[layer].reason).length
    this.parts.bars.setAttribute(
      "aria-label",
      `KV bytes of ${this.bars.length} layers after step ${step}: ${full} full, ${cut.size} lazy, ${bytesText(steps.totals[step])} in all`,
    )
  }

  drawQueue() {
    const spread = this.high - this.low || 1
    this.parts.queue.replaceChildren(
      ...this.steps.queue(this.step).map(({ layer, came, leaves, left }) => {
        const row = document.createElement("li")
        const [name, note] = [document.createElement("span"), document.createElement("span")]
        name.textContent = `layer ${layer}`
        note.textContent = `${left ? "cut " : leaves ? "leaves " : came ? "new " : ""}${this.steps.score(layer)}`
        row.append(name, note)
        row.style.setProperty("--part", (this.steps.layers[layer].score - this.low) / spread)
        for (const [kind, holds] of Object.entries({ came, leaves, left })) row.classList.toggle(kind, Boolean(holds))
        return row
      }),
    )
  }

  wire() {
    const { parts } = this
    parts.play.onclick = () => this.toggle()
    parts.back.onclick = () => this.go(this.step - 1)
    parts.next.onclick = () => this.go(this.step + 1)
    parts.scrub.oninput = () => this.go(Number(parts.scrub.value))
    parts.stage.onkeydown = (event) => this.key(event)
    this.chart.canvas.onclick = (event) => {
      const step = this.chart.tokenAt(event)
      if (step !== null) this.go(step)
    }
  }

  key(event) {
    const actions = {
      ArrowLeft: () => this.go(this.step - 1),
      ArrowRight: () => this.go(this.step + 1),
      Home: () => this.go(0),
      End: () => this.go(this.steps.count),
      " ": () => this.toggle(),
    }
    if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    actions[event.key]()
  }

  close() {
    this.stop()
    this.resized.disconnect()
    this.chart.close()
  }
}

function readLook(root, data) {
  const style = getComputedStyle(root)
  const read = (name) => style.getPropertyValue(name).trim()
  return {
    ink: read("--st-text-color"),
    paper: read("--st-background-color"),
    grid: read("--st-border-color"),
    font: read("--st-font") || "sans-serif",
    scale: parseFloat(getComputedStyle(document.documentElement).fontSize) / 16,
    lanes: data.colours,
  }
}
