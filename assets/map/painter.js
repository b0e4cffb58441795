// Draws the map, its axes, overlays and colour bar on any canvas: the one on the page, or one for a picture.
import { MASKED, decode, encode, exact, palette, positions } from "./scale.js"
import { parseView } from "./state.js"

const CURVE = { gap: 14, size: 78, mean: 44 }

// Room around the plot: at the right for the curve of what is lost, above for the mean row, where they are shown.
// `scale` is the page's own letter size over the usual one: larger in a presentation.
export function margins(state, scale) {
  const top = state.mean ? CURVE.mean + 26 : 8
  const right = state.lost ? CURVE.gap + CURVE.size + 12 : 12
  return { left: 84 * scale, top: top * scale, right: right * scale, bottom: 70 * scale }
}
const LABEL_PX = 11
const GRID_PX = 14

export function tokenLabel(text, most = 11) {
  const shown = text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·")
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown
}

export function isSigned(state) {
  return parseView(state.view).minus !== null
}

// The codes that the colours depend on: how often each occurs, with the shift that makes row maxima equal.
function histogramOf(tile, id, state, extras, sinkColumns) {
  const key = `${state.rows} ${sinkColumns}`
  if (tile.histogramKey === key) return tile.histogram
  const counts = new Float64Array(256)
  const first = id.col === 0 ? sinkColumns : 0
  const shift = rowShifts(id, state, extras)
  for (let row = 0; row < 256; row++) {
    for (let col = first; col < 256; col++) counts[shifted(tile.codes[row * 256 + col], shift?.[row])] += 1
  }
  tile.histogramKey = key
  tile.histogram = counts
  return counts
}

function shifted(code, shift) {
  return shift === undefined || code === MASKED || code === 0 ? code : Math.min(code + shift, 254)
}

function rowShifts(id, state, extras) {
  const maxima = extras.maxima
  if (!state.rows || !maxima || isSigned(state)) return null
  const total = maxima.length / 2
  const offset = state.sinks ? 0 : total
  const cell = 2 ** id.level
  return Array.from({ length: 256 }, (_, row) => {
    const start = (id.row * 256 + row) * cell
    let most = 0
    for (let at = start; at < Math.min(start + cell, total); at++) most = Math.max(most, maxima[offset + at] || 0)
    return most > 0 ? 254 - encode(most, false) : 0
  })
}

export function colours(state, viewport, source, look, extras) {
  const signed = isSigned(state)
  const total = viewport.facts.num_tokens
  const counts = new Float64Array(256)
  const stable = state.scale === "log" && state.reduce === "max"
  const levels = stable ? [viewport.facts.top_level] : [viewport.level, viewport.facts.top_level]
  for (const level of levels) {
    const sinkColumns = state.sinks ? 0 : Math.ceil(source.window.sink / 2 ** level)
    for (const id of viewport.tiles(state.view, state.reduce, level)) {
      const tile = source.tile(id)
      if (tile) histogramOf(tile, id, state, extras, sinkColumns).forEach((count, code) => (counts[code] += count))
    }
    if (counts.some((count, code) => count && code !== MASKED)) break
  }
  // below a quarter of what uniform attention would give, nothing is worth a colour
  const floor = encode(1 / (4 * total), false)
  const parts = positions({ scale: state.scale, gamma: state.gamma, histogram: counts, signed, floor })
  const stops = signed ? look.diverging : look.sequential
  return { parts, signed, floor, packed: palette(parts, stops, look.masked), key: `${parts.join()} ${look.name}` }
}

function bitmap(tile, id, state, extras, colouring) {
  const key = `${colouring.key} ${state.rows} ${state.sinks} ${Boolean(extras.maxima)}`
  if (tile.bitmapKey === key) return tile.bitmap
  tile.bitmap ??= new OffscreenCanvas(256, 256)
  const image = new ImageData(256, 256)
  const pixels = new Uint32Array(image.data.buffer)
  const shift = rowShifts(id, state, extras)
  for (let row = 0; row < 256; row++) {
    const by = shift?.[row]
    for (let at = row * 256; at < row * 256 + 256; at++) pixels[at] = colouring.packed[shifted(tile.codes[at], by)]
  }
  tile.bitmap.getContext("2d").putImageData(image, 0, 0)
  tile.bitmapKey = key
  return tile.bitmap
}

