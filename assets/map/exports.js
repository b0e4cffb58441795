// The view to take away: a picture for a paper, the exact numbers, or a page that needs no server.
import { paint, paintBar, tokenLabel } from "./painter.js"
import { FONT, save } from "./save.js"
import { SvgContext } from "./svg.js"

const HEAD_PX = 44
const FOOT_PX = 34
const PNG_SCALE = 3

export async function exportView(form, panel) {
  const name = fileName(panel)
  if (form === "png") save(`${name}.png`, await png(panel))
  else if (form === "svg") save(`${name}.svg`, new Blob([svg(panel)], { type: "image/svg+xml" }))
  else if (form === "html") save(`${name}.html`, new Blob([page(panel)], { type: "text/html" }))
  else save(`${name}.${form}`, await rectangle(panel, form))
}

function fileName({ explorer, viewport, state }) {
  const { rows, cols } = viewport
  const view = state.view.replaceAll("*", "mean")
  return `attention_${explorer.data.name.replace(/[^\w.-]+/g, "-")}_${view}_q${rows[0]}-${rows[1] - 1}_k${cols[0]}-${cols[1] - 1}`
}

function picture(ctx, panel, width, height) {
  const { explorer, state, viewport, extras } = panel
  const look = { ...explorer.look, font: FONT }
  ctx.fillStyle = look.paper
  ctx.fillRect(0, 0, width, height + HEAD_PX + FOOT_PX)
  ctx.save()
  ctx.translate(0, HEAD_PX)
  const colouring = paint(ctx, { width, height }, state, viewport, explorer.source, look, { ...extras, hover: null })
  ctx.restore()
  ctx.fillStyle = look.ink
  ctx.textAlign = "left"
  ctx.textBaseline = "top"
  const cell = 2 ** viewport.level
  const of = cell > 1 ? `the ${state.reduce === "max" ? "maximum" : "mean"} of ${cell} × ${cell} token pairs` : "a token pair"
  fitted(ctx, `Attention weights, ${explorer.title}`, 13, 7, width)
  fitted(ctx, `Each cell: ${of}`, 11, 25, width)
  paintBar(ctx, 84 * look.scale, height + HEAD_PX + 4, 300, 10, colouring, { ...look, scale: 1 })
}

// A line of text, smaller where it would leave the picture.
function fitted(ctx, text, px, y, width) {
  const ruler = document.createElement("canvas").getContext("2d")
  ruler.font = `${px}px ${FONT}`
  ctx.font = `${Math.min(px, (px * (width - 20)) / ruler.measureText(text).width)}px ${FONT}`
  ctx.fillText(text, 10, y)
}

function size(panel) {
  return [panel.canvas.clientWidth, panel.canvas.clientHeight]
}

function png(panel) {
  const [width, height] = size(panel)
  const canvas = document.createElement("canvas")
  canvas.width = width * PNG_SCALE
  canvas.height = (height + HEAD_PX + FOOT_PX) * PNG_SCALE
  const ctx = canvas.getContext("2d")
  ctx.scale(PNG_SCALE, PNG_SCALE)
  picture(ctx, panel, width, height)
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"))
}

function svg(panel) {
  const [width, height] = size(panel)
  const ctx = new SvgContext(width, height + HEAD_PX + FOOT_PX)
  picture(ctx, panel, width, height)
  return ctx.toString()
}

// The visible cells, as half-open ranges of the level's grid.
function visible({ viewport }) {
  const cell = 2 ** viewport.level
  const cells = ([start, stop]) => [Math.floor(start / cell), Math.ceil(stop / cell)]
  return { cell, rows: cells(viewport.rows), cols: cells(viewport.cols) }
}

async function rectangle(panel, form) {
  const { state, viewport, explorer } = panel
  const { rows, cols } = visible(panel)
  const query = { view: state.view, reduce: state.reduce, level: viewport.level, form }
  const place = { top: rows[0], bottom: rows[1], left: cols[0], right: cols[1] }
  return (await explorer.source.fetch("rectangle", { ...query, ...place })).blob()
}

