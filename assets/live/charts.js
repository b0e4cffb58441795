// Charts over the tokens of a run, or over other steps, on canvas, with one cursor for all; each can be taken away.
import { FONT, save } from "../map/save.js"
import { SvgContext } from "../map/svg.js"

const DASHES = { a: [], b: [6, 3], c: [2, 3], d: [8, 3, 2, 3], held: [], full: [6, 3] }
const PNG_SCALE = 3
const HEAD_PX = 44

// A round step of which about `wanted` fit into the range.
function roundStep(range, wanted) {
  const rough = range / wanted
  const power = 10 ** Math.floor(Math.log10(rough))
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough)
}

export class TokenChart {
  // `build(state)` gives { lines: [{ lane, label, told, values }], bars, areas: [{ colour, label, from, values }], marks: [x], top }.
  constructor(host, { name, title, unit, scale, digits, build, along = "token", axis = "generated token" }) {
    Object.assign(this, { host, name, title, unit, scale, digits, build, along, axis })
    this.canvas = host.querySelector("canvas")
    this.read = host.querySelector(".read")
    host.querySelector(".title").textContent = `${title} (${unit})`
    for (const button of host.querySelectorAll("[data-save]")) button.onclick = () => this.save(button.dataset.save)
    this.resized = new ResizeObserver(() => this.state && this.draw(this.state, this.look, this.cursor))
    this.resized.observe(this.canvas)
  }

  close() {
    this.resized.disconnect()
  }

  // The token under a pointer, or null.
  tokenAt(event) {
    const box = this.canvas.getBoundingClientRect()
    const { left, right } = this.plot ?? { left: 0, right: 0 }
    const part = (event.clientX - box.left - left) / (box.width - left - right)
    const total = this.content?.total ?? 0
    return part < 0 || part > 1 || !total ? null : Math.min(Math.floor(part * total), total - 1)
  }

