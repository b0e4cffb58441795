// From codes to numbers and colours. A code is the logarithm of a probability or of a difference: see maps/codes.py.

export const MASKED = 255
const RANGE_BITS = 24

export function decode(code, signed) {
  if (code === MASKED) return NaN
  if (!signed) return code === 0 ? 0 : 2 ** ((code - 254) * (RANGE_BITS / 253))
  const steps = code - 127
  return steps === 0 ? 0 : Math.sign(steps) * 2 ** ((Math.abs(steps) - 127) * (RANGE_BITS / 126))
}

export function encode(value, signed) {
  const bits = Math.log2(Math.abs(value))
  if (!(bits >= -RANGE_BITS)) return signed ? 127 : 0
  if (!signed) return Math.min(Math.round(254 + bits * (253 / RANGE_BITS)), 254)
  return 127 + Math.sign(value) * Math.round(127 + bits * (126 / RANGE_BITS))
}

export function rgb(hex) {
  const value = parseInt(hex.slice(1, 7), 16)
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255]
}

export function blend(stops, part) {
  const at = Math.min(Math.max(part, 0), 1) * (stops.length - 1)
  const index = Math.min(Math.floor(at), stops.length - 2)
  const [low, high] = [rgb(stops[index]), rgb(stops[index + 1])]
  return low.map((channel, i) => Math.round(channel + (high[i] - channel) * (at - index)))
}

// How far along the colour scale each of the 256 codes stands, 0 to 1; for a difference 0.5 is none.
export function positions({ scale, gamma, histogram, signed, floor }) {
  const power = 10 / gamma
  const bent = (part) => Math.max(part, 0) ** power
  if (signed) {
    const strength = magnitudes(scale, histogram)
    return Array.from({ length: 255 }, (_, code) => {
      const steps = code - 127
      return 0.5 + 0.5 * Math.sign(steps) * bent(strength(Math.abs(steps)))
    })
  }
  if (scale === "percentile") return ranks(histogram, 255).map(bent)
  const top = highest(histogram, 254)
  if (scale === "linear") return Array.from({ length: 255 }, (_, code) => bent(Math.min(decode(code) / decode(top), 1)))
  return Array.from({ length: 255 }, (_, code) => bent(Math.min((code - floor) / Math.max(top - floor, 1), 1)))
}

function magnitudes(scale, histogram) {
  const folded = new Float64Array(128)
  histogram.forEach((count, code) => code < 255 && (folded[Math.abs(code - 127)] += count))
  if (scale === "percentile") {
    const ranked = ranks(folded, 128)
    return (steps) => ranked[steps]
  }
  const top = highest(folded, 127)
  if (scale === "linear") return (steps) => Math.min(decode(127 + steps, true) / decode(127 + top, true), 1)
  return (steps) => (steps === 0 ? 0 : Math.min(Math.max((steps - top + 50) / 50, 0), 1))
}

function ranks(histogram, count) {
  let total = 0
  for (let code = 1; code < count; code++) total += histogram[code]
  let below = 0
  return Array.from({ length: count }, (_, code) => {
    if (code === 0 || total === 0) return 0
    below += histogram[code]
    return below / total
  })
}

function highest(histogram, last) {
  for (let code = last; code > 0; code--) if (histogram[code]) return code
  return last
}

// 256 colours, packed as canvas pixels; the last is the masked triangle's.
export function palette(parts, stops, masked) {
  const pack = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red
  const colours = new Uint32Array(256)
  parts.forEach((part, code) => (colours[code] = pack(blend(stops, part)) >>> 0))
  colours[MASKED] = pack(rgb(masked)) >>> 0
  return colours
}

export function percent(value) {
  return `${(value * 100).toFixed(1)}%`
}

// Four significant digits, as a probability is read.
export function exact(value) {
  if (!Number.isFinite(value)) return "–"
  const size = Math.abs(value)
  if (size !== 0 && size < 1e-4) return value.toExponential(3)
  return value.toPrecision(4)
}
