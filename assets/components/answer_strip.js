// What a check has found, a row per task and way to ask: each prompt's mark for the full model, the plan and all layers
// streaming.
const kept = new WeakMap()
const SIDES = [
  ["full", "full"],
  ["plan", "plan"],
  ["streaming", "window"],
]

function element(name, className, text) {
  const made = document.createElement(name)
  made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`
const percent = (share) => `${Math.round(share * 100)}%`

// What was said, for who rests on a mark.
function told(prompt, side) {
  const said = { full: prompt.said[0], plan: prompt.said[1] }[side]
  const words = `seed ${prompt.seed}: ${prompt[side].score === 1 ? "right" : "wrong"}, expected ${prompt.expected}`
  return said === undefined ? words : `${words}, said ${said}`
}

function answered(prompts, [side, className]) {
  const cell = element("td", className)
  const right = prompts.filter((prompt) => prompt[side].score === 1).length
  cell.append(element("span", "count", `${right} of ${prompts.length} right`))
  const marks = element("span", "marks")
  marks.setAttribute("aria-hidden", "true")
  for (const prompt of prompts) {
    const isRight = prompt[side].score === 1
    const mark = element("span", isRight ? "right" : "wrong", isRight ? "●" : "○")
    mark.title = told(prompt, side)
    marks.append(mark)
  }
  cell.append(marks)
  return cell
}

function read(prompts, [side, className]) {
  const cell = element("td", className)
  const nll = mean(prompts.map((prompt) => prompt[side].nll))
  const full = mean(prompts.map((prompt) => prompt.full.nll))
  const words =
    side === "full"
      ? `NLL ${nll.toFixed(3)} nats per token`
      : `${signed(nll - full)} nats per token, KL ${mean(prompts.map((prompt) => prompt[side].kl)).toFixed(3)}`
  cell.append(element("span", "count", words))
  return cell
}

function row(prompts, title) {
  const made = element("tr", "")
  const head = element("th", "", title)
  head.scope = "row"
  const isRead = prompts[0].full.score === null
  head.append(element("span", "", isRead ? `, ${prompts.length}` : ""))
  made.append(head, ...SIDES.map((side) => (isRead ? read(prompts, side) : answered(prompts, side))))
  return made
}

function draw(view, prompts, titles) {
  const groups = Map.groupBy(prompts, (prompt) => `${prompt.task} ${prompt.question}`)
  const rows = [...groups.values()].map((some) => {
    const [{ task, question }] = some
    return row(some, `${titles[task] ?? task}${question === "agnostic" ? ", asked later" : ""}`)
  })
  if (!rows.length) {
    const waiting = element("tr", "empty")
    const cell = element("td", "", "The first prompt is running.")
    cell.colSpan = 4
    waiting.append(cell)
    rows.push(waiting)
  }
  view.body.replaceChildren(...rows)
}

const share = ({ mean, low, high }) => `${percent(mean)} [${percent(low)}, ${percent(high)}]`

function soFar(view, kept) {
  const asked = [
    [kept?.aware, "in the prompt"],
    [kept?.agnostic, "later"],
  ].filter(([found]) => found)
  const told = asked.map(([found, way]) => `${share(found)} asked ${way}`)
  view.soFar.textContent = told.length ? `So far the plan keeps of the full model’s right answers ${told.join(", ")}` : ""
}

function follow(view, events, data) {
  const prompts = []
  return events.followRun(
    data.token,
    (event) => {
      if (event.kind !== "example") return
      prompts.push(...event.prompts)
      draw(view, prompts, data.titles)
      soFar(view, event.kept)
    },
    () => {},
  )
}

export default function (component) {
  const { data: [data], parentElement } = component
  const view = {
    body: parentElement.querySelector("tbody"),
    soFar: parentElement.querySelector(".so-far"),
  }
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  if (!data.token) {
    slot.stop?.()
    slot.token = null
    draw(view, data.prompts, data.titles)
    soFar(view, null)
  } else if (slot.token !== data.token) {
    slot.stop?.()
    slot.token = data.token
    draw(view, [], data.titles)
    soFar(view, null)
    import(new URL(data.module, document.baseURI)).then((events) => {
      if (slot.token === data.token && parentElement.isConnected) slot.stop = follow(view, events, data)
    })
  }
  return () => {
    slot.stop?.()
    kept.delete(parentElement)
  }
}