  draw(state, look, cursor) {
    Object.assign(this, { state, look, cursor })
    const width = this.canvas.clientWidth
    const height = this.canvas.clientHeight
    if (!width) return
    const ratio = window.devicePixelRatio || 1
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio)
      this.canvas.height = Math.round(height * ratio)
    }
    const ctx = this.canvas.getContext("2d")
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0)
    ctx.clearRect(0, 0, width, height)
    this.content = this.build(state)
    this.paint(ctx, width, height, look)
    this.tell()
  }

  paint(ctx, width, height, look) {
    const { content } = this
    const size = 11 * look.scale
    this.plot = { left: 46 * look.scale, right: 8, top: 8, bottom: 26 * look.scale }
    const { left, right, top, bottom } = this.plot
    const most = Math.max(content.total, 1)
    const peak = content.top > 0 ? content.top : 1
    const x = (token) => left + ((token + 0.5) / most) * (width - left - right)
    const y = (value) => height - bottom - Math.min(value / peak, 1.02) * (height - top - bottom)
    ctx.font = `${size}px ${look.font}`
    this.axes(ctx, { x, y, peak, most, width, height, look, size })
    for (const area of content.areas ?? []) this.area(ctx, area, x, y)
    for (const line of content.bars ?? []) this.columns(ctx, line, x, y, look, (width - left - right) / most)
    for (const line of content.lines ?? []) this.line(ctx, line, x, y, look)
    this.beyond(ctx, content.lines ?? [], { x, peak, width, look, size })
    for (const mark of content.marks ?? []) {
      this.rule(ctx, [x(mark.token), top], [x(mark.token), height - bottom], look.lanes[mark.lane], [2, 3])
    }
    if (this.cursor !== null && this.cursor < content.total) {
      this.rule(ctx, [x(this.cursor), top], [x(this.cursor), height - bottom], look.ink, [])
    }
  }

  axes(ctx, { x, y, peak, most, width, height, look, size }) {
    const { left, right, bottom } = this.plot
    ctx.fillStyle = look.ink
    ctx.textAlign = "right"
    ctx.textBaseline = "middle"
    const step = roundStep(peak * this.scale, 3) / this.scale
    for (let value = 0; value <= peak * 1.001; value += step) {
      const at = Math.round(y(value)) + 0.5
      this.rule(ctx, [left, at], [width - right, at], look.grid, [])
      ctx.fillText(String(Number((value * this.scale).toPrecision(3))), left - 5, at)
    }
    ctx.textAlign = "center"
    ctx.textBaseline = "top"
    const tokens = Math.max(1, roundStep(most, 6))
    for (let token = 0; token < most; token += tokens) ctx.fillText(String(token), x(token), height - bottom + 3)
    ctx.textAlign = "right"
    ctx.textBaseline = "bottom"
    ctx.fillText(this.axis, width - right, height - 1 + (size > 12 ? 2 : 0))
  }

  rule(ctx, [fromX, fromY], [toX, toY], colour, dashes, wide = 1) {
    ctx.strokeStyle = colour
    ctx.lineWidth = wide
    ctx.setLineDash(dashes)
    ctx.beginPath()
    ctx.moveTo(fromX, fromY)
    ctx.lineTo(toX, toY)
    ctx.stroke()
    ctx.setLineDash([])
  }

  line(ctx, { lane, values }, x, y, look) {
    ctx.strokeStyle = look.lanes[lane]
    ctx.lineWidth = 1.8
    ctx.setLineDash(DASHES[lane])
    ctx.beginPath()
    let drawing = false
    values.forEach((value, token) => {
      if (value === null || value === undefined) drawing = false
      else {
        if (drawing) ctx.lineTo(x(token), y(value))
        else ctx.moveTo(x(token), y(value))
        drawing = true
      }
    })
    ctx.stroke()
    ctx.setLineDash([])
  }

  // What leaves the top of the chart is marked there, with its line and number where there is room for them.
  beyond(ctx, lines, { x, peak, width, look, size }) {
    const { top, right } = this.plot
    const marks = lines
      .flatMap(({ lane, label, values }) => values.map((value, token) => ({ lane, label, value, at: x(token) })))
      .filter(({ value }) => value > peak)
      .sort((one, other) => one.at - other.at)
    for (const { lane, at } of marks) {
      ctx.fillStyle = look.lanes[lane]
      ctx.beginPath()
      ctx.moveTo(at, top - 6)
      ctx.lineTo(at - 4, top + 1)
      ctx.lineTo(at + 4, top + 1)
      ctx.fill()
    }
    ctx.textBaseline = "top"
    ctx.textAlign = "left"
    let free = 0
    for (const { lane, label, value, at } of marks) {
      const text = `${label} ${Number((value * this.scale).toPrecision(3))} ${this.unit}`
      const wide = 0.58 * size * text.length
      const fits = (start) => start >= free && start + wide <= width - right && marks.every((mark) => mark.at + 5 < start || mark.at - 5 > start + wide)
      const start = [Math.max(free, at + 7), at - 7 - wide].find(fits)
      if (start === undefined) continue
      ctx.fillStyle = look.lanes[lane]
      ctx.fillText(text, start, top - size / 2)
      free = start + wide + 6
    }
  }

  area(ctx, { colour, from, values }, x, y) {
    const known = values.map((value, token) => [token, value]).filter(([, value]) => value !== null && value !== undefined)
    if (!known.length) return
    ctx.fillStyle = colour
    ctx.beginPath()
    ctx.moveTo(x(known[0][0]), y(from[known[0][0]]))
    for (const [token, value] of known) ctx.lineTo(x(token), y(value))
    for (const [token] of [...known].reverse()) ctx.lineTo(x(token), y(from[token]))
    ctx.closePath()
    ctx.fill()
  }

  columns(ctx, { lane, values }, x, y, look, room) {
    const width = Math.max(1, Math.min(room * 0.7, 14))
    ctx.fillStyle = look.lanes[lane]
    values.forEach((value, token) => {
      if (value > 0) ctx.fillRect(x(token) - width / 2, y(value), width, y(0) - y(value))
    })
  }

  series() {
    return [...(this.content.lines ?? []), ...(this.content.bars ?? [])]
  }

  // What the chart says at the cursor, or of the last token that every line has.
  tell() {
    const known = (token) => this.series().every((line) => line.values[token] !== null && line.values[token] !== undefined)
    let at = this.cursor ?? this.content.total - 1
    if (this.cursor === null) while (at > 0 && !known(at)) at -= 1
    const parts = [...this.series(), ...(this.content.columns ?? [])]
      .filter((line) => line.values[at] !== null && line.values[at] !== undefined)
      .map((line) => `${line.label} ${this.value(line.values[at])}`)
    this.read.textContent = parts.length ? `${this.along} ${at}: ${parts.join(" · ")}` : ""
    this.canvas.setAttribute("aria-label", `${this.title}. ${this.content.total} ${this.along}s. ${this.read.textContent}`)
  }

  value(number) {
    const scaled = number * this.scale
    return `${this.digits ? this.digits(scaled) : scaled.toFixed(1)} ${this.unit}`
  }

  async save(form) {
    if (!this.content) return
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight]
    const name = this.name
    if (form === "csv") save(`${name}.csv`, new Blob([this.csv()], { type: "text/csv;charset=utf-8" }))
    else if (form === "svg") {
      const ctx = new SvgContext(width, height + HEAD_PX)
      this.picture(ctx, width, height)
      save(`${name}.svg`, new Blob([ctx.toString()], { type: "image/svg+xml" }))
    } else {
      const canvas = document.createElement("canvas")
      canvas.width = width * PNG_SCALE
      canvas.height = (height + HEAD_PX) * PNG_SCALE
      const ctx = canvas.getContext("2d")
      ctx.scale(PNG_SCALE, PNG_SCALE)
      this.picture(ctx, width, height)
      save(`${name}.png`, await new Promise((resolve) => canvas.toBlob(resolve, "image/png")))
    }
  }

  picture(ctx, width, height) {
    const look = { ...this.look, font: FONT }
    const cursor = this.cursor
    this.cursor = null
    ctx.fillStyle = look.paper
    ctx.fillRect(0, 0, width, height + HEAD_PX)
    ctx.fillStyle = look.ink
    ctx.font = `13px ${FONT}`
    ctx.textAlign = "left"
    ctx.textBaseline = "top"
    ctx.fillText(`${this.title} (${this.unit})`, 8, 6)
    this.legend(ctx, look, width)
    ctx.save()
    ctx.translate(0, HEAD_PX)
    this.paint(ctx, width, height, look)
    ctx.restore()
    this.cursor = cursor
  }

  // Lines and areas in one row, smaller where they would leave the picture.
  legend(ctx, look, width) {
    const lines = this.series().map(({ lane, label, told = label }) => ({ lane, text: told, mark: 22 }))
    const areas = (this.content.areas ?? []).map(({ colour, label }) => ({ colour, text: label, mark: 12 }))
    const entries = [...lines, ...areas]
    const room = ({ text, mark }) => mark + 5 + 6.6 * text.length + 15
    const part = Math.min(1, (width - 8) / entries.reduce((sum, entry) => sum + room(entry), 0))
    let left = 8
    for (const entry of entries) {
      const { lane, colour, text, mark } = entry
      if (colour) {
        ctx.fillStyle = colour
        ctx.fillRect(left, 29, mark * part, 10)
      } else this.rule(ctx, [left, 34], [left + mark * part, 34], look.lanes[lane], DASHES[lane], 2)
      ctx.fillStyle = look.ink
      ctx.font = `${12 * part}px ${FONT}`
      ctx.fillText(text, left + (mark + 5) * part, 28)
      left += room(entry) * part
    }
  }

  csv() {
    const lines = [...this.series(), ...(this.content.columns ?? [])]
    const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
    const rows = Array.from({ length: this.content.total }, (_, token) => [
      token,
      ...lines.map((line) => line.values[token] ?? ""),
    ])
    return [[this.along, ...lines.map((line) => cell(`${line.label} (${this.content.csvUnit})`))], ...rows].map((row) => row.join(",")).join("\n") + "\n"
  }
}

