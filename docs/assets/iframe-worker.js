// Search in pages that are opened as files: a browser allows them no Worker, so its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.onload = () => {
        frame.onload = null
        const inside = frame.contentWindow, script = inside.document.createElement("script")
        inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
        script.onload = () => {
          this.postMessage = data => inside.dispatchEvent(new MessageEvent("message", { data }))
          this.waiting.forEach(data => this.postMessage(data))
        }
        script.src = url
        inside.document.head.append(script)
      }
      document.body.append(frame)
    }

    postMessage(data) {
      this.waiting.push(data)
    }
  }
}
