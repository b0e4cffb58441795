// Three small live charts of a comparison, drawn as SVG: KL per token, latency per token, KV bytes per layer.
const SVG = "http://www.w3.org/2000/svg"
const WIDTH = 320
const HEIGHT = 96
const LEFT = 4

function node(name, attributes) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

function canvasOf(box) {
  let svg = box.querySelector("svg")
  if (!svg) {
    svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" })
    box.append(svg)
  }
  svg.replaceChildren(node("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5, class: "base" }))
  return svg
}

const across = (index, count) => LEFT + ((index + 0.5) * (WIDTH - 2 * LEFT)) / Math.max(count, 1)
const up = (value, top) => HEIGHT - 1 - (top > 0 ? (value / top) * (HEIGHT - 8) : 0)

function drawBars(box, values, total, classOf) {
  const svg = canvasOf(box)
  const top = Math.max(...values, 0)
  const width = Math.max(((WIDTH - 2 * LEFT) / Math.max(total, 1)) * 0.75, 0.75)
  values.forEach((value, index) => {
    const y = up(value, top)
    const x = across(index, total) - width / 2
    svg.append(node("rect", { x, y, width, height: HEIGHT - 1 - y, class: classOf(index) }))
  })
  return { svg, top, width }
}

const nameTop = (box, text) => (box.querySelector(".top").textContent = text)

function drawKl(box, state) {
  const { top } = drawBars(box, state.kl, state.total, () => "b")
  nameTop(box, `top ${top.toFixed(3)} nats`)
  if (state.divergence !== null) {
    const x = across(state.divergence, state.total)
    box.querySelector("svg").append(node("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "parting" }))
  }
}

function drawLatency(box, state) {
  const svg = canvasOf(box)
  const top = Math.max(...state.latency.a.slice(1), ...state.latency.b.slice(1), 0)
  nameTop(box, `top ${(top * 1000).toFixed(0)} ms`)
  for (const lane of ["a", "b"]) {
    const points = state.latency[lane].slice(1).map((value, index) => `${across(index + 1, state.total)},${up(value, top)}`)
    svg.append(node("polyline", { points: points.join(" "), class: `trace ${lane}` }))
  }
}

function drawKv(box, state) {
  const lazy = new Set(state.lazy)
  const { svg, top, width } = drawBars(box, state.kv.b, state.kv.b.length, (index) => (lazy.has(index) ? "lazy" : "full"))
  nameTop(box, `top ${bytesText(top)}`)
  state.formula.b.forEach((value, index) => {
    const x = across(index, state.kv.b.length)
    const y = Math.max(up(value, top), 1)
    svg.append(node("line", { x1: x - width, x2: x + width, y1: y, y2: y, class: "formula" }))
  })
}
