// Asks the backend for one prompt's map: tiles in order of need, a few at a time, and whatever else is exact.

const AT_ONCE = 4
const KEPT_TILES = 200 // with their pictures about 64 MB
const KEPT_ANSWERS = 48

export class MapGone extends Error {}

export class Source {
  constructor(token, lane, window) {
    this.lane = lane ? { lane } : {}
    this.address = `/api/runs/${encodeURIComponent(token)}/map`
    this.window = { sink: window.sink, recent: window.recent }
    this.tiles = new Map()
    this.wanted = []
    this.running = new Map()
    this.answers = new Map()
    this.values = new Map()
    this.received = 0
    this.onTile = () => {}
    this.onTrouble = () => {}
  }

  // The tile if it is here, or undefined.
  tile(id) {
    const found = this.tiles.get(id.key)
    if (found) {
      this.tiles.delete(id.key)
      this.tiles.set(id.key, found)
    }
    return found
  }

  // What is needed now, most urgent first; what was asked for before and is not in the list is dropped.
  want(ids) {
    const keys = new Set(ids.map((id) => id.key))
    for (const [key, abort] of this.running) if (!keys.has(key)) abort.abort()
    this.wanted = ids.filter((id) => !this.tiles.has(id.key) && !this.running.has(id.key))
    this.pump()
  }

  pump() {
    while (this.running.size < AT_ONCE && this.wanted.length) this.load(this.wanted.shift())
  }

  async load(id) {
    const abort = new AbortController()
    this.running.set(id.key, abort)
    try {
      const codes = new Uint8Array(await this.bytes("tile", id.query, abort.signal))
      this.tiles.set(id.key, { codes })
      while (this.tiles.size > KEPT_TILES) this.tiles.delete(this.tiles.keys().next().value)
      this.onTile(id)
    } catch (error) {
      if (error.name !== "AbortError") this.onTrouble(error)
    } finally {
      this.running.delete(id.key)
      this.pump()
    }
  }

  async bytes(what, query, signal) {
    const answer = await this.fetch(what, query, signal)
    const body = await answer.arrayBuffer()
    this.received += Number(answer.headers.get("content-length")) || body.byteLength
    return body
  }

  async fetch(what, query = {}, signal = undefined) {
    const path = what ? `${this.address}/${what}` : this.address
    const answer = await fetch(`${path}?${new URLSearchParams({ ...query, ...this.lane })}`, { signal })
    if (answer.ok) return answer
    const told = await answer.json().catch(() => null)
    const message = told?.error?.message ?? `The backend answered ${answer.status}.`
    throw answer.status === 404 || answer.status === 410 ? new MapGone(message) : new Error(message)
  }

  // Numbers that do not change: asked for once, as long as they are among the last that were used.
  once(what, query, read) {
    const key = `${what}?${new URLSearchParams(query)}`
    const answer = this.answers.get(key) ?? read(what, query)
    this.answers.delete(key)
    this.answers.set(key, answer)
    answer.catch(() => this.answers.delete(key))
    while (this.answers.size > KEPT_ANSWERS) this.answers.delete(this.answers.keys().next().value)
    return answer
  }

  json(what, query = {}) {
    return this.once(what, query, async () => (await this.fetch(what, query)).json())
  }

  floats(what, query) {
    return this.once(what, query, async () => new Float32Array(await this.bytes(what, query)))
  }

  codes(what, query) {
    return this.once(what, query, async () => new Uint8Array(await this.bytes(what, query)))
  }

  async value(query, signal) {
    const key = this.valueKey(query)
    const found = await (await this.fetch("value", { ...query, ...this.window }, signal)).json()
    this.values.set(key, found)
    if (this.values.size > KEPT_ANSWERS) this.values.delete(this.values.keys().next().value)
    return found
  }

  // The number if it was read before, or undefined.
  known(query) {
    return this.values.get(this.valueKey(query))
  }

  valueKey(query) {
    return JSON.stringify({ ...query, ...this.window })
  }
}

export function tileId(view, reduce, level, row, col) {
  return { key: `${view} ${reduce} ${level} ${row} ${col}`, level, row, col, query: { view, reduce, level, row, col } }
}
