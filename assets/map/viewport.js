// Where the map is looked at: tokens to pixels and back, levels and the tiles that are needed. Pure arithmetic.
import { tileId } from "./source.js"

const LEAST_CELL_PX = 1.4
const LARGEST_TOKEN_PX = 48

export class Viewport {
  constructor(facts) {
    this.facts = facts
    this.left = 0
    this.top = 0
    this.scale = 1 // pixels a token
    this.width = this.height = 1
  }

  resize(width, height) {
    const box = this.box()
    const whole = this.width === 1 || this.isWhole
    this.width = Math.max(width, 50)
    this.height = Math.max(height, 50)
    if (whole) this.whole()
    else this.show(box)
  }

  get least() {
    return Math.min(this.width, this.height) / this.facts.num_tokens
  }

  whole() {
    this.scale = this.least
    this.left = this.top = 0
    this.clamp()
  }

  get isWhole() {
    return this.scale <= this.least * 1.0001
  }

  // [first query, first key, tokens along the shorter side]
  box() {
    return [this.top, this.left, Math.min(this.width, this.height) / this.scale]
  }

  show([top, left, span]) {
    this.scale = Math.min(this.width, this.height) / span
    this.top = top
    this.left = left
    this.clamp()
  }

  clamp() {
    const total = this.facts.num_tokens
    this.scale = Math.min(Math.max(this.scale, this.least), Math.max(LARGEST_TOKEN_PX, this.least))
    const inside = (start, span) => (span >= total ? (total - span) / 2 : Math.min(Math.max(start, 0), total - span))
    this.left = this.width / this.scale >= total ? 0 : inside(this.left, this.width / this.scale)
    this.top = this.height / this.scale >= total ? 0 : inside(this.top, this.height / this.scale)
  }

  zoom(factor, x, y) {
    const [key, query] = [this.left + x / this.scale, this.top + y / this.scale]
    this.scale *= factor
    this.clamp()
    this.left = key - x / this.scale
    this.top = query - y / this.scale
    this.clamp()
  }

  pan(dx, dy) {
    this.left += dx / this.scale
    this.top += dy / this.scale
    this.clamp()
  }

  centre(query, key) {
    this.top = query - this.height / this.scale / 2
    this.left = key - this.width / this.scale / 2
    this.clamp()
  }

  x(key) {
    return (key - this.left) * this.scale
  }

  y(query) {
    return (query - this.top) * this.scale
  }

  // The token pair under a pixel, or null outside the prompt and above the diagonal.
  at(x, y) {
    const [key, query] = [Math.floor(this.left + x / this.scale), Math.floor(this.top + y / this.scale)]
    const inside = key >= 0 && query >= 0 && query < this.facts.num_tokens && key < this.facts.num_tokens
    return inside ? { query, key } : null
  }

  get level() {
    const finest = Math.ceil(Math.log2(LEAST_CELL_PX / (this.scale * (window.devicePixelRatio || 1))))
    return Math.min(Math.max(finest, 0), this.facts.top_level)
  }

  // Half-open ranges of tokens on screen.
  get rows() {
    return this.range(this.top, this.height)
  }

  get cols() {
    return this.range(this.left, this.width)
  }

  range(start, pixels) {
    const total = this.facts.num_tokens
    return [Math.max(Math.floor(start), 0), Math.min(Math.ceil(start + pixels / this.scale), total)]
  }

  // The tiles of a level on screen, nearest to the middle first; none lies wholly above the diagonal.
  tiles(view, reduce, level) {
    const span = this.facts.tile * 2 ** level
    const [rows, cols] = [this.rows, this.cols].map(([start, stop]) => [Math.floor(start / span), Math.ceil(stop / span)])
    const found = []
    for (let row = rows[0]; row < rows[1]; row++) {
      for (let col = cols[0]; col < Math.min(cols[1], row + 1); col++) found.push(tileId(view, reduce, level, row, col))
    }
    const middle = [this.top + this.height / this.scale / 2, this.left + this.width / this.scale / 2]
    const away = ({ row, col }) => Math.hypot((row + 0.5) * span - middle[0], (col + 0.5) * span - middle[1])
    return found.sort((a, b) => away(a) - away(b))
  }

  // Coarse first, so that something true is on screen at once.
  needed(view, reduce) {
    const { level } = this
    const coarse = level < this.facts.top_level ? this.tiles(view, reduce, this.facts.top_level) : []
    const middle = level + 2 < this.facts.top_level ? this.tiles(view, reduce, level + 2) : []
    return [...coarse, ...middle, ...this.tiles(view, reduce, level)]
  }
}
