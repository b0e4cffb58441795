// The attention explorer: holds the state, hands it to the three panels, and tells the page what the address should say.
import { HeadsPanel } from "./heads.js"
import { MapPanel } from "./map.js"
import { MapGone, Source } from "./source.js"
import { formatState, formatView, parseState, parseView, viewName } from "./state.js"
import { TextPanel } from "./text.js"

const TELL_AFTER_MS = 500

export class View {
  constructor(root, emit) {
    this.root = root
    this.emit = emit
    this.told = null
    this.fields = Object.fromEntries(
      [...root.querySelectorAll("[data-field]")].map((element) => [element.dataset.field, element]),
    )
    this.wireTabs()
    this.wireSources()
  }

  update(data) {
    const fresh = this.data?.token !== data.token || this.data?.lane !== data.lane
    const moved = data.state !== this.told && data.state !== this.data?.state
    this.data = data
    this.look = readLook(this.root, data)
    if (fresh || moved) this.restore(data.state)
    if (fresh) this.connect()
    else {
      this.source.window = { ...data.window }
      if (moved && this.facts) this.checkState()
      this.changed()
    }
  }

  restore(text) {
    const { state, refused } = parseState(text ?? "")
    this.state = state
    this.told = text ?? ""
    this.refused = refused
  }

  async connect() {
    this.panels?.forEach((panel) => panel.close())
    this.panels = []
    const source = new Source(this.data.token, this.data.lane, this.data.window)
    this.source = source
    source.onTrouble = (error) => this.trouble(error)
    try {
      const [facts, tokens] = await Promise.all([source.json(""), source.json("tokens")])
      if (source !== this.source) return
      this.facts = facts
      this.tokens = tokens
    } catch (error) {
      this.trouble(error)
      return
    }
    this.checkState()
    this.fillSources()
    this.panels = [new MapPanel(this), new HeadsPanel(this), new TextPanel(this)]
    this.changed()
  }

  // A change of what is shown: every panel draws what concerns it, and the address follows.
  set(changes) {
    Object.assign(this.state, changes)
    this.changed()
  }

  changed() {
    if (!this.panels?.length) return
    this.showTab()
    this.showSources()
    for (const panel of this.panels) if (panel.name === this.state.tab) panel.draw()
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.tell(), TELL_AFTER_MS)
  }

  tell() {
    const text = formatState(this.state)
    if (text === this.told) return
    this.told = text
    this.emit("state", text)
  }

  // What an address asks for and this prompt does not have gives way to the default, and is said.
  checkState() {
    const { num_layers: layers, num_heads: heads, num_tokens: total } = this.facts
    const { source, minus } = parseView(this.state.view)
    const exists = ([layer, head]) => (layer ?? 0) < layers && (head ?? 0) < heads
    if (![source, ...(minus ? [minus] : [])].every(exists)) {
      this.refused.push(`view.${this.state.view}`)
      this.state.view = "0.0"
    }
    for (const name of ["query", "key"]) {
      if (this.state[name] !== null && this.state[name] >= total) {
        this.refused.push(`${name}.${this.state[name]}`)
        this.state[name] = null
      }
    }
    if (this.refused.length) {
      this.say(`The address asks for “${this.refused.join(", ").slice(0, 80)}”, which does not exist here; the default is shown.`)
    }
  }

  say(text) {
    const notice = this.root.querySelector(".notice")
    notice.hidden = !text
    notice.textContent = text
  }

  // What holds for the view that is shown, until the next one.
  note(text) {
    const line = this.root.querySelector(".note")
    line.hidden = !text
    line.textContent = text
  }

  trouble(error) {
    this.say(error.message)
    if (error instanceof MapGone) this.emit("gone", this.data.token)
  }

  step(what, by) {
    const view = parseView(this.state.view)
    const place = what === "layer" ? 0 : 1
    const count = what === "layer" ? this.facts.num_layers : this.facts.num_heads
    const at = view.source[place]
    view.source[place] = at === null ? 0 : (at + by + count) % count
    this.set({ view: formatView(view) })
  }

  get title() {
    return `${viewName(this.state.view)}, ${this.data.name}`
  }

  wireTabs() {
    for (const tab of this.root.querySelectorAll("[data-tab]")) {
      tab.onclick = () => this.set({ tab: tab.dataset.tab })
      tab.onkeydown = (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
        if (!step) return
        const tabs = [...this.root.querySelectorAll("[data-tab]")]
        const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]
        next.focus()
        next.click()
      }
    }
  }

  showTab() {
    for (const tab of this.root.querySelectorAll("[data-tab]")) {
      const chosen = tab.dataset.tab === this.state.tab
      tab.setAttribute("aria-selected", String(chosen))
      tab.tabIndex = chosen ? 0 : -1
    }
    for (const panel of this.root.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== this.state.tab
  }

  wireSources() {
    const { layer, head, subtract, minusLayer, minusHead } = this.fields
    const read = (select) => (select.value === "*" ? null : Number(select.value))
    const choose = () => {
      const minus = subtract.checked ? [read(minusLayer), read(minusHead)] : null
      this.set({ view: formatView({ source: [read(layer), read(head)], minus }) })
    }
    for (const field of [layer, head, subtract, minusLayer, minusHead]) field.onchange = choose
  }

  fillSources() {
    const options = (count, all) => [
      ...Array.from({ length: count }, (_, value) => new Option(String(value), String(value))),
      new Option(all, "*"),
    ]
    const { num_layers: layers, num_heads: heads } = this.facts
    for (const name of ["layer", "minusLayer"]) this.fields[name].replaceChildren(...options(layers, "mean of all"))
    for (const name of ["head", "minusHead"]) this.fields[name].replaceChildren(...options(heads, "mean of all"))
  }

  showSources() {
    const { source, minus } = parseView(this.state.view)
    const write = (name, value) => (this.fields[name].value = value === null ? "*" : String(value))
    write("layer", source[0])
    write("head", source[1])
    this.fields.subtract.checked = minus !== null
    this.root.querySelector(".minus").hidden = minus === null
    if (minus) {
      write("minusLayer", minus[0])
      write("minusHead", minus[1])
    }
  }

  close() {
    clearTimeout(this.timer)
    this.panels?.forEach((panel) => panel.close())
  }
}

function isDark(colour) {
  const probe = document.createElement("canvas").getContext("2d")
  probe.fillStyle = colour
  const value = parseInt(probe.fillStyle.slice(1), 16)
  return ((value >> 16) & 255) * 0.3 + ((value >> 8) & 255) * 0.59 + (value & 255) * 0.11 < 128
}

function readLook(root, data) {
  const style = getComputedStyle(root)
  const read = (name) => style.getPropertyValue(name).trim()
  const dark = isDark(read("--st-background-color"))
  return { ...data.looks[dark ? "dark" : "light"], ink: read("--st-text-color"), paper: read("--st-background-color"),
    line: read("--st-border-color"), mark: read("--st-primary-color"), font: style.fontFamily,
    scale: parseFloat(getComputedStyle(document.documentElement).fontSize) / 16 }
}
