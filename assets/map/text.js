// The prompt as text, shaded by what the chosen token attends to or by who attends to it. Only blocks near the window
// hold their words, so a long prompt costs no more than a short one.
import { isSigned } from "./painter.js"
import { exact } from "./scale.js"

const BLOCK_TOKENS = 240
const ARCS = 8

export class TextPanel {
  name = "text"

  constructor(explorer) {
    this.explorer = explorer
    this.root = explorer.root.querySelector('[data-panel="text"]')
    this.box = this.root.querySelector(".text")
    const { fields } = explorer
    fields.way.onchange = () => explorer.set({ way: fields.way.value })
    fields.grain.onchange = () => explorer.set({ grain: fields.grain.value })
    fields.arcs.onchange = () => this.arcs()
    fields.find.oninput = () => this.find(0)
    fields.find.onkeydown = (event) => event.key === "Enter" && this.find(1)
    this.root.querySelector('[data-act="find"]').onclick = () => this.find(1)
    this.root.querySelector('[data-act="place"]').onclick = () => {
      explorer.set(explorer.state.way === "out" ? { query: this.chosen } : { key: this.chosen })
      explorer.panels.find((panel) => panel.name === "map").toPair()
    }
    this.box.onclick = (event) => this.clicked(event)
    this.box.onscroll = () => this.arcs()
    this.starts = tokenStarts(explorer.tokens)
    this.hits = []
  }

  close() {
    this.observer?.disconnect()
    this.box.replaceChildren()
  }

  get chosen() {
    const { query, key, way } = this.explorer.state
    return (way === "out" ? query : key) ?? this.explorer.facts.num_tokens - 1
  }

  async draw() {
    const { fields, state } = this.explorer
    fields.way.value = state.way
    fields.grain.value = state.grain
    if (this.grain !== state.grain) this.build()
    await this.shade()
  }

  // Blocks of units; a unit is a token, a word or a sentence, and holds a half-open range of tokens.
  build() {
    const { tokens, state } = this.explorer
    this.grain = state.grain
    this.units = unitsOf(tokens, state.grain)
    this.unitOf = new Uint32Array(tokens.length)
    this.units.forEach(([start, stop], unit) => this.unitOf.fill(unit, start, stop))
    this.observer?.disconnect()
    this.observer = new IntersectionObserver((seen) => seen.forEach((entry) => this.seen(entry)), {
      root: this.box,
      rootMargin: "600px",
    })
    this.blocks = []
    let block = []
    const flush = () => {
      if (!block.length) return
      const element = document.createElement("div")
      element.className = "block"
      const letters = this.starts[block.at(-1)[1]] - this.starts[block[0][0]]
      element.style.minHeight = `${Math.max(Math.ceil(letters / 110), 1) * 1.75}em`
      this.blocks.push({ element, units: block, filled: false })
      block = []
    }
    for (const unit of this.units) {
      block.push(unit)
      const length = unit[1] - block[0][0]
      // a block begins a line, so it ends where the text does, unless the line is very long
      if ((length >= BLOCK_TOKENS && tokens[unit[1] - 1].endsWith("\n")) || length >= 4 * BLOCK_TOKENS) flush()
    }
    flush()
    this.box.replaceChildren(...this.blocks.map(({ element }) => element))
    this.blocks.forEach(({ element }) => this.observer.observe(element))
  }

  seen({ target, isIntersecting }) {
    const block = this.blocks.find(({ element }) => element === target)
    if (!block || block.filled === isIntersecting) return
    if (isIntersecting) this.fill(block)
    else {
      block.filled = false
      target.style.minHeight = `${target.offsetHeight}px`
      target.replaceChildren()
    }
  }

  fill(block) {
    block.filled = true
    block.element.style.minHeight = ""
    block.element.replaceChildren(...block.units.map((unit) => this.span(unit)))
    this.paintBlock(block)
  }

  span([start, stop]) {
    const span = document.createElement("span")
    span.className = "unit"
    span.dataset.start = start
    span.textContent = this.explorer.tokens.slice(start, stop).join("")
    return span
  }

  async shade() {
    const { source, state, look } = this.explorer
    const chosen = this.chosen
    const asked = `${state.view} ${state.way} ${chosen}`
    this.asked = asked
    const numbers =
      state.way === "out"
        ? source.floats("row", { view: state.view, start: chosen, stop: chosen + 1 })
        : source.floats("column", { view: state.view, key: chosen })
    let weights
    try {
      weights = await numbers
    } catch (error) {
      this.explorer.trouble(error)
      return
    }
    if (this.asked !== asked) return
    this.box.style.setProperty("--shade", look.strong)
    this.values = Float32Array.from(this.units, ([start, stop]) => combine(weights, start, stop, state.way))
    // a sink would take the whole scale, so the first unit is left out of it
    this.most = this.values.reduce((most, value, unit) => (unit ? Math.max(most, Math.abs(value)) : most), 1e-9)
    this.blocks.forEach((block) => block.filled && this.paintBlock(block))
    this.tell(chosen)
    if (this.scrolledTo !== asked && !this.quiet) this.bring(chosen)
    this.scrolledTo = asked
    this.quiet = false
    this.arcs()
  }

  paintBlock({ element, units }) {
    if (!this.values) return
    const chosen = this.chosen
    ;[...element.children].forEach((span, at) => {
      const [start, stop] = units[at]
      const value = this.values[this.unitOf[start]]
      span.style.setProperty("--part", Math.min(Math.sqrt(Math.abs(value) / this.most), 1).toFixed(3))
      span.classList.toggle("chosen", start <= chosen && chosen < stop)
      span.classList.toggle("hit", this.hits.some(([from, to]) => from < stop && start < to))
      span.classList.toggle("unseen", this.explorer.state.way === "out" ? start > chosen : stop <= chosen)
      span.title = `token ${start}${stop - start > 1 ? ` to ${stop - 1}` : ""}: ${exact(value)}`
    })
  }