// The codes on screen in one matrix; a tile that has not come yet is masked.
function codes(panel) {
  const { state, viewport, explorer } = panel
  const { rows, cols } = visible(panel)
  const [height, width] = [rows[1] - rows[0], cols[1] - cols[0]]
  const out = new Uint8Array(height * width).fill(255)
  for (const id of viewport.tiles(state.view, state.reduce, viewport.level)) {
    const tile = explorer.source.tile(id)
    if (!tile) continue
    const from = [Math.max(rows[0], id.row * 256), Math.max(cols[0], id.col * 256)]
    const to = [Math.min(rows[1], id.row * 256 + 256), Math.min(cols[1], id.col * 256 + 256)]
    for (let row = from[0]; row < to[0]; row++) {
      const start = (row - id.row * 256) * 256
      const part = tile.codes.subarray(start + from[1] - id.col * 256, start + to[1] - id.col * 256)
      out.set(part, (row - rows[0]) * width + from[1] - cols[0])
    }
  }
  return { out, width, height }
}

function base64(bytes) {
  let text = ""
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return btoa(text)
}

function page(panel) {
  const { explorer, state, viewport, colouring } = panel
  const { cell, rows, cols } = visible(panel)
  const { out, width, height } = codes(panel)
  const texts = ([start, stop]) => explorer.tokens.slice(start * cell, stop * cell).map((token) => tokenLabel(token, 24))
  const data = {
    title: `Attention weights, ${explorer.title}`,
    cell, width, height, top: rows[0], left: cols[0], signed: colouring.signed,
    reduce: state.reduce === "max" ? "maximum" : "mean",
    codes: base64(out),
    colours: [...colouring.packed],
    queries: cell === 1 ? texts(rows) : [],
    keys: cell === 1 ? texts(cols) : [],
    total: viewport.facts.num_tokens,
  }
  return STANDALONE.replace("__DATA__", () => JSON.stringify(data).replaceAll("<", "\\u003c"))
}

const STANDALONE = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Attention weights</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #1b1f27; background: #fff; }
canvas { image-rendering: pixelated; border: 1px solid #9aa1ad; cursor: crosshair; max-width: 100%; }
#read { min-height: 3em; font-variant-numeric: tabular-nums; }
</style>
<h1 style="font-size:1.2rem"></h1><p id="what"></p><canvas tabindex="0"></canvas><p id="read">Move over the map.</p>
<script type="application/json" id="data">__DATA__</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent)
const codes = Uint8Array.from(atob(data.codes), (letter) => letter.charCodeAt(0))
const canvas = document.querySelector("canvas")
canvas.width = data.width; canvas.height = data.height
const zoom = Math.max(1, Math.floor(900 / Math.max(data.width, data.height)))
canvas.style.width = data.width * zoom + "px"
const image = new ImageData(data.width, data.height)
const pixels = new Uint32Array(image.data.buffer)
codes.forEach((code, at) => (pixels[at] = data.colours[code]))
canvas.getContext("2d").putImageData(image, 0, 0)
document.querySelector("h1").textContent = document.title = data.title
document.getElementById("what").textContent = data.cell === 1 ? "Rows are queries, columns keys; each cell is a token pair."
  : "Rows are queries, columns keys; each cell is the " + data.reduce + " of " + data.cell + " x " + data.cell + " token pairs."
function value(code) {
  if (!data.signed) return code === 0 ? 0 : 2 ** ((code - 254) * 24 / 253)
  const steps = code - 127
  return steps === 0 ? 0 : Math.sign(steps) * 2 ** ((Math.abs(steps) - 127) * 24 / 126)
}
canvas.onmousemove = (event) => {
  const box = canvas.getBoundingClientRect()
  const col = Math.floor((event.clientX - box.left) / box.width * data.width)
  const row = Math.floor((event.clientY - box.top) / box.height * data.height)
  const code = codes[row * data.width + col]
  const place = (at, start, texts) => (start + at) * data.cell + (texts[at] ? " “" + texts[at] + "”" : "")
  document.getElementById("read").textContent = code === undefined || code === 255 ? "Not seen by the query."
    : "Query " + place(row, data.top, data.queries) + ", key " + place(col, data.left, data.keys) + ": about " +
      value(code).toPrecision(2) + " (stored to " + (data.signed ? "7" : "3.5") + "%)"
}
</script></html>`