export function paint(ctx, size, state, viewport, source, look, extras) {
  const colouring = colours(state, viewport, source, look, extras)
  ctx.save()
  ctx.fillStyle = look.paper
  ctx.fillRect(0, 0, size.width, size.height)
  const { left, top } = margins(state, look.scale)
  ctx.translate(left, top)
  ctx.save()
  clipToMap(ctx, viewport)
  ctx.fillStyle = look.masked
  ctx.fillRect(0, 0, viewport.width, viewport.height)
  paintTiles(ctx, state, viewport, source, extras, colouring)
  if (viewport.scale >= GRID_PX) paintGrid(ctx, viewport, look)
  const decoded = viewport.facts.prompt_tokens
  if (state.lost) paintEvicted(ctx, viewport, source.window, look, 0)
  else if (streams(state, viewport.facts)) paintEvicted(ctx, viewport, source.window, look, decoded)
  if (decoded < viewport.facts.num_tokens) paintPromptEnd(ctx, viewport, look, decoded)
  paintMarks(ctx, state, viewport, look, extras)
  ctx.restore()
  paintAxes(ctx, viewport, look, extras.tokens)
  if (extras.lost && state.lost) paintLost(ctx, viewport, look, extras.lost)
  if (extras.mean && state.mean) paintMean(ctx, viewport, look, extras.mean)
  ctx.restore()
  return colouring
}

function clipToMap(ctx, viewport) {
  const total = viewport.facts.num_tokens
  const [left, top] = [Math.max(viewport.x(0), 0), Math.max(viewport.y(0), 0)]
  const [right, bottom] = [Math.min(viewport.x(total), viewport.width), Math.min(viewport.y(total), viewport.height)]
  ctx.beginPath()
  ctx.rect(left, top, right - left, bottom - top)
  ctx.clip()
}

function paintTiles(ctx, state, viewport, source, extras, colouring) {
  ctx.imageSmoothingEnabled = false
  for (let level = viewport.facts.top_level; level >= viewport.level; level--) {
    const span = viewport.facts.tile * 2 ** level
    for (const id of viewport.tiles(state.view, state.reduce, level)) {
      const tile = source.tile(id)
      if (!tile) continue
      const side = span * viewport.scale
      const [x, y] = [viewport.x(id.col * span), viewport.y(id.row * span)]
      ctx.drawImage(bitmap(tile, id, state, extras, colouring), x, y, side, side)
    }
  }
}

function paintGrid(ctx, viewport, look) {
  ctx.strokeStyle = look.grid
  ctx.lineWidth = 0.5
  ctx.beginPath()
  for (let key = viewport.cols[0]; key <= viewport.cols[1]; key++) {
    ctx.moveTo(viewport.x(key), 0)
    ctx.lineTo(viewport.x(key), viewport.height)
  }
  for (let query = viewport.rows[0]; query <= viewport.rows[1]; query++) {
    ctx.moveTo(0, viewport.y(query))
    ctx.lineTo(viewport.width, viewport.y(query))
  }
  ctx.stroke()
}

// Whether the shown layer streamed while it decoded.
export function streams(state, facts) {
  const { source, minus } = parseView(state.view)
  return minus === null && source[0] !== null && facts.streaming.includes(source[0])
}

function paintPromptEnd(ctx, viewport, look, decoded) {
  ctx.strokeStyle = look.mark
  ctx.lineWidth = 1
  ctx.setLineDash([5, 4])
  line(ctx, 0, viewport.y(decoded), viewport.width, viewport.y(decoded))
  line(ctx, viewport.x(decoded), 0, viewport.x(decoded), viewport.height)
  ctx.setLineDash([])
}

// The keys that a streaming layer no longer sees: from the sinks up to `recent` tokens before the query.
function paintEvicted(ctx, viewport, window, look, from) {
  const { sink, recent } = window
  const [first, last] = [Math.max(viewport.rows[0], sink + recent, from), viewport.rows[1]]
  if (first >= last) return
  ctx.beginPath()
  ctx.moveTo(viewport.x(sink), viewport.y(first))
  if (viewport.scale >= 3) {
    for (let query = first; query < last; query++) {
      ctx.lineTo(viewport.x(query - recent + 1), viewport.y(query))
      ctx.lineTo(viewport.x(query - recent + 1), viewport.y(query + 1))
    }
  } else {
    ctx.lineTo(viewport.x(first - recent + 1), viewport.y(first))
    ctx.lineTo(viewport.x(last - recent + 1), viewport.y(last))
  }
  ctx.lineTo(viewport.x(sink), viewport.y(last))
  ctx.closePath()
  ctx.fillStyle = hatch(ctx, look.evicted)
  ctx.fill()
  ctx.strokeStyle = look.evicted
  ctx.lineWidth = 1.5
  ctx.stroke()
}

