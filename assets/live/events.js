// Follows one run of the backend over server-sent events, through lost connections and a backend that restarts.
// `seen(event)` gets every event in order, once; `trouble(message)` gets a sentence, or null when it is over.
// The last event's kind is "done", "failed", "cancelled", or "lost" when the backend no longer knows the run.
const FINAL = ["done", "failed", "cancelled"]
const RETRY_MS = 1000

export function followRun(token, seen, trouble) {
  const address = `/api/runs/${encodeURIComponent(token)}`
  let cursor = 0
  let stream
  let timer
  let over = false

  const finish = (event) => {
    over = true
    stream?.close()
    seen(event)
  }

  const connect = () => {
    stream = new EventSource(`${address}/events?after=${cursor}`)
    stream.onopen = () => trouble(null)
    stream.onmessage = ({ data, lastEventId }) => {
      if (Number(lastEventId) <= cursor) return
      cursor = Number(lastEventId)
      const event = JSON.parse(data)
      if (FINAL.includes(event.kind)) finish(event)
      else seen(event)
    }
    stream.onerror = () => {
      stream.close()
      if (!over) retry()
    }
  }

  const retry = () => {
    timer = setTimeout(async () => {
      const answer = await fetch(address).catch(() => null)
      if (over) return
      if (answer?.status === 404) finish({ kind: "lost" })
      else if (answer?.ok) connect()
      else {
        trouble("The backend does not answer. It is being restarted; this run may have to be started again.")
        retry()
      }
    }, RETRY_MS)
  }

  connect()
  return () => {
    over = true
    stream?.close()
    clearTimeout(timer)
  }
}

export async function cancelRun(token) {
  await fetch(`/api/runs/${encodeURIComponent(token)}`, { method: "DELETE" })
}

// Asks the backend to change a run; null, or the error as it was told: { type, message }.
export async function commandRun(token, command) {
  const answer = await fetch(`/api/runs/${encodeURIComponent(token)}/commands`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(command),
  }).catch(() => null)
  if (answer?.ok) return null
  const told = await answer?.json().catch(() => null)
  return told?.error ?? { type: "BackendUnavailableError", message: "The backend does not answer; try again in a moment." }
}

// How long a wait is, in words; `place` counts from 1.
export function waitText({ place, wait_s: seconds }) {
  const ahead = place > 1 ? `; ${place - 1} ahead in line` : ""
  const long = seconds === null || seconds === undefined ? "" : `, about ${Math.max(1, Math.round(seconds))} s`
  return `Waiting for its turn${ahead}${long}`
}
