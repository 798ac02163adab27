// Prints what a listening streamtwl publishes. Once: npm install zeromq @msgpack/msgpack
import { decode } from "@msgpack/msgpack"
import { Subscriber } from "zeromq"

const socket = new Subscriber()
socket.connect(process.argv[2] ?? "tcp://127.0.0.1:5577")
socket.subscribe("label/", "event/") // or "label/kitchen/"; "" for everything
const next = new Map()
for await (const [topic, payload] of socket) {
  const { kind, source, session, seq, phase, label, confidence } = decode(payload)
  const expected = next.get(session + topic) ?? seq
  if (seq < expected) continue // sent again, for a new subscriber
  if (seq > expected) console.error(`${seq - expected} of ${topic} were missed`)
  next.set(session + topic, seq + 1)
  console.log(seq, kind, source, label ?? "-", phase ?? confidence.toFixed(2))
}