function hatch(ctx, colour) {
  const cell = new OffscreenCanvas(8, 8)
  const inner = cell.getContext("2d")
  inner.strokeStyle = colour
  inner.lineWidth = 1.2
  inner.beginPath()
  for (const shift of [-8, 0, 8]) {
    inner.moveTo(shift, 8)
    inner.lineTo(shift + 8, 0)
  }
  inner.stroke()
  return ctx.createPattern(cell, "repeat")
}

function paintMarks(ctx, state, viewport, look, extras) {
  ctx.strokeStyle = look.mark
  ctx.lineWidth = 1.5
  const thick = Math.max(viewport.scale, 2)
  if (state.query !== null) ctx.strokeRect(-2, viewport.y(state.query), viewport.width + 4, thick)
  if (state.key !== null) ctx.strokeRect(viewport.x(state.key), -2, thick, viewport.height + 4)
  const hover = extras.hover
  if (!hover) return
  const cell = 2 ** hover.level
  const side = Math.max(cell * viewport.scale, 3)
  ctx.strokeStyle = look.ink
  ctx.strokeRect(viewport.x(hover.col * cell), viewport.y(hover.row * cell), side, side)
}

function paintAxes(ctx, viewport, look, tokens) {
  const { width, height } = viewport
  ctx.strokeStyle = look.line
  ctx.lineWidth = 1
  ctx.strokeRect(-0.5, -0.5, width + 1, height + 1)
  ctx.fillStyle = look.ink
  ctx.font = `${LABEL_PX * look.scale}px ${look.font}`
  const named = viewport.scale >= LABEL_PX * look.scale + 1
  for (const query of named ? each(viewport.rows) : ticks(viewport.rows, viewport.scale, 40 * look.scale)) {
    const y = viewport.y(query) + (named ? viewport.scale / 2 : 0)
    if (y < 0 || y > height) continue
    ctx.textAlign = "right"
    ctx.textBaseline = "middle"
    ctx.fillText(named ? tokenLabel(tokens?.[query] ?? String(query)) : query.toLocaleString("en-US"), -7, y)
    if (!named) line(ctx, -4, y, 0, y)
  }
  for (const key of named ? each(viewport.cols) : ticks(viewport.cols, viewport.scale, 70 * look.scale)) {
    const x = viewport.x(key) + (named ? viewport.scale / 2 : 0)
    if (x < 0 || x > width) continue
    ctx.save()
    ctx.translate(x, height + 7)
    if (named) {
      ctx.rotate(-Math.PI / 3)
      ctx.textAlign = "right"
      ctx.textBaseline = "middle"
    } else {
      ctx.textAlign = "center"
      ctx.textBaseline = "top"
    }
    ctx.fillText(named ? tokenLabel(tokens?.[key] ?? String(key), 9) : key.toLocaleString("en-US"), 0, 0)
    ctx.restore()
    if (!named) line(ctx, x, height, x, height + 4)
  }
  ctx.textAlign = "center"
  ctx.textBaseline = "bottom"
  ctx.fillText("Key: the token attended to", width / 2, height + 68 * look.scale)
  ctx.save()
  ctx.translate(-72 * look.scale, height / 2)
  ctx.rotate(-Math.PI / 2)
  ctx.textBaseline = "middle"
  ctx.fillText("Query: the token that attends", 0, 0)
  ctx.restore()
}

function line(ctx, x0, y0, x1, y1) {
  ctx.beginPath()
  ctx.moveTo(x0, y0)
  ctx.lineTo(x1, y1)
  ctx.stroke()
}

function* each([start, stop]) {
  for (let at = start; at < stop; at++) yield at
}

function* ticks([start, stop], scale, apart) {
  const least = apart / scale
  const power = 10 ** Math.floor(Math.log10(least))
  const step = Math.max([1, 2, 5, 10].map((times) => times * power).find((size) => size >= least), 1)
  for (let at = Math.ceil(start / step) * step; at < stop; at += step) yield at
}

