// One lane on the page: its text as it comes, its numbers, and its layers, which are bars of bytes and switches at once.
import { bytesText, count, natsText, quantile, secondsText } from "./run.js"

const SEND_AFTER_MS = 200

// { 3, 5, 6, 7 } -> "3,5-7"
function spans(layers) {
  const found = []
  for (const layer of [...layers].sort((a, b) => a - b)) {
    if (found.at(-1)?.[1] === layer - 1) found.at(-1)[1] = layer
    else found.push([layer, layer])
  }
  return found.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join(",")
}

export class LaneView {
  constructor(panel, name, template, host) {
    this.panel = panel
    this.name = name
    this.root = template.content.firstElementChild.cloneNode(true)
    this.root.dataset.lane = name
    host.append(this.root)
    const find = (part) => this.root.querySelector(`.${part}`)
    this.parts = Object.fromEntries(
      ["name", "text", "tokens", "first", "now", "p50", "p95", "rate", "kv", "formula", "kl", "parts", "layers", "follow", "legend"].map(
        (part) => [part, find(part)],
      ),
    )
    this.drawn = []
    this.parts.text.setAttribute("aria-label", `Answer of lane ${name.toUpperCase()}`)
    this.parts.layers.setAttribute("aria-label", `Layers of lane ${name.toUpperCase()}`)
    this.parts.text.onclick = (event) => {
      const token = event.target.closest("[data-step]")
      if (token) panel.choose(Number(token.dataset.turn), Number(token.dataset.step))
    }
    this.parts.name.onclick = () => panel.focusOn(name)
    const follow = this.parts.follow.querySelector("input")
    follow.onchange = () => panel.changeLane(name, { follow: follow.checked })
  }

  render(state) {
    const lane = state.lanes.get(this.name)
    if (!lane) return
    this.heading(state, lane)
    this.text(state, lane)
    this.numbers(state, lane)
    this.bars(state, lane)
  }

  // Lanes with as many lazy layers are told apart by which.
  heading(state, lane) {
    const lazy = lane.lazy.size
    const alike = [...state.lanes.values()].some((other) => other.name !== this.name && other.lazy.size === lazy)
    // with hyphens at which no line ends
    const which = lazy && alike ? ` (${spans(lane.lazy).replaceAll("-", "\u2011").replaceAll(",", ", ")})` : ""
    const what = this.name === "a" ? "full model" : lazy ? `${lazy} of ${lane.caps.length} layers lazy${which}` : "no layer lazy"
    this.parts.name.querySelector("span").textContent = `${this.name.toUpperCase()}: ${what}`
    this.parts.name.setAttribute("aria-pressed", String(this.panel.focus === this.name))
    const follow = this.parts.follow.querySelector("input")
    follow.checked = lane.settings.follow
    follow.disabled = !this.panel.changeable
    this.parts.follow.hidden = this.name === "a" || (follow.disabled && !follow.checked)
  }

  // Spans are added for new tokens only; a lane that was begun anew, or a replay that went back, starts over.
  text(state, lane) {
    const box = this.parts.text
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24
    if (this.lane !== lane || this.drawn.some((drawn, turn) => drawn.length > (lane.turns[turn]?.length ?? 0))) {
      box.replaceChildren()
      this.drawn = []
      this.lane = lane
    }
    state.turns.forEach((turn, number) => {
      if (number > 0 && !this.drawn[number]) box.append(question(turn.text, number))
      this.drawn[number] ??= []
      const tokens = lane.turns[number] ?? []
      for (let step = 0; step < tokens.length; step++) this.token(state, lane, number, step, tokens[step])
    })
    if (atEnd && this.panel.live) box.scrollTop = box.scrollHeight
  }

  token(state, lane, turn, step, token) {
    const drawn = this.drawn[turn]
    const differs = this.name === "a" ? null : state.differs(lane, turn, step)
    if (!drawn[step]) {
      const span = document.createElement("span")
      span.dataset.turn = turn
      span.dataset.step = step
      drawn[step] = { span, differs: null }
      // later turns' questions stand after this one's tokens
      this.parts.text.insertBefore(span, this.parts.text.querySelector(`.question[data-turn="${turn + 1}"]`))
      span.textContent = token.text ?? ""
      span.title = `token ${step}`
    }
    if (differs === null || drawn[step].differs === differs) return
    drawn[step].differs = differs
    drawn[step].span.classList.toggle("differs", differs)
    const first = differs && isFirst(state.divergence(lane), turn, step)
    if (first) {
      this.parts.text.querySelector(".mark")?.remove()
      const mark = document.createElement("button")
      mark.type = "button"
      mark.className = "mark"
      mark.textContent = "first difference"
      mark.dataset.turn = turn
      mark.dataset.step = step
      drawn[step].span.before(mark)
    }
  }

  select(turn, step) {
    this.parts.text.querySelector(".chosen")?.classList.remove("chosen")
    this.drawn[turn]?.[step]?.span.classList.add("chosen")
  }

