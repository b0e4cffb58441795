// Plays the events of a run that is over: at the speed it had, faster, slower, or from any token on.

export class Player {
  // `show(count)` draws the first `count` events; `tell()` is called when playing starts, ends or moves.
  constructor(show, tell) {
    this.show = show
    this.tell = tell
    this.events = []
    this.shown = 0
    this.steps = []
    this.speed = "1"
  }

  load(events) {
    this.stop()
    this.events = events
    this.steps = events.flatMap((event, at) => (event.kind === "step" ? [at] : []))
    this.shown = events.length
    this.tell()
  }

  get playing() {
    return this.timer !== undefined
  }

  // How many steps are shown.
  get step() {
    return this.steps.filter((at) => at < this.shown).length
  }

  toggle() {
    if (this.playing) this.stop()
    else this.play()
  }

  play() {
    if (this.shown >= this.events.length) this.seek(0)
    this.next()
    this.tell()
  }

  stop() {
    clearTimeout(this.timer)
    this.timer = undefined
    this.tell()
  }

  // Shows so many steps, and what came before them.
  seek(steps) {
    this.shown = steps >= this.steps.length ? this.events.length : this.steps[steps]
    this.show(this.shown)
    this.tell()
  }

  next() {
    const at = this.steps.find((step) => step >= this.shown)
    if (at === undefined) {
      this.shown = this.events.length
      this.show(this.shown)
      this.stop()
      return
    }
    this.timer = setTimeout(() => {
      this.shown = at + 1
      this.show(this.shown)
      this.tell()
      this.next()
    }, this.pause(at))
  }

  // "1x" is what the lanes' own steps took, whatever the machine did between them; a plain number is tokens a second.
  pause(at) {
    if (this.speed === "slow") return 1000
    const lanes = Object.values(this.events[at].lanes)
    const seconds = lanes.reduce((total, lane) => total + lane.latency_s, 0)
    return (1000 * Math.max(seconds, 0.005)) / Number(this.speed)
  }
}
