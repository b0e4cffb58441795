// The map panel: one canvas that zooms from the whole triangle to single token pairs, with exact numbers under the cursor.
import { exportView } from "./exports.js"
import { codeAt, isSigned, margins, paint, paintBar, streams, tokenLabel } from "./painter.js"
import { exact, percent } from "./scale.js"
import { parseView } from "./state.js"
import { Viewport } from "./viewport.js"

const HOVER_AFTER_MS = 30
const MEAN_AFTER_MS = 250
const CONTEXT_TOKENS = 14
const TABLE_ROWS = 25
const CLICK_PX = 4
const PAIR_SPAN = 24

export class MapPanel {
  name = "map"

  constructor(explorer) {
    this.explorer = explorer
    this.root = explorer.root.querySelector('[data-panel="map"]')
    this.canvas = this.root.querySelector("canvas.map")
    this.viewport = new Viewport(explorer.facts)
    this.extras = { tokens: explorer.tokens, hover: null, lost: null, maxima: null, mean: null }
    this.pointers = new Map()
    explorer.source.onTile = () => this.repaint()
    this.observer = new ResizeObserver(() => this.resized())
    this.observer.observe(this.canvas)
    this.wireFields()
    this.wirePointer()
    this.canvas.onkeydown = (event) => this.key(event)
    this.pixels = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`)
    this.pixels.onchange = () => this.resized()
  }

  get state() {
    return this.explorer.state
  }

  close() {
    this.observer.disconnect()
    this.pixels.onchange = null
    clearTimeout(this.hoverTimer)
    clearTimeout(this.meanTimer)
    this.hovering?.abort()
    this.explorer.source.onTile = () => {}
  }

  resized() {
    const { clientWidth: width, clientHeight: height } = this.canvas
    if (!width || !height) return
    this.ratio = window.devicePixelRatio || 1
    this.canvas.width = Math.round(width * this.ratio)
    this.canvas.height = Math.round(height * this.ratio)
    const first = this.viewport.width === 1
    const around = margins(this.state, this.explorer.look.scale)
    // the plot is square, as the map is: what is left of the width goes to the numbers beside it
    const square = height - around.top - around.bottom + around.left + around.right
    this.canvas.closest(".desk").style.setProperty("--square", `${square}px`)
    this.viewport.resize(width - around.left - around.right, height - around.top - around.bottom)
    this.around = JSON.stringify(around)
    if (first && this.state.box) this.viewport.show(this.state.box)
    this.shownBox = this.state.box
    this.look()
  }

  // The state changed: it may ask for another place, other numbers, other colours.
  draw() {
    if (this.viewport.width === 1 || this.around !== JSON.stringify(margins(this.state, this.explorer.look.scale))) {
      this.resized()
      if (this.viewport.width === 1) return
    }
    if (this.state.box !== this.shownBox) {
      if (this.state.box) this.viewport.show(this.state.box)
      else this.viewport.whole()
      this.shownBox = this.state.box
    }
    this.showFields()
    this.askExtras()
    const first = this.unkept()
    this.explorer.note(first ? `The run kept this view’s queries from row ${first.toLocaleString("en-US")} on; earlier rows are grey. Choose “Queries kept” in the sidebar for others.` : "")
    this.look()
    this.showPair()
  }

  // The viewport changed: ask for its tiles and draw what is here.
  look() {
    this.explorer.source.want(this.viewport.needed(this.state.view, this.state.reduce))
    clearTimeout(this.meanTimer)
    if (this.state.mean) this.meanTimer = setTimeout(() => this.askMean(), MEAN_AFTER_MS)
    this.repaint()
  }

  // The average over the rows in view, once the view rests.
  async askMean() {
    const { view } = this.state
    const [top, stop] = this.viewport.rows
    const start = Math.max(top, this.unkept())
    if (start >= stop) return
    try {
      const values = await this.explorer.source.floats("row", { view, start, stop })
      if (this.state.view !== view) return
      this.extras.mean = { values, rows: [start, stop] }
      this.repaint()
    } catch (error) {
      this.explorer.trouble(error)
    }
  }

  repaint() {
    if (this.frame) return
    this.frame = requestAnimationFrame(() => {
      this.frame = null
      this.paint()
    })
  }

  paint() {
    const { canvas, viewport, state, extras } = this
    if (!canvas.clientWidth || this.explorer.state.tab !== "map") return
    const ctx = canvas.getContext("2d")
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
    const size = { width: canvas.clientWidth, height: canvas.clientHeight }
    this.colouring = paint(ctx, size, state, viewport, this.explorer.source, this.explorer.look, extras)
    this.paintLegend()
    const here = viewport.tiles(state.view, state.reduce, viewport.level).every((id) => this.explorer.source.tile(id))
    this.root.querySelector(".wait").hidden = here
    canvas.dataset.complete = String(here)
    canvas.dataset.level = String(viewport.level)
    canvas.dataset.tokens = String(viewport.facts.num_tokens)
    canvas.setAttribute("aria-label", this.description())
  }

  // Rows whose queries the run did not keep are grey, and it is said why.
  unkept() {
    const { facts } = this.explorer
    const { source, minus } = parseView(this.state.view)
    const layers = [source, ...(minus ? [minus] : [])].map(([layer]) => layer)
    const firsts = layers.flatMap((layer) => (layer === null ? facts.first_rows : [facts.first_rows[layer]]))
    return Math.max(...firsts)
  }

  description() {
    const { rows, cols, level } = this.viewport
    const cell = 2 ** level
    const cells = level ? `cells of ${cell} by ${cell} tokens` : "single token pairs"
    return `Attention map, ${this.explorer.title}: queries ${rows[0]} to ${rows[1] - 1}, keys ${cols[0]} to ${cols[1] - 1}, ${cells}. Press question mark for the keys.`
  }

  paintLegend() {
    const legend = this.root.querySelector("canvas.legend")
    const [width, height] = [legend.clientWidth, legend.clientHeight]
    legend.width = Math.round(width * this.ratio)
    legend.height = Math.round(height * this.ratio)
    const ctx = legend.getContext("2d")
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
    paintBar(ctx, 4, 4, width - 12, 12, this.colouring, this.explorer.look)
  }

  // Numbers that some switches need, asked for once each.
  askExtras() {
    const { source } = this.explorer
    const { view } = this.state
    const want = (name, on, what, query) => {
      const key = on ? JSON.stringify([what, query]) : null
      if (this.extras[`${name}Key`] === key) return
      this.extras[`${name}Key`] = key
      this.extras[name] = null
      if (!on) return
      source.floats(what, query).then(
        (numbers) => {
          if (this.extras[`${name}Key`] !== key) return
          this.extras[name] = numbers
          this.repaint()
        },
        (error) => this.explorer.trouble(error),
      )
    }
    want("lost", this.state.lost, "lost", { view: view.split("-")[0], ...source.window })
    want("maxima", this.state.rows && !isSigned(this.state), "maxima", { view, skip: source.window.sink })
  }

  wireFields() {
    const { explorer } = this
    const on = (name, event, read) => (explorer.fields[name][event] = () => explorer.set({ [name]: read(explorer.fields[name]) }))
    for (const name of ["reduce", "scale"]) on(name, "onchange", (field) => field.value)
    for (const name of ["sinks", "rows", "lost", "mean"]) on(name, "onchange", (field) => field.checked)
    on("gamma", "oninput", (field) => Number(field.value))
    for (const button of this.root.querySelectorAll("[data-act]")) {
      const act = button.dataset.act
      button.onclick = { help: () => this.help(), pair: () => this.toPair() }[act] ?? (() => this.export(act))
    }
  }

  showFields() {
    const { fields } = this.explorer
    for (const name of ["reduce", "scale", "gamma"]) fields[name].value = String(this.state[name])
    for (const name of ["sinks", "rows", "lost", "mean"]) fields[name].checked = this.state[name]
    fields.rows.disabled = isSigned(this.state)
  }

  help() {
    const box = this.root.querySelector(".help")
    box.hidden = !box.hidden
    this.root.querySelector('[data-act="help"]').setAttribute("aria-expanded", String(!box.hidden))
  }

  async export(form) {
    try {
      await exportView(form, this)
    } catch (error) {
      this.explorer.trouble(error)
    }
  }

  moved() {
    const box = this.viewport.isWhole ? null : this.viewport.box()
    this.state.box = this.shownBox = box
    this.look()
    clearTimeout(this.explorer.timer)
    this.explorer.timer = setTimeout(() => this.explorer.tell(), 500)
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect()
    const { left, top } = margins(this.state, this.explorer.look.scale)
    return [event.clientX - box.left - left, event.clientY - box.top - top]
  }

  wirePointer() {
    const { canvas } = this
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault()
        const [x, y] = this.place(event)
        const lines = event.deltaMode === 1 ? 30 : 1
        this.viewport.zoom(Math.exp((-event.deltaY * lines) / (event.ctrlKey ? 120 : 400)), x, y)
        this.moved()
        this.hover(x, y)
      },
      { passive: false },
    )
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId)
      this.pointers.set(event.pointerId, [event.clientX, event.clientY])
      this.pressed = this.pointers.size === 1 ? { at: [event.clientX, event.clientY], moved: false } : null
    }
    canvas.onpointermove = (event) => {
      if (this.pointers.has(event.pointerId)) this.drag(event)
      else this.hover(...this.place(event))
    }
    canvas.onpointerup = canvas.onpointercancel = (event) => {
      this.pointers.delete(event.pointerId)
      if (event.type === "pointerup" && this.pressed && !this.pressed.moved) this.choose(this.viewport.at(...this.place(event)))
      this.pressed = null
    }
    canvas.onpointerleave = () => this.leave()
    canvas.ondblclick = (event) => {
      const [x, y] = this.place(event)
      this.viewport.zoom(event.shiftKey ? 0.4 : 2.5, x, y)
      this.moved()
    }
  }

  drag(event) {
    const before = [...this.pointers.values()]
    const last = this.pointers.get(event.pointerId)
    this.pointers.set(event.pointerId, [event.clientX, event.clientY])
    const after = [...this.pointers.values()]
    if (after.length === 2) {
      const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1])
      const middle = { clientX: (after[0][0] + after[1][0]) / 2, clientY: (after[0][1] + after[1][1]) / 2 }
      this.viewport.zoom(apart(after) / Math.max(apart(before), 1), ...this.place(middle))
    } else {
      if (this.pressed) {
        const far = Math.hypot(event.clientX - this.pressed.at[0], event.clientY - this.pressed.at[1])
        this.pressed.moved ||= far > CLICK_PX
        if (!this.pressed.moved) return
      }
      this.viewport.pan(last[0] - event.clientX, last[1] - event.clientY)
    }
    this.moved()
  }

  // Single cells around the chosen pair; a key that the query cannot see, or that
  // stands alone, is looked at from the last token.
  toPair() {
    if (this.state.query === null && this.state.key === null) return
    const key = this.state.key ?? 0
    const query = (this.state.query ?? -1) >= key ? this.state.query : this.explorer.facts.num_tokens - 1
    const pair = { query, key }
    const box = [pair.query, pair.key].map((token) => Math.max(token - PAIR_SPAN / 2, 0))
    this.explorer.set({ ...pair, tab: "map", box: [...box, PAIR_SPAN] })
  }

  choose(pair) {
    if (!pair || pair.key > pair.query) this.explorer.set({ query: null, key: null })
    else this.explorer.set({ query: pair.query, key: pair.key })
  }

  key(event) {
    const { viewport } = this
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    const middle = [viewport.width / 2, viewport.height / 2]
    const acts = {
      "+": () => viewport.zoom(1.5, ...middle),
      "=": () => viewport.zoom(1.5, ...middle),
      "-": () => viewport.zoom(1 / 1.5, ...middle),
      0: () => viewport.whole(),
      Enter: () => this.choose(viewport.at(...middle)),
      Escape: () => this.choose(null),
      ",": () => this.explorer.step("head", -1),
      ".": () => this.explorer.step("head", 1),
      "[": () => this.explorer.step("layer", -1),
      "]": () => this.explorer.step("layer", 1),
      l: () => this.explorer.set({ lost: !this.state.lost }),
      m: () => this.explorer.set({ mean: !this.state.mean }),
      z: () => this.toPair(),
      "?": () => this.help(),
    }
    if (arrows && event.shiftKey) this.nudge(...arrows)
    else if (arrows) viewport.pan(arrows[0] * viewport.width * 0.15, arrows[1] * viewport.height * 0.15)
    else if (acts[event.key]) acts[event.key]()
    else return
    event.preventDefault()
    this.moved()
  }

  nudge(dx, dy) {
    const total = this.explorer.facts.num_tokens
    const query = Math.min(Math.max((this.state.query ?? Math.floor(this.viewport.top)) + dy, 0), total - 1)
    const key = Math.min(Math.max((this.state.key ?? Math.floor(this.viewport.left)) + dx, 0), query)
    this.explorer.set({ query, key })
  }

  hover(x, y) {
    const pair = this.viewport.at(x, y)
    const inside = x >= 0 && y >= 0 && x < this.viewport.width && y < this.viewport.height
    if (!pair || !inside || pair.key > pair.query) {
      this.leave()
      return
    }
    const cell = 2 ** this.viewport.level
    const place = { level: this.viewport.level, row: Math.floor(pair.query / cell), col: Math.floor(pair.key / cell) }
    const same = this.extras.hover
    if (same && same.level === place.level && same.row === place.row && same.col === place.col) return
    this.extras.hover = place
    this.repaint()
    this.read(place, pair)
  }

  leave() {
    if (!this.extras.hover) return
    this.extras.hover = null
    this.repaint()
    this.showPair()
  }

  // The number of a cell: the exact one if it was read before, otherwise at once what its code says, then the exact one.
  read(place, pair) {
    const { state } = this
    const { source } = this.explorer
    this.hovering?.abort()
    clearTimeout(this.hoverTimer)
    const query = { view: state.view, reduce: state.reduce, level: place.level, row: place.row, col: place.col }
    const known = source.known(query)
    if (known) {
      this.showReading({ ...known, level: place.level })
      return
    }
    const abort = new AbortController()
    this.hovering = abort
    const near = codeAt(state, this.viewport, source, pair)
    this.showReading({ ...pair, value: near?.value, near: true, level: place.level })
    this.hoverTimer = setTimeout(async () => {
      try {
        const found = await source.value(query, abort.signal)
        if (!abort.signal.aborted) this.showReading({ ...found, level: place.level })
      } catch (error) {
        if (error.name !== "AbortError") this.explorer.trouble(error)
      }
    }, HOVER_AFTER_MS)
  }

  showPair() {
    const { query, key } = this.state
    this.root.querySelector('[data-act="pair"]').hidden = query === null && key === null
    if (query === null || key === null || key > query) {
      this.root.querySelector(".number").textContent = "Move over the map to read exact values; click to keep a pair."
      this.strips(query, key)
      this.table(query)
      return
    }
    this.read({ level: 0, row: query, col: key }, { query, key })
    this.table(query)
  }

  showReading({ value, query, key, kept, level, near }) {
    const cell = 2 ** level
    const what = level ? `${this.state.reduce === "max" ? "Maximum" : "Mean"} of ${cell} × ${cell} pairs` : "Weight"
    const number = document.createElement("b")
    number.textContent = near ? `≈ ${value === undefined ? "…" : value.toPrecision(2)}` : exact(value)
    const at = this.state.reduce === "max" || !level ? ` at query ${query.toLocaleString("en-US")}, key ${key.toLocaleString("en-US")}` : ""
    const line = this.root.querySelector(".number")
    line.replaceChildren(`${what}: `, number, at)
    if (this.isEvicted(query, key)) line.append(". The layer streams, and had dropped this key: it was evicted, not ignored")
    else if (kept !== null && kept !== undefined) {
      line.append(`. A streaming layer would keep ${percent(kept)} of this query’s attention.`)
    }
    line.dataset.exact = near ? "" : String(value)
    this.strips(query, key)
  }

  isEvicted(query, key) {
    const { facts, source } = this.explorer
    const { sink, recent } = source.window
    return streams(this.state, facts) && query >= facts.prompt_tokens && key >= sink && key <= query - recent
  }

  strips(query, key) {
    for (const [name, at] of [["query", query], ["key", key]]) {
      const line = this.root.querySelector(`[data-strip="${name}"]`)
      if (at === null || at === undefined) {
        line.replaceChildren()
        continue
      }
      const text = (from, to) => this.explorer.tokens.slice(Math.max(from, 0), to).map((token) => token.replaceAll("\n", "⏎")).join("")
      const role = document.createElement("span")
      role.className = "role"
      role.textContent = `${name === "query" ? "Query" : "Key"} ${at.toLocaleString("en-US")}`
      const mark = document.createElement("mark")
      mark.textContent = text(at, at + 1) || "␣"
      line.replaceChildren(role, text(at - CONTEXT_TOKENS, at), mark, text(at + 1, at + 1 + CONTEXT_TOKENS))
    }
  }

  // The text alternative: what the chosen query attends to most, as numbers.
  async table(query) {
    const box = this.root.querySelector(".numbers")
    box.hidden = query === null
    if (query === null) return
    const { view } = this.state
    let row
    try {
      row = await this.explorer.source.floats("row", { view, start: query, stop: query + 1 })
    } catch (error) {
      this.explorer.trouble(error)
      return
    }
    if (this.state.query !== query || this.state.view !== view) return
    const best = [...row.keys()].filter((key) => key <= query).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]))
    const line = (kind, cells) => {
      const made = document.createElement("tr")
      made.append(...cells.map((text) => Object.assign(document.createElement(kind), { textContent: text })))
      return made
    }
    const { tokens } = this.explorer
    box.querySelector("thead").replaceChildren(line("th", ["key", "token", isSigned(this.state) ? "difference" : "weight"]))
    box.querySelector("tbody").replaceChildren(
      ...best.slice(0, TABLE_ROWS).map((key) => line("td", [String(key), tokenLabel(tokens[key], 24), exact(row[key])])),
    )
  }
}
