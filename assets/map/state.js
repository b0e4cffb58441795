// What the explorer shows, as one short text: the address holds it, so a view can be sent to a colleague.
// Pairs are parted by "_", name and value by the first ".": view.3.2_reduce.mean_box.0.0.8192

export const SCALES = ["log", "linear", "percentile"]
export const TABS = ["map", "heads", "text"]
export const CHARACTERS = ["layer", "sink", "recent", "previous", "induction", "entropy", "distance"]
export const GRAINS = ["token", "word", "sentence"]

const number = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : undefined)
const choice = (options) => (text) => (options.includes(text) ? text : undefined)
const flag = (text) => ({ on: true, off: false })[text]

const FIELDS = {
  view: { start: "0.0", read: (text) => (/^(\d+|\*)\.(\d+|\*)(-(\d+|\*)\.(\d+|\*))?$/.test(text) ? text : undefined) },
  tab: { start: "map", read: choice(TABS) },
  reduce: { start: "max", read: choice(["max", "mean"]) },
  scale: { start: "log", read: choice(SCALES) },
  sinks: { start: true, read: flag },
  rows: { start: false, read: flag },
  lost: { start: false, read: flag },
  mean: { start: false, read: flag },
  gamma: { start: 10, read: (text) => (number(text) >= 2 && number(text) <= 40 ? number(text) : undefined) },
  box: { start: null, read: readBox },
  query: { start: null, read: number },
  key: { start: null, read: number },
  sort: { start: "layer", read: choice(CHARACTERS) },
  way: { start: "out", read: choice(["out", "in"]) },
  grain: { start: "token", read: choice(GRAINS) },
}

function readBox(text) {
  const parts = text.split(".").map(number)
  return parts.length === 3 && parts.every((part) => part !== undefined) && parts[2] > 0 ? parts : undefined
}

function written(value) {
  if (typeof value === "boolean") return value ? "on" : "off"
  return Array.isArray(value) ? value.map(Math.round).join(".") : String(value)
}

// The state that a text names, and the parts of it that made no sense.
export function parseState(text) {
  const state = Object.fromEntries(Object.entries(FIELDS).map(([name, { start }]) => [name, start]))
  const refused = []
  for (const part of text.split("_").filter(Boolean)) {
    const at = part.indexOf(".")
    const [name, value] = [part.slice(0, at), part.slice(at + 1)]
    const read = FIELDS[name]?.read(value)
    if (read === undefined) refused.push(part)
    else state[name] = read
  }
  return { state, refused }
}

export function formatState(state) {
  return Object.entries(FIELDS)
    .filter(([name, { start }]) => state[name] !== start && state[name] !== null)
    .map(([name]) => `${name}.${written(state[name])}`)
    .join("_")
}

export function parseView(text) {
  const [source, minus] = text.split("-")
  const place = (part) => part.split(".").map((value) => (value === "*" ? null : Number(value)))
  return { source: place(source), minus: minus ? place(minus) : null }
}

export function formatView({ source, minus }) {
  const text = (place) => place.map((value) => (value === null ? "*" : value)).join(".")
  return minus ? `${text(source)}-${text(minus)}` : text(source)
}

export function viewName(text) {
  const { source, minus } = parseView(text)
  const words = ([layer, head]) =>
    [layer === null ? "all layers" : `layer ${layer}`, head === null ? "all heads" : `head ${head}`].join(", ")
  return minus ? `${words(source)} minus ${words(minus)}` : words(source)
}
