// The attention explorer: a thin mount around the modules under /modules/map, which are loaded once for all pages.
const kept = new WeakMap()

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  slot.emit = (name, value) => setTriggerValue(name, value)
  slot.data = data
  slot.module ??= import(new URL(data.module, document.baseURI))
  slot.module
    .then(({ Explorer }) => {
      slot.explorer ??= new Explorer(parentElement.querySelector(".explorer"), (name, value) => slot.emit(name, value))
      slot.explorer.update(slot.data)
    })
    .catch((error) => {
      const notice = parentElement.querySelector(".notice")
      notice.hidden = false
      notice.textContent = `The explorer did not load (${error.message}). Reload the page.`
    })
  return () => {
    slot.explorer?.close()
    kept.delete(parentElement)
  }
}