// The share of each query's attention that the window would drop, along the side; the largest of each pixel's rows.
function paintLost(ctx, viewport, look, lost) {
  const x0 = viewport.width + CURVE.gap * look.scale
  const size = CURVE.size * look.scale
  ctx.save()
  ctx.strokeStyle = look.line
  ctx.strokeRect(x0 - 0.5, -0.5, size + 1, viewport.height + 1)
  ctx.fillStyle = look.evicted
  for (let y = 0; y < viewport.height; y++) {
    const from = Math.floor(viewport.top + y / viewport.scale)
    const to = Math.max(Math.floor(viewport.top + (y + 1) / viewport.scale), from + 1)
    let most = 0
    for (let at = Math.max(from, 0); at < Math.min(to, lost.length); at++) most = Math.max(most, lost[at])
    if (most > 0) ctx.fillRect(x0, y, Math.max(most * size, 0.5), 1)
  }
  ctx.fillStyle = look.ink
  ctx.textBaseline = "top"
  for (const [share, align] of [[0, "left"], [1, "right"]]) {
    ctx.textAlign = align
    ctx.fillText(`${share * 100}%`, x0 + share * size, viewport.height + 7)
  }
  ctx.textAlign = "center"
  ctx.textBaseline = "bottom"
  ctx.fillText("Mass lost", x0 + size / 2, viewport.height + 34 * look.scale)
  ctx.restore()
}

// The weight that each key gets on average from the rows in view; the largest of each pixel's keys, sinks set apart.
function paintMean(ctx, viewport, look, { values, rows }) {
  const [first, last] = viewport.cols
  const pixels = Array.from({ length: Math.ceil(viewport.width) }, (_, x) => {
    const from = Math.floor(viewport.left + x / viewport.scale)
    const to = Math.max(Math.floor(viewport.left + (x + 1) / viewport.scale), from + 1)
    let most = 0
    for (let at = Math.max(from, 0); at < Math.min(to, values.length); at++) most = Math.max(most, Math.abs(values[at]))
    return most
  })
  let top = 0
  for (let key = Math.max(first, 1); key < last; key++) top = Math.max(top, Math.abs(values[key]))
  ctx.save()
  ctx.fillStyle = look.strong
  const base = -6
  const tall = CURVE.mean * look.scale
  pixels.forEach((value, x) => {
    const height = top ? Math.min(value / top, 1) * tall : 0
    if (height > 0) ctx.fillRect(x, base - height, 1, height)
  })
  ctx.strokeStyle = look.line
  line(ctx, 0, base + 0.5, viewport.width, base + 0.5)
  ctx.fillStyle = look.ink
  ctx.textAlign = "right"
  ctx.textBaseline = "top"
  ctx.fillText(exact(top), -7, base - tall)
  ctx.textAlign = "left"
  ctx.textBaseline = "bottom"
  const range = `${rows[0].toLocaleString("en-US")} to ${(rows[1] - 1).toLocaleString("en-US")}`
  ctx.fillText(`Mean of rows ${range}, the first key out of the scale`, 0, base - tall - 4)
  ctx.restore()
}

// A colour bar along the logarithm of the probability, with the codes' own colours.
export function paintBar(ctx, x, y, width, height, colouring, look) {
  const [first, last] = colouring.signed ? [1, 253] : [Math.max(colouring.floor - 12, 1), 254]
  for (let px = 0; px < width; px++) {
    const code = Math.round(first + (px / (width - 1)) * (last - first))
    const packed = colouring.packed[code]
    ctx.fillStyle = `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`
    ctx.fillRect(x + px, y, 1, height)
  }
  ctx.strokeStyle = look.line
  ctx.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1)
  ctx.fillStyle = look.ink
  ctx.font = `${LABEL_PX * look.scale}px ${look.font}`
  ctx.textBaseline = "top"
  ctx.textAlign = "center"
  const marks = colouring.signed ? [-1, -1e-2, -1e-4, 0, 1e-4, 1e-2, 1] : [1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
  for (const value of marks) {
    const code = encode(value, colouring.signed)
    if (code < first || code > last) continue
    const at = x + ((code - first) / (last - first)) * (width - 1)
    line(ctx, at, y + height, at, y + height + 3)
    ctx.fillText(barLabel(value), Math.min(Math.max(at, x + 8), x + width - 6), y + height + 5)
  }
}

function barLabel(value) {
  const size = Math.abs(value)
  const text = size === 0 || size >= 0.01 ? String(size) : `1e${Math.round(Math.log10(size))}`
  return value < 0 ? `−${text}` : text
}

export function codeAt(state, viewport, source, pair) {
  for (let level = viewport.level; level <= viewport.facts.top_level; level++) {
    const span = viewport.facts.tile * 2 ** level
    const [row, col] = [Math.floor(pair.query / span), Math.floor(pair.key / span)]
    const id = viewport.tiles(state.view, state.reduce, level).find((tile) => tile.row === row && tile.col === col)
    const tile = id && source.tile(id)
    if (!tile) continue
    const cell = 2 ** level
    const code = tile.codes[(Math.floor(pair.query / cell) % 256) * 256 + (Math.floor(pair.key / cell) % 256)]
    return { level, code, value: decode(code, isSigned(state)) }
  }
  return null
}
