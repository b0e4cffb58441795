// A grid of layers coloured by score; where it is not read-only, each is a switch between full and streaming.
const kept = new WeakMap()
const AGAIN_AFTER_MS = 2000
const CELL_REM = 4.6

function isDark(colour) {
  const probe = document.createElement("canvas").getContext("2d")
  probe.fillStyle = colour
  const value = parseInt(probe.fillStyle.slice(1), 16)
  return ((value >> 16) & 255) * 0.3 + ((value >> 8) & 255) * 0.59 + (value & 255) * 0.11 < 128
}

function words(layer, lazy) {
  const score = layer.score === null ? "no score" : `score ${layer.score.toFixed(4)}`
  const state = layer.reason ? `not convertible: ${layer.reason}` : lazy ? "lazy" : "full"
  return `Layer ${layer.index}, ${state}, ${score}`
}

function paint(cell, layer, lazy, dark, readonly) {
  const [fill, ink] = dark ? layer.dark : layer.light
  cell.style.setProperty("--fill", fill)
  cell.style.setProperty("--ink", ink)
  cell.classList.toggle("lazy", lazy)
  cell.classList.toggle("fixed", Boolean(layer.reason))
  cell.querySelector(".state").textContent = layer.reason ? "n/a" : lazy ? "lazy" : "full"
  cell.title = words(layer, lazy)
  cell.setAttribute("aria-label", words(layer, lazy))
  if (readonly) return
  cell.setAttribute("aria-pressed", String(lazy))
  cell.setAttribute("aria-disabled", String(Boolean(layer.reason)))
}

function build(grid, layers, readonly) {
  grid.replaceChildren(
    ...layers.map((layer) => {
      const cell = document.createElement(readonly ? "div" : "button")
      if (readonly) cell.setAttribute("role", "img")
      else {
        cell.type = "button"
        cell.tabIndex = layer.index === 0 ? 0 : -1
      }
      cell.className = "cell"
      for (const [name, text] of [["index", layer.index], ["score", layer.score?.toFixed(2) ?? "–"], ["state", ""]]) {
        const part = document.createElement("span")
        part.className = name
        part.textContent = text
        cell.append(part)
      }
      return cell
    }),
  )
}

// Rows of equal length: as few rows as fit, filled evenly.
function arrange(slot, grid) {
  const wide = parseFloat(getComputedStyle(document.documentElement).fontSize) * CELL_REM
  const count = slot.layers.length
  const most = Math.max(Math.floor(grid.clientWidth / wide), 1)
  slot.columns = Math.ceil(count / Math.ceil(count / most))
  grid.style.gridTemplateColumns = `repeat(${slot.columns}, minmax(0, 1fr))`
}

function focusCell(slot, place) {
  if (place < 0 || place >= slot.cells.length) return
  slot.cells.forEach((cell, index) => (cell.tabIndex = index === place ? 0 : -1))
  slot.cells[place].focus()
}

// Says how many toggles there have been, again and again until the page says that it knows of as many: what is said while
// the connection is away is lost.
function send(slot, wait = AGAIN_AFTER_MS) {
  clearTimeout(slot.timer)
  slot.emit({ toggles: slot.toggles, layers: [...slot.lazy].sort((a, b) => a - b) })
  slot.timer = setTimeout(() => send(slot, 2 * wait), wait)
}

function count(slot) {
  slot.count.textContent = `${slot.lazy.size} lazy · ${slot.layers.length - slot.lazy.size} full`
}

function toggle(slot, place, range) {
  const wanted = !slot.lazy.has(place)
  const from = range && slot.anchor !== undefined ? slot.anchor : place
  for (let at = Math.min(from, place); at <= Math.max(from, place); at++) {
    const layer = slot.layers[at]
    if (layer.reason) continue
    if (wanted) slot.lazy.add(at)
    else slot.lazy.delete(at)
    paint(slot.cells[at], layer, slot.lazy.has(at), slot.dark, false)
  }
  slot.anchor = place
  slot.toggles += 1
  count(slot)
  send(slot)
}

function wire(slot) {
  slot.cells.forEach((cell, place) => {
    cell.onclick = (event) => {
      focusCell(slot, place)
      toggle(slot, place, event.shiftKey)
    }
    cell.onkeydown = (event) => {
      const width = slot.columns
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key]
      const end = { Home: 0, End: slot.cells.length - 1 }[event.key]
      if (step === undefined && end === undefined) return
      event.preventDefault()
      focusCell(slot, end ?? place + step)
    }
  })
}

export default function (component) {
  const { data: [data], parentElement, setTriggerValue } = component
  const grid = parentElement.querySelector(".grid")
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  slot.emit = (told) => setTriggerValue("lazy", told)
  slot.count = parentElement.querySelector(".count")
  slot.dark = isDark(getComputedStyle(grid).getPropertyValue("--st-background-color").trim())
  const shape = JSON.stringify([data.readonly, data.layers])
  if (shape !== slot.shape) {
    build(grid, data.layers, data.readonly)
    const others = slot.layers?.length !== data.layers.length
    const toggles = others ? data.toggles : Math.max(slot.toggles, data.toggles)
    Object.assign(slot, { shape, layers: data.layers, cells: [...grid.children], anchor: undefined, toggles })
    if (!data.readonly) wire(slot)
    slot.watch ??= new ResizeObserver(() => arrange(slot, grid))
    slot.watch.observe(grid)
    arrange(slot, grid)
  }
  // a page that was drawn before it heard of the last toggle does not undo it
  if (data.toggles >= slot.toggles) {
    clearTimeout(slot.timer)
    Object.assign(slot, { toggles: data.toggles, lazy: new Set(data.lazy) })
  }
  grid.setAttribute("aria-label", data.label)
  slot.cells.forEach((cell, at) => paint(cell, data.layers[at], slot.lazy.has(at), slot.dark, data.readonly))
  count(slot)
  parentElement.querySelector(".keys").hidden = data.readonly
  parentElement.querySelector(".scale").hidden = !data.range
  if (data.range) {
    parentElement.querySelector(".low").textContent = `score ${data.range[0].toFixed(2)}`
    parentElement.querySelector(".high").textContent = `${data.range[1].toFixed(2)}, laziest`
    const stops = slot.dark ? data.darkStops : data.lightStops
    parentElement.querySelector(".ramp").style.background = `linear-gradient(90deg, ${stops.join(", ")})`
  }
  return () => {
    clearTimeout(slot.timer)
    slot.watch.disconnect()
    kept.delete(parentElement)
  }
}
