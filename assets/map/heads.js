// All heads at once: a thumbnail each from a sample of rows, framed by laziness, sorted by what the heads are like.
import { encode, palette, positions } from "./scale.js"
import { formatView } from "./state.js"
import { tileId } from "./source.js"

const CHARACTERS = {
  sink: ["attention on the sinks", (value) => share(value)],
  recent: ["attention on recent tokens", (value) => share(value)],
  previous: ["attention on the token before", (value) => share(value)],
  induction: ["induction", (value) => share(value)],
  entropy: ["entropy", (value) => `${value.toFixed(2)} bits`],
  distance: ["mean distance", (value) => `${Math.round(value).toLocaleString("en-US")} tokens`],
}

const FOUND = 6

function share(value) {
  return `${(value * 100).toFixed(1)}%`
}

export class HeadsPanel {
  name = "heads"

  constructor(explorer) {
    this.explorer = explorer
    this.root = explorer.root.querySelector('[data-panel="heads"]')
    this.grid = this.root.querySelector(".heads")
    explorer.fields.sort.onchange = () => explorer.set({ sort: explorer.fields.sort.value })
  }

  close() {
    this.grid.replaceChildren()
  }

  async draw() {
    const { source, fields } = this.explorer
    fields.sort.value = this.explorer.state.sort
    const query = { ...source.window }
    const { look, data, state: { sort } } = this.explorer
    const asked = JSON.stringify([query, sort, look.name, data.layers])
    if (this.shown === asked) return // an open head stays open
    if (!this.codes) {
      this.grid.textContent = "Computing all heads…"
      this.grid.setAttribute("aria-busy", "true")
    }
    try {
      ;[this.facts, this.codes] = await Promise.all([source.json("heads", query), source.codes("thumbnails", query)])
    } catch (error) {
      this.explorer.trouble(error)
      return
    }
    if (source !== this.explorer.source) return
    this.shown = asked
    this.grid.removeAttribute("aria-busy")
    this.arrange()
  }

  arrange() {
    const { facts, look, state, data } = this.explorer
    const { rows, side } = this.facts
    this.root.querySelector(".sample").textContent =
      `From a sample of ${rows.length} rows, evenly spaced; a click shows the whole head, exactly.`
    this.root.querySelector(".key").textContent =
      `Frames are coloured by the layer’s laziness score, ${look.name === "dark" ? "lighter" : "darker"} is lazier; a dashed frame is a layer that the plan streams.` +
      (state.sort === "layer" ? " One row per layer, from the first." : " The highest comes first.")
    this.colours = palette(positions({ scale: "log", gamma: 10, histogram: ones(), signed: false, floor: encode(1 / (4 * facts.num_tokens)) }), look.sequential, look.masked)
    const byLayer = state.sort === "layer"
    const columns = byLayer && facts.num_heads <= 16 ? facts.num_heads : Math.max(Math.floor(this.grid.clientWidth / 74), 4)
    this.grid.style.gridTemplateColumns = `${byLayer ? "3.2rem " : ""}repeat(${columns}, minmax(0, 5.5rem))`
    const cells = []
    for (const [layer, head] of this.order(state.sort)) {
      if (byLayer && head % columns === 0) {
        cells.push(Object.assign(document.createElement("span"), { textContent: head === 0 ? `Layer ${layer}` : "" }))
      }
      cells.push(this.thumbnail(layer, head, side, data.layers[layer], look))
    }
    this.grid.replaceChildren(...cells)
    this.expanded = null
    this.find()
  }

  // The heads that have most of each character, a click from the map.
  find() {
    const list = this.root.querySelector(".finder dl")
    list.replaceChildren(
      ...Object.entries(CHARACTERS).flatMap(([name, [words, format]]) => {
        const best = document.createElement("dd")
        best.append(
          ...this.order(name).slice(0, FOUND).map(([layer, head]) => {
            const value = format(this.facts.characters[name][layer][head])
            const open = Object.assign(document.createElement("button"), { type: "button", textContent: `${layer}.${head} · ${value}` })
            open.setAttribute("aria-label", `Open layer ${layer}, head ${head} in the map: ${words} ${value}`)
            open.onclick = () => this.open(layer, head)
            return open
          }),
        )
        return [Object.assign(document.createElement("dt"), { textContent: words }), best]
      }),
    )
  }

