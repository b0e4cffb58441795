// Handing a file to the visitor.

// the page's web font does not reach into a picture, and its letters have other widths
export const FONT = 'Arial, "Liberation Sans", "DejaVu Sans", sans-serif'

export function save(name, blob) {
  const link = document.createElement("a")
  link.download = name
  link.href = URL.createObjectURL(blob)
  document.body.append(link)
  link.click()
  link.remove()
  setTimeout(() => URL.revokeObjectURL(link.href), 2000)
}