  numbers(state, lane) {
    const set = (part, text) => {
      if (this.parts[part].textContent !== text) this.parts[part].textContent = text
    }
    const seconds = lane.latencies
    const first = lane.turns[0]?.[0]
    const p50 = quantile(seconds, 0.5)
    const all = seconds.reduce((total, value) => total + value, 0)
    const known = (value, write) => (value === null || value === undefined ? "–" : write(value))
    set("tokens", count(lane.tokens.length))
    set("first", known(first?.latency_s, (own) => secondsText(state.facts.prefill_s + own)))
    set("now", known(seconds.at(-1), secondsText))
    set("p50", known(p50, secondsText))
    set("p95", known(quantile(seconds, 0.95), secondsText))
    set("rate", all > 0 ? `${(seconds.length / all).toFixed(1)} / s` : "–")
    const seen = lane.last?.seen_tokens
    set("kv", known(lane.last?.kv, bytesText))
    set("formula", seen === undefined ? "–" : bytesText(lane.formula(seen).reduce((total, value) => total + value, 0)))
    if (this.name === "a") {
      set("kl", "–")
      set("parts", "the reference")
      return
    }
    const kl = lane.kl
    set("kl", kl.length ? `${natsText(kl.reduce((total, value) => total + value, 0) / kl.length)} nats` : "–")
    const parting = state.divergence(lane)
    const { same, both } = state.agreement(lane)
    const turn = parting?.turn ? `answer ${parting.turn + 1}, ` : ""
    set("parts", parting ? `${turn}token ${parting.step}; ${same} of ${both} agree` : both ? `none in ${both} tokens` : "–")
  }

  bars(state, lane) {
    const layers = lane.caps.length
    if (this.cells?.length !== layers) this.build(layers, state)
    const bytes = lane.last?.kv_bytes
    const formula = bytes ? lane.formula(lane.last.seen_tokens) : null
    const most = Math.max(1, ...[...state.lanes.values()].flatMap((one) => one.last?.kv_bytes ?? []))
    this.cells.forEach((cell, layer) => {
      const lazy = this.pending?.has(layer) ?? lane.lazy.has(layer)
      const words = bytes
        ? `${bytesText(bytes[layer])} measured, ${bytesText(formula[layer])} by formula`
        : "no bytes yet"
      cell.style.setProperty("--part", bytes ? bytes[layer] / most : 0)
      cell.style.setProperty("--formula", formula ? formula[layer] / most : 0)
      cell.classList.toggle("lazy", lane.caps[layer] !== null && lane.caps[layer] > 0)
      cell.title = `Layer ${layer}, ${lazy ? "lazy" : "full"}: ${words}`
      cell.setAttribute("aria-label", cell.title)
      if (cell.tagName === "BUTTON") cell.setAttribute("aria-pressed", String(lazy))
    })
    this.parts.legend.hidden = this.name === "a"
    this.parts.legend.querySelector("span").hidden = !this.panel.changeable
  }

  build(layers, state) {
    const fixed = state.facts.model.not_convertible ?? {}
    this.cells = Array.from({ length: layers }, (_, layer) => {
      const switchable = this.name !== "a" && !(layer in fixed) && this.panel.changeable
      const cell = document.createElement(switchable ? "button" : "i")
      if (switchable) {
        cell.type = "button"
        cell.tabIndex = layer === 0 ? 0 : -1
        cell.onclick = () => this.toggle(layer)
        cell.onkeydown = (event) => this.move(event, layer)
      } else cell.setAttribute("role", "img")
      return cell
    })
    this.parts.layers.replaceChildren(...this.cells)
  }

  move(event, layer) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -layer, End: this.cells.length - 1 - layer }[event.key]
    const next = this.cells[layer + step]
    if (step === undefined || !next) return
    event.preventDefault()
    for (const cell of this.cells) if (cell.tagName === "BUTTON") cell.tabIndex = cell === next ? 0 : -1
    next.focus()
  }

  // Several clicks in a row are one change: a lane is begun anew once.
  toggle(layer) {
    const lane = this.panel.state.lanes.get(this.name)
    this.pending ??= new Set(lane.lazy)
    if (!this.pending.delete(layer)) this.pending.add(layer)
    this.cells[layer].setAttribute("aria-pressed", String(this.pending.has(layer)))
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      const layers = [...this.pending].sort((one, other) => one - other)
      this.pending = null
      this.panel.changeLane(this.name, { layers })
    }, SEND_AFTER_MS)
  }

  close() {
    clearTimeout(this.timer)
    this.root.remove()
  }
}

function isFirst(parting, turn, step) {
  return parting !== null && parting.turn === turn && parting.step === step
}

function question(text, turn) {
  const box = document.createElement("div")
  box.className = "question"
  box.dataset.turn = turn
  box.textContent = text
  return box
}