function perToken(state, lane, read) {
  const out = []
  state.turns.forEach((_turn, turn) => {
    const offset = state.offset(turn)
    ;(lane.turns[turn] ?? []).forEach((token, step) => (out[offset + step] = token ? read(token, turn, step) : null))
  })
  return Array.from({ length: state.total }, (_, token) => out[token] ?? null)
}

const peak = (lines) => Math.max(0, ...lines.flatMap((line) => line.values.map((value) => value ?? 0)))
const label = (lane) => lane.name.toUpperCase()

// One lane's values over the tokens; `told` is what a picture without the page says of the lane.
function laneLine(state, lane, read) {
  const what = lane.lazy.size ? `${lane.lazy.size} layers lazy` : "no layer lazy"
  return { lane: lane.name, label: label(lane), told: `${label(lane)}, ${what}`, values: perToken(state, lane, read) }
}

export function kvContent(state, look, focus) {
  const lanes = [...state.lanes.values()]
  const lines = lanes.map((lane) => laneLine(state, lane, (token) => token.kv))
  const lane = state.lanes.get(focus) ?? lanes.at(-1)
  const parts = lane ? [["full", (t) => t.kv - t.streaming], ["streaming", (t) => t.streaming]] : []
  const columns = parts.map(([kind, read]) => ({
    label: `${label(lane)} ${kind} layers`,
    values: perToken(state, lane, (token) => (token.kv === undefined ? null : read(token))),
  }))
  const full = columns[0]?.values ?? []
  const both = full.map((value, token) => (value === null ? null : value + columns[1].values[token]))
  const areas = lane && [
    { colour: look.full, label: `${label(lane)} full`, from: full.map(() => 0), values: full },
    { colour: look.lazy, label: `${label(lane)} streaming`, from: full, values: both },
  ]
  return { lines, areas, columns, marks: [], total: state.total, top: peak(lines) * 1.06, csvUnit: "bytes" }
}

export function latencyContent(state) {
  const lanes = [...state.lanes.values()]
  const lines = lanes.map((lane) => laneLine(state, lane, (token, _turn, step) => (step ? token.latency_s : null)))
  const all = lines.flatMap((line) => line.values.filter((value) => value !== null && value !== undefined)).sort((a, b) => a - b)
  // one stall must not flatten the rest: what is beyond three times the median leaves the top of the chart
  const median = all[all.length >> 1] ?? 0
  return { lines, total: state.total, top: Math.min(all.at(-1) ?? 0, median * 3) * 1.06, marks: [], csvUnit: "s" }
}

export function klContent(state) {
  const lanes = [...state.lanes.values()].filter((lane) => lane.name !== "a")
  const lines = lanes.map((lane) => laneLine(state, lane, (token) => token.kl))
  const marks = lanes.flatMap((lane) => {
    const parts = state.divergence(lane)
    return parts ? [{ lane: lane.name, token: state.offset(parts.turn) + parts.step }] : []
  })
  const shape = lanes.length > 1 ? { lines } : { bars: lines }
  return { ...shape, marks, total: state.total, top: peak(lines) * 1.06, csvUnit: "nats" }
}
