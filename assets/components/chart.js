// Draws one plotly figure in place and exports it. Knows nothing about what the figure shows.
const kept = new WeakMap()
const EXPORT_FONT = 'Arial, "Liberation Sans", "DejaVu Sans", sans-serif'
let plotly

function loadPlotly(url) {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script")
    script.src = url
    script.onload = () => resolve(window.Plotly)
    script.onerror = () => {
      plotly = undefined
      reject(new Error("The chart library did not load."))
    }
    document.head.append(script)
  })
  return plotly
}

function look(element) {
  const style = getComputedStyle(element)
  const read = (name) => style.getPropertyValue(name).trim()
  return {
    ink: read("--st-text-color"),
    paper: read("--st-background-color"),
    grid: read("--st-border-color"),
    font: read("--st-font"),
    scale: parseFloat(getComputedStyle(document.documentElement).fontSize) / 16,
    dark: document.defaultView.getComputedStyle(element).colorScheme === "dark" || isDark(read("--st-background-color")),
  }
}

function isDark(colour) {
  const probe = document.createElement("canvas").getContext("2d")
  probe.fillStyle = colour
  const value = parseInt(probe.fillStyle.slice(1), 16)
  return ((value >> 16) & 255) * 0.3 + ((value >> 8) & 255) * 0.59 + (value & 255) * 0.11 < 128
}

function themed(data, theme) {
  const figure = JSON.parse(data.figure.replaceAll(data.ink, theme.ink))
  const { layout } = figure
  const size = data.fontSize * theme.scale
  layout.font = { ...layout.font, family: theme.font, color: theme.ink, size }
  layout.height *= theme.scale
  for (const side of ["l", "r", "t", "b"]) layout.margin[side] *= theme.scale
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    Object.assign(layout[name], { gridcolor: theme.grid, linecolor: theme.grid, tickcolor: theme.grid })
    layout[name].title.standoff *= theme.scale
  }
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: theme.paper, bordercolor: theme.grid, font: { color: theme.ink } }
  for (const trace of theme.dark ? figure.data : []) if (trace.meta?.darkInk) trace.textfont.color = trace.meta.darkInk
  if (layout.coloraxis && theme.dark) layout.coloraxis.colorscale = data.darkScale
  return figure
}

function save(name, href) {
  const link = document.createElement("a")
  link.download = name
  link.href = href
  document.body.append(link)
  link.click()
  link.remove()
}

async function saveImage(slot, format) {
  const { data, Plotly, plot } = slot
  const theme = look(plot)
  const { data: traces, layout } = themed(data, theme)
  const top = 44 * theme.scale
  // the page's web font does not reach into a picture, and its letters have other widths
  layout.font.family = EXPORT_FONT
  Object.assign(layout, {
    width: plot.clientWidth,
    height: layout.height + top,
    paper_bgcolor: theme.paper,
    // it pushes the legend down, however many rows that has
    title: { text: data.title, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 10, b: 4 }, automargin: true },
  })
  const image = await Plotly.toImage({ data: traces, layout }, { format, scale: format === "png" ? 3 : 1 })
  save(`${data.name}.${format}`, image)
}

function saveCsv({ data }) {
  const url = URL.createObjectURL(new Blob([data.csv], { type: "text/csv;charset=utf-8" }))
  save(`${data.name}.csv`, url)
  setTimeout(() => URL.revokeObjectURL(url), 1000)
}

function fillTable(table, data) {
  const cell = (kind, text) => {
    const made = document.createElement(kind)
    made.textContent = text ?? ""
    return made
  }
  const row = (kind, values) => {
    const made = document.createElement("tr")
    made.append(...values.map((value) => cell(kind, typeof value === "number" ? shown(value) : value)))
    return made
  }
  table.tHead.replaceChildren(row("th", data.columns))
  table.tBodies[0].replaceChildren(...data.rows.map((values) => row("td", values)))
}

function shown(value) {
  return Number.isInteger(value) ? value.toLocaleString("en-US") : value.toPrecision(5).replace(/\.?0+(e|$)/, "$1")
}

function wire(slot, root) {
  const on = (name, act) => {
    const button = root.querySelector(`[data-act=${name}]`)
    button.onclick = act
    return button
  }
  on("png", () => saveImage(slot, "png"))
  on("svg", () => saveImage(slot, "svg"))
  on("csv", () => saveCsv(slot))
  const box = root.querySelector(".lt-table")
  const toggle = on("table", () => {
    box.hidden = !box.hidden
    toggle.setAttribute("aria-expanded", String(!box.hidden))
    if (!box.hidden) fillTable(box.querySelector("table"), slot.data)
  })
}

export default function (component) {
  const { data: [data], parentElement } = component
  const root = parentElement.querySelector(".lt-chart")
  const plot = root.querySelector(".lt-plot")
  const slot = kept.get(root) ?? { plot }
  kept.set(root, slot)
  slot.data = data
  root.querySelector("figcaption").textContent = data.title
  plot.setAttribute("aria-label", data.alt)
  root.querySelector(".lt-tools").setAttribute("aria-label", `Export: ${data.title}`)
  wire(slot, root)
  const box = root.querySelector(".lt-table")
  if (!box.hidden) fillTable(box.querySelector("table"), data)
  const theme = look(root)
  const state = JSON.stringify([data.figure, theme])
  if (state !== slot.state) {
    slot.state = state
    const { data: traces, layout } = themed(data, theme)
    plot.style.minHeight = `${layout.height}px`
    loadPlotly(data.library)
      .then((Plotly) => {
        slot.Plotly = Plotly
        return Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" })
      })
      .catch((error) => (plot.textContent = `${error.message} Reload the page; the numbers are under “Table”.`))
  }
  return () => slot.Plotly?.purge(plot)
}
