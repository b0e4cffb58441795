// A thin mount around a view whose modules stand under /modules, where they are loaded once for all pages. The module
// exports `View`: made with its root and a way to tell the page, then `update(data)` as often as the page runs. Until
// then the root is inert, so that no click is lost on a button that does nothing yet.
const kept = new WeakMap()

export default function (component) {
  const { data: [data], parentElement, setTriggerValue } = component
  const slot = kept.get(parentElement) ?? {}
  kept.set(parentElement, slot)
  slot.emit = (name, value) => setTriggerValue(name, value)
  slot.data = data
  slot.module ??= import(new URL(data.module, document.baseURI))
  const root = parentElement.querySelector("[data-view]")
  slot.module
    .then(({ View }) => {
      slot.view ??= new View(root, (name, value) => slot.emit(name, value))
      slot.view.update(slot.data)
    })
    .catch((error) => {
      const notice = parentElement.querySelector("[data-notice]")
      notice.parentElement.hidden = notice.hidden = false
      notice.textContent = `This part of the page did not load (${error.message}). Reload the page.`
    })
    .finally(() => root.removeAttribute("inert"))
  return () => {
    slot.view?.close()
    kept.delete(parentElement)
  }
}
