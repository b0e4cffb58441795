// Follows one run of the backend over server-sent events, through lost connections and a backend that restarts.
// `seen(event)` gets every event in order, once; `trouble(message)` gets a sentence, or null when it is over.
// The last event's kind is "done", "failed", "cancelled", or "lost" when the backend no longer knows the run.
const FINAL = ["done", "failed", "cancelled"]
const RETRY_MS = 1000

function followRun(token, seen, trouble) {
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

async function cancelRun(token) {
  await fetch(`/api/runs/${encodeURIComponent(token)}`, { method: "DELETE" })
}
