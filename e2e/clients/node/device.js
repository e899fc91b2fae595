// A device on MQTT.js whose every event can be awaited with a deadline.

import mqtt from 'mqtt'
import { randomUUID } from 'node:crypto'

// What anything may take: generous, as a machine may be busy.
const PATIENCE_MS = 15_000

// The transports and versions that each case runs with.
export const TRANSPORTS = {
  tcp: () => `mqtt://${address('E2E_MQTT')}`,
  websocket: () => `ws://${address('E2E_WS')}/mqtt`
}
export const VERSIONS = { 'MQTT 3.1.1': 4, 'MQTT 5': 5 }

function address (name) {
  const value = process.env[name]
  if (!value) throw new Error(`${name}=host:port names the broker to judge; \`make test-node\` starts one`)
  return value
}

// A word that no other test uses, for client ids and topics.
export const word = () => randomUUID().slice(0, 8)

// A queue whose reader waits, for as long as the deadline allows.
class Mailbox {
  #items = []
  #waiting = []

  put (item) {
    const waiting = this.#waiting.shift()
    if (waiting) waiting(item)
    else this.#items.push(item)
  }

  take (what) {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift())
    return deadline(new Promise(resolve => this.#waiting.push(resolve)), what)
  }
}

export function deadline (promise, what) {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${PATIENCE_MS} ms in vain for ${what}`)), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export class Device {
  messages = new Mailbox()
  connacks = new Mailbox()
  closes = new Mailbox()
  disconnects = new Mailbox()

  // Connects; the test's end closes it. Options are MQTT.js's own.
  static async connect (test, url, options = {}) {
    const device = new Device(url, options)
    test.after(() => device.client.endAsync(true))
    device.connack = await device.connacks.take('CONNACK')
    return device
  }

  constructor (url, options) {
    const v5 = (options.protocolVersion ?? 4) === 5
    this.client = mqtt.connect(url, {
      reconnectPeriod: 0,
      connectTimeout: PATIENCE_MS,
      // MQTT.js asks for a session expiry only where it is told to.
      ...(v5 && options.clean === false ? { properties: { sessionExpiryInterval: 3600 } } : {}),
      ...options
    })
    // Pings are answered below the events that MQTT.js gives.
    this.client.on('packetreceive', packet => {
      if (packet.cmd === 'connack') this.connacks.put(packet)
      if (packet.cmd === 'disconnect') this.disconnects.put(packet)
    })
    this.client.on('message', (topic, payload, packet) => this.messages.put({ topic, payload, packet }))
    this.client.on('close', () => this.closes.put('closed'))
    this.client.on('error', () => {})
  }

  subscribe (topic, options = { qos: 1 }) {
    return deadline(this.client.subscribeAsync(topic, options), 'SUBACK')
  }

  publish (topic, payload, options = { qos: 1 }) {
    return deadline(this.client.publishAsync(topic, payload, options), 'the acknowledgement')
  }

  // Publishes all, ten at a time: MQTT.js does not count the server's receive maximum.
  async publishAll (topic, payloads, options) {
    for (let start = 0; start < payloads.length; start += 10) {
      await Promise.all(payloads.slice(start, start + 10).map(payload => this.publish(topic, payload, options)))
    }
  }

  receive () {
    return this.messages.take('a message')
  }

  async payloads (count) {
    const payloads = []
    while (payloads.length < count) payloads.push((await this.receive()).payload.toString())
    return payloads
  }

  leave () {
    return deadline(this.client.endAsync(false), 'the end')
  }

  // The network goes away: no DISCONNECT.
  async cut () {
    this.client.stream.destroy()
    await this.closes.take('the end of the connection')
  }
}
