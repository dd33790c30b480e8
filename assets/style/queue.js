/* gradio's client gives up its stream of answers when the server ends it, also where it has sent an event since: on a busy
 * machine that event's answer then waits for the next event, which opens a stream again. Such an event is noticed here, and
 * a hidden button sends one that does nothing. */
(() => {
  "use strict";
  const PATIENCE = 400; // milliseconds in which the client opens a stream by itself
  const fetched = window.fetch.bind(window), waiting = new Set(), answered = new Set();
  let streams = 0;

  function look() {
    if (streams || !waiting.size) return;
    waiting.clear();
    document.querySelector("#wake")?.click();
  }
  async function sent(response) {
    const { event_id: id } = await response.clone().json();
    if (answered.delete(id)) return;
    waiting.add(id);
    window.setTimeout(look, PATIENCE);
  }
  function heard(line) { // what identifies a message stands at its beginning
    const [, message, id] = /"msg": ?"(\w+)".*?"event_id": ?"(\w+)"/.exec(line.slice(0, 300)) || [];
    if (message === "process_completed" && !waiting.delete(id)) answered.add(id);
  }
  async function follow(response) {
    let rest = "";
    try {
      const reader = response.clone().body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const lines = (rest + part.value).split("\n");
        rest = lines.pop();
        lines.forEach(heard);
      }
    } catch { /* the client has ended it */ }
  }
  window.fetch = async (input, init) => {
    const address = String(input.url ?? input), isStream = address.includes("/queue/data");
    streams += isStream;
    const ended = () => { streams -= isStream; window.setTimeout(look, PATIENCE); };
    try {
      const response = await fetched(input, init);
      if (isStream) follow(response).finally(ended);
      else if (address.includes("/queue/join") && response.ok) sent(response).catch(() => {});
      return response;
    } catch (error) {
      ended();
      throw error;
    }
  };
})();
