// What a comparison's events come to: lanes, their tokens by turn and step, and what the page shows of them. No DOM.

export const LANES = ["a", "b", "c", "d"]
const sum = (values) => values.reduce((total, value) => total + value, 0)

export class RunState {
  constructor() {
    this.lanes = new Map()
    this.turns = [{ text: null }]
    this.facts = null
    this.pace = { paused: false, tokens_per_s: null }
    this.memory = null
    this.status = null
  }

  take(event) {
    if (event.kind === "begin") this.begin(event)
    else if (event.kind === "step") this.step(event)
    else if (event.kind === "turn") this.turns[event.turn] = { text: event.text, tokens: event.tokens }
    else if (event.kind === "lane") this.lanes.set(event.lane, new Lane(event.lane, event))
    else if (event.kind === "pace") this.pace = { paused: event.paused, tokens_per_s: event.tokens_per_s }
    this.status = event
  }

  begin(event) {
    this.facts = event
    for (const name of LANES) if (event.lanes[name]) this.lanes.set(name, new Lane(name, event.lanes[name]))
  }

  step(event) {
    for (const [name, token] of Object.entries(event.lanes)) this.lanes.get(name)?.take(event, token)
    for (const [name, kl] of Object.entries(event.kl)) this.lanes.get(name)?.at(event.turn, event.step, { kl })
    if (event.memory) this.memory = event.memory
  }

  get reference() {
    return this.lanes.get("a")
  }

  // Steps of a turn, over all lanes.
  length(turn) {
    return Math.max(0, ...[...this.lanes.values()].map((lane) => lane.turns[turn]?.length ?? 0))
  }

  // Where a turn begins on the charts' axis, which counts all tokens of the conversation.
  offset(turn) {
    let total = 0
    for (let before = 0; before < turn; before++) total += this.length(before)
    return total
  }

  get total() {
    return this.offset(this.turns.length)
  }

  place(x) {
    let turn = 0
    while (turn < this.turns.length - 1 && x >= this.length(turn)) x -= this.length(turn++)
    return { turn, step: x }
  }

  // Whether a lane's choice at a step is another than the reference's; null while one of them is not known.
  differs(lane, turn, step) {
    const own = lane.turns[turn]?.[step]
    const other = this.reference?.turns[turn]?.[step]
    // of a lane that is given the reference's text, what both found likeliest: a drawn token says nothing of the lane
    const choice = (one) => (lane.settings.follow ? one?.top?.[0]?.[0] : one?.token_id)
    const chosen = choice(own)
    if (chosen === undefined || other?.token_id === undefined) {
      const over = (one) => one?.turns[turn]?.some((token) => token?.over)
      if (chosen === undefined && other?.token_id === undefined) return null
      return over(chosen === undefined ? lane : this.reference) ? true : null
    }
    return chosen !== choice(other)
  }

  // The first step at which a lane's choice differs from the reference's, or null.
  divergence(lane) {
    for (let turn = 0; turn < this.turns.length; turn++)
      for (let step = 0; step < (lane.turns[turn]?.length ?? 0); step++)
        if (this.differs(lane, turn, step)) return { turn, step }
    return null
  }

  agreement(lane) {
    let both = 0
    let same = 0
    for (let turn = 0; turn < this.turns.length; turn++)
      for (let step = 0; step < this.length(turn); step++) {
        const own = lane.turns[turn]?.[step]
        if (own?.token_id === undefined || this.reference.turns[turn]?.[step]?.token_id === undefined) continue
        both += 1
        if (!this.differs(lane, turn, step)) same += 1
      }
    return { same, both }
  }
}

class Lane {
  constructor(name, { settings, row_nbytes, caps }) {
    this.name = name
    this.settings = settings
    this.row = row_nbytes
    this.caps = caps
    this.lazy = new Set(settings.plan.lazy_layers)
    this.turns = []
  }

  at(turn, step, facts) {
    this.turns[turn] ??= []
    const tokens = this.turns[turn]
    while (tokens.length <= step) tokens.push({})
    Object.assign(tokens[step], facts)
  }

  take(event, token) {
    const streaming = sum(token.kv_bytes.filter((_bytes, layer) => this.caps[layer] !== null))
    this.at(event.turn, event.step, { ...token, at: event.at, kv: sum(token.kv_bytes), streaming })
    this.last = this.turns[event.turn][event.step]
  }

  // The tokens of the lane's own text, all turns.
  get tokens() {
    return this.turns.flat().filter((token) => token?.token_id !== undefined)
  }

  // Seconds of each decode step. An answer's first token is none: it comes from the prefill, or from reading a question.
  get latencies() {
    return this.turns.flatMap((tokens) => tokens.slice(1).filter((token) => token.token_id !== undefined)).map((token) => token.latency_s)
  }

  get kl() {
    return this.turns.flat().map((token) => token?.kl).filter((value) => value !== undefined && value !== null)
  }

  // Bytes of each layer by the formula, once so many tokens were read.
  formula(seen) {
    return this.caps.map((cap) => this.row * (cap === null ? seen : Math.min(seen, cap)))
  }
}

export function quantile(values, part) {
  if (!values.length) return null
  const sorted = [...values].sort((a, b) => a - b)
  const place = part * (sorted.length - 1)
  const low = Math.floor(place)
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (place - low)
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]

export function bytesText(count) {
  let unit = 0
  for (; count >= 999.5 && unit < UNITS.length - 1; unit++) count /= 1024
  const digits = unit === 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2
  return `${count.toFixed(digits)} ${UNITS[unit]}`
}

export function secondsText(seconds) {
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`
  if (seconds >= 1) return `${seconds.toFixed(1)} s`
  return `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms`
}

export const natsText = (value) => (value >= 0.001 || value === 0 ? value.toFixed(4) : value.toExponential(1))
export const count = (value) => value.toLocaleString("en-US")