  open(layer, head) {
    this.explorer.set({ view: formatView({ source: [layer, head], minus: null }), tab: "map" })
    this.explorer.root.querySelector("canvas.map").focus()
  }

  order(sort) {
    const { num_layers: layers, num_heads: heads } = this.explorer.facts
    const all = Array.from({ length: layers * heads }, (_, at) => [Math.floor(at / heads), at % heads])
    const values = this.facts.characters[sort]
    return values ? all.sort((a, b) => values[b[0]][b[1]] - values[a[0]][a[1]]) : all
  }

  thumbnail(layer, head, side, facts, look) {
    const button = document.createElement("button")
    button.type = "button"
    button.className = facts.lazy ? "head lazy" : "head"
    button.style.setProperty("--frame", look.name === "dark" ? facts.dark : facts.light)
    button.setAttribute("aria-expanded", "false")
    const canvas = document.createElement("canvas")
    canvas.width = canvas.height = side
    const start = (layer * this.explorer.facts.num_heads + head) * side * side
    putCodes(canvas, this.codes.subarray(start, start + side * side), this.colours)
    const label = document.createElement("span")
    const { sort } = this.explorer.state
    const value = CHARACTERS[sort] ? ` ${CHARACTERS[sort][1](this.facts.characters[sort][layer][head])}` : ""
    label.textContent = sort === "layer" ? `head ${head}` : `${layer}.${head} ·${value}`
    button.title = `Layer ${layer}, head ${head}${facts.lazy ? ", streams in the plan" : ""}`
    button.setAttribute("aria-label", `${button.title}${value}`)
    button.append(canvas, label)
    button.onclick = () => this.toggle(button, layer, head)
    return button
  }

  // In place: the whole head, exact, below its row.
  async toggle(button, layer, head) {
    const again = this.expanded?.button === button
    this.expanded?.button.setAttribute("aria-expanded", "false")
    this.expanded?.box.remove()
    this.expanded = null
    if (again) return
    const box = document.createElement("div")
    box.className = "expanded"
    const canvas = document.createElement("canvas")
    canvas.width = canvas.height = 256
    canvas.setAttribute("role", "img")
    canvas.setAttribute("aria-label", `Layer ${layer}, head ${head}: the whole map, each cell the maximum of its pairs`)
    box.append(canvas, this.words(layer, head))
    lastOfRow(button).after(box)
    button.setAttribute("aria-expanded", "true")
    this.expanded = { button, box }
    box.scrollIntoView({ block: "nearest", behavior: "smooth" })
    try {
      await this.drawWhole(canvas, layer, head)
    } catch (error) {
      this.explorer.trouble(error)
    }
  }

  async drawWhole(canvas, layer, head) {
    const { facts, source } = this.explorer
    const id = tileId(`${layer}.${head}`, "max", facts.top_level, 0, 0)
    const codes = await source.codes("tile", id.query)
    const cells = Math.ceil(facts.num_tokens / 2 ** facts.top_level)
    canvas.width = canvas.height = cells
    const shown = new Uint8Array(cells * cells)
    for (let row = 0; row < cells; row++) shown.set(codes.subarray(row * 256, row * 256 + cells), row * cells)
    putCodes(canvas, shown, this.colours)
  }

  words(layer, head) {
    const box = document.createElement("div")
    const title = Object.assign(document.createElement("b"), { textContent: `Layer ${layer}, head ${head}` })
    const list = document.createElement("dl")
    for (const [name, [words, format]] of Object.entries(CHARACTERS)) {
      const value = format(this.facts.characters[name][layer][head])
      list.append(
        Object.assign(document.createElement("dt"), { textContent: words }),
        Object.assign(document.createElement("dd"), { textContent: value }),
      )
    }
    const open = Object.assign(document.createElement("button"), { type: "button", textContent: "Open in the map" })
    open.onclick = () => this.open(layer, head)
    box.append(title, list, open)
    return box
  }
}

function lastOfRow(button) {
  let last = button
  while (last.nextElementSibling && last.nextElementSibling.offsetTop === button.offsetTop) last = last.nextElementSibling
  return last
}

function putCodes(canvas, codes, colours) {
  const image = new ImageData(canvas.width, canvas.height)
  const pixels = new Uint32Array(image.data.buffer)
  codes.forEach((code, at) => (pixels[at] = colours[code]))
  canvas.getContext("2d").putImageData(image, 0, 0)
}

function ones() {
  return new Float64Array(256).fill(1)
}
