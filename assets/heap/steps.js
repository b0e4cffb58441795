// What the moments of a prefill come to, step by step; step 0 is before the first layer. No DOM.
import { bytesText } from "../live/run.js"

const sum = (values) => values.reduce((total, value) => total + value, 0)

export class Steps {
  constructor({ layers, moments, room, full }) {
    Object.assign(this, { layers, moments, room })
    this.totals = [0, ...moments.map((moment) => sum(moment.kv_bytes))]
    this.full = [0, ...full]
    this.most = Math.max(1, ...moments.flatMap((moment) => moment.kv_bytes))
    this.peak = this.totals.indexOf(Math.max(...this.totals))
  }

  get count() {
    return this.moments.length
  }

  // The moment that a step ends with; undefined before the first.
  moment(step) {
    return this.moments[step - 1]
  }

  bytes(step) {
    return this.moment(step)?.kv_bytes ?? this.layers.map(() => 0)
  }

  // The layers that have been cut by a step, those that slide by themselves not among them.
  cut(step) {
    return new Set(this.moments.slice(0, step).filter(({ kind }) => kind === "pop").map(({ layer }) => layer))
  }

  // The queue after a step, and, at its head, the layer that has just left it.
  queue(step) {
    const moment = this.moment(step)
    if (!moment) return []
    const excess = moment.queue.length > this.room
    const rows = moment.queue.map((layer, place) => ({
      layer,
      came: moment.kind === "push" && layer === moment.layer,
      leaves: excess && place === 0,
    }))
    return moment.kind === "pop" ? [{ layer: moment.layer, left: true }, ...rows] : rows
  }

  words(step) {
    const moment = this.moment(step)
    if (!moment) return "Before the first layer: nothing is held yet."
    const { layer, kind } = moment
    const size = bytesText(moment.kv_bytes[layer])
    if (kind === "push") {
      const first = moment.queue[0]
      const next = moment.queue.length > this.room ? ` One layer too many is full: layer ${first} is the laziest and leaves next.` : ""
      return `The prompt has passed layer ${layer}: it scores ${this.score(layer)} and enters the queue, full with ${size}.${next}`
    }
    if (kind === "pop") return `Layer ${layer} leaves the queue: its cache is cut to sinks and window, ${size}.`
    if (kind === "pass") return `The prompt has passed layer ${layer}, which cannot be converted: it holds ${size}.`
    return `Layer ${layer} keeps its own sliding window, ${size}.`
  }

  score(layer) {
    return this.layers[layer].score?.toFixed(4) ?? "no score"
  }

  // What the chart draws.
  content() {
    const lines = [
      { lane: "full", label: "all layers full", values: this.full },
      { lane: "held", label: "with the queue", values: this.totals },
    ]
    const top = Math.max(...this.full, ...this.totals) * 1.08
    return { lines, marks: [{ lane: "held", token: this.peak }], total: this.totals.length, top, csvUnit: "bytes" }
  }
}
