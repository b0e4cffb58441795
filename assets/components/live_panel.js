// The live panel: a thin mount around the modules under /modules/live, which are loaded once for all pages.
const kept = new WeakMap()

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  slot.emit = (name, value) => setTriggerValue(name, value)
  slot.data = data
  slot.module ??= import(new URL(data.module, document.baseURI))
  slot.module
    .then(({ LivePanel }) => {
      slot.panel ??= new LivePanel(parentElement.querySelector(".panel"), (name, value) => slot.emit(name, value))
      slot.panel.update(slot.data)
    })
    .catch((error) => {
      const trouble = parentElement.querySelector(".trouble")
      trouble.hidden = false
      trouble.querySelector("span").textContent = `The panel did not load (${error.message}). Reload the page.`
    })
  return () => {
    slot.panel?.close()
    kept.delete(parentElement)
  }
}
