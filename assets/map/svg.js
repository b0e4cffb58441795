// A drawing context that writes SVG: the subset of the canvas interface that the painter uses, text staying text.

const escape = (text) => text.replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter])
const short = (value) => String(Math.round(value * 100) / 100)

export class SvgContext {
  constructor(width, height) {
    this.size = [width, height]
    this.out = []
    this.definitions = []
    this.stack = []
    this.open = 0
    this.dash = ""
    this.state = { fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, font: "11px sans-serif", textAlign: "left", textBaseline: "alphabetic" }
    for (const name of Object.keys(this.state)) {
      Object.defineProperty(this, name, { get: () => this.state[name], set: (value) => (this.state[name] = value) })
    }
    this.beginPath()
  }

  group(attributes) {
    this.out.push(`<g ${attributes}>`)
    this.open += 1
  }

  save() {
    this.stack.push([{ ...this.state }, this.open])
  }

  restore() {
    const [state, open] = this.stack.pop()
    while (this.open > open) {
      this.out.push("</g>")
      this.open -= 1
    }
    Object.assign(this.state, state)
  }

  translate(x, y) {
    this.group(`transform="translate(${short(x)} ${short(y)})"`)
  }

  rotate(angle) {
    this.group(`transform="rotate(${short((angle * 180) / Math.PI)})"`)
  }

  setLineDash(dashes) {
    this.dash = dashes.length ? ` stroke-dasharray="${dashes.join(" ")}"` : ""
  }

  beginPath() {
    this.path = ""
  }

  moveTo(x, y) {
    this.path += `M${short(x)} ${short(y)}`
  }

  lineTo(x, y) {
    this.path += `L${short(x)} ${short(y)}`
  }

  closePath() {
    this.path += "Z"
  }

  rect(x, y, width, height) {
    this.path += `M${short(x)} ${short(y)}h${short(width)}v${short(height)}h${short(-width)}Z`
  }

  clip() {
    const id = this.define(`<clipPath id="ID"><path d="${this.path}"/></clipPath>`)
    this.group(`clip-path="url(#${id})"`)
  }

  define(text) {
    const id = `d${this.definitions.length}`
    this.definitions.push(text.replace("ID", id))
    return id
  }

  stroke() {
    this.out.push(`<path d="${this.path}" fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}"${this.dash}/>`)
  }

  fill() {
    this.out.push(`<path d="${this.path}" fill="${this.fillStyle}"/>`)
  }

  fillRect(x, y, width, height) {
    this.out.push(`<rect x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}" fill="${this.fillStyle}"/>`)
  }

  strokeRect(x, y, width, height) {
    this.out.push(
      `<rect x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}" fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}"/>`,
    )
  }

  fillText(text, x, y) {
    const anchor = { left: "start", right: "end", center: "middle" }[this.textAlign]
    const baseline = { top: "hanging", middle: "central", bottom: "text-after-edge", alphabetic: "auto" }[this.textBaseline]
    const [, size, family] = this.font.match(/([\d.]+)px (.*)/)
    this.out.push(
      `<text x="${short(x)}" y="${short(y)}" text-anchor="${anchor}" dominant-baseline="${baseline}" font-size="${size}" font-family="${escape(family)}" fill="${this.fillStyle}">${escape(text)}</text>`,
    )
  }

  drawImage(bitmap, x, y, width, height) {
    const copy = document.createElement("canvas")
    copy.width = bitmap.width
    copy.height = bitmap.height
    copy.getContext("2d").drawImage(bitmap, 0, 0)
    this.out.push(
      `<image x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${copy.toDataURL("image/png")}"/>`,
    )
  }

  createPattern(cell) {
    const copy = document.createElement("canvas")
    copy.width = cell.width
    copy.height = cell.height
    copy.getContext("2d").drawImage(cell, 0, 0)
    const size = `width="${cell.width}" height="${cell.height}"`
    const image = `<image ${size} href="${copy.toDataURL("image/png")}"/>`
    return `url(#${this.define(`<pattern id="ID" patternUnits="userSpaceOnUse" ${size}>${image}</pattern>`)})`
  }

  toString() {
    const [width, height] = this.size
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><defs>${this.definitions.join("")}</defs>${this.out.join("")}</svg>`
  }
}