  tell(chosen) {
    const { state, tokens } = this.explorer
    const what = isSigned(state) ? "difference of attention" : "attention"
    const line = this.root.querySelector(".said")
    const token = Object.assign(document.createElement("mark"), { textContent: tokens[chosen].replaceAll("\n", "⏎") })
    line.replaceChildren(
      state.way === "out" ? "Where token " : "Who looks at token ",
      `${chosen.toLocaleString("en-US")} `,
      token,
      state.way === "out"
        ? `: shade is the ${what} that each ${state.grain} gets, the sum over its tokens.`
        : `: shade is the ${what} that each ${state.grain} gives it, the mean over its tokens.`,
      " Click a word to choose it; the first one is left out of the scale.",
    )
  }

  clicked(event) {
    const unit = event.target.closest(".unit")
    if (!unit) return
    const start = Number(unit.dataset.start)
    this.quiet = true
    this.explorer.set(this.explorer.state.way === "out" ? { query: start } : { key: start })
  }

  bring(token) {
    const block = this.blocks.find(({ units }) => token < units.at(-1)[1])
    if (!block) return
    const centre = () => {
      if (!block.filled) this.fill(block)
      const span = [...block.element.children].findLast((unit) => Number(unit.dataset.start) <= token)
      if (span) this.box.scrollTop = span.offsetTop - this.box.clientHeight / 2
    }
    centre()
    // the blocks around it get their words now, and their true heights
    for (const wait of [60, 200]) setTimeout(centre, wait)
  }

  find(step) {
    const wanted = this.explorer.fields.find.value.toLowerCase()
    const found = this.root.querySelector(".found")
    if (!wanted) {
      this.hits = []
      found.textContent = ""
    } else {
      if (this.searched !== wanted) {
        this.hits = occurrences(this.explorer.tokens, this.starts, wanted)
        this.at = -1
        step = step || 1
      }
      if (this.hits.length) {
        this.at = (this.at + step + this.hits.length) % this.hits.length
        found.textContent = `${this.at + 1} of ${this.hits.length}`
        this.bring(this.hits[this.at][0])
        // numbers that are still to come must not scroll away from what was found
        if (this.scrolledTo !== this.asked) this.quiet = true
      } else found.textContent = "not in the prompt"
    }
    this.searched = wanted
    this.blocks?.forEach((block) => block.filled && this.paintBlock(block))
  }

  // From the chosen token to the strongest others in sight.
  arcs() {
    this.box.querySelector("svg")?.remove()
    if (!this.explorer.fields.arcs.checked || !this.values) return
    const spans = [...this.box.querySelectorAll(".unit")]
    const here = spans.find((span) => span.classList.contains("chosen"))
    if (!here) return
    const strength = (span) => Math.abs(this.values[this.unitOf[Number(span.dataset.start)]])
    const best = spans.filter((span) => span !== here && strength(span) > 0).sort((a, b) => strength(b) - strength(a))
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
    const middle = (span) => [span.offsetLeft + span.offsetWidth / 2, span.offsetTop + span.offsetHeight / 2]
    const [x0, y0] = middle(here)
    for (const span of best.slice(0, ARCS)) {
      const [x1, y1] = middle(span)
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path")
      const lift = Math.min(Math.hypot(x1 - x0, y1 - y0) * 0.3, 90)
      path.setAttribute("d", `M ${x0} ${y0} Q ${(x0 + x1) / 2} ${(y0 + y1) / 2 - lift} ${x1} ${y1}`)
      path.setAttribute("stroke-width", (1 + 4 * Math.sqrt(strength(span) / this.most)).toFixed(1))
      path.setAttribute("opacity", "0.75")
      svg.append(path)
    }
    this.box.append(svg)
  }
}

function combine(weights, start, stop, way) {
  let total = 0
  for (let at = start; at < stop; at++) total += weights[at]
  return way === "out" ? total : total / (stop - start)
}

function tokenStarts(tokens) {
  const starts = new Uint32Array(tokens.length + 1)
  tokens.forEach((token, at) => (starts[at + 1] = starts[at] + token.length))
  return starts
}

// Ranges of tokens: a word ends before a token that begins with a blank, a sentence after its mark or an empty line.
export function unitsOf(tokens, grain) {
  const units = []
  let start = 0
  tokens.forEach((token, at) => {
    const next = tokens[at + 1]
    const ends =
      next === undefined ||
      grain === "token" ||
      (grain === "word" && (/^\s/.test(next) || /\s$/.test(token))) ||
      (grain === "sentence" && (/[.!?]["’”)]?\s*$/.test(token) && /^\s/.test(next) ? true : /\n\s*$/.test(token)))
    if (ends) {
      units.push([start, at + 1])
      start = at + 1
    }
  })
  return units
}

export function occurrences(tokens, starts, wanted) {
  const text = tokens.join("").toLowerCase()
  const hits = []
  const tokenAt = (letter) => {
    let [low, high] = [0, tokens.length - 1]
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (starts[middle] <= letter) low = middle
      else high = middle - 1
    }
    return low
  }
  for (let at = text.indexOf(wanted); at >= 0 && hits.length < 1000; at = text.indexOf(wanted, at + wanted.length)) {
    hits.push([tokenAt(at), tokenAt(at + wanted.length - 1) + 1])
  }
  return hits
}
