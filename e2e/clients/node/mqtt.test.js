// MQTT.js over TCP and over WebSocket, in both versions of the protocol.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Device, TRANSPORTS, VERSIONS, word } from './device.js'

for (const [transport, url] of Object.entries(TRANSPORTS)) {
  for (const [version, protocolVersion] of Object.entries(VERSIONS)) {
    describe(`${version} over ${transport}`, () => {
      const connect = (t, options = {}) => Device.connect(t, url(), { protocolVersion, ...options })

      for (const qos of [0, 1, 2]) {
        test(`a message of QoS ${qos} arrives as it was published`, async t => {
          const topic = word()
          const receiver = await connect(t)
          const [granted] = await receiver.subscribe(topic, { qos })
          assert.equal(granted.qos, qos)
          const sender = await connect(t)
          await sender.publish(topic, Buffer.from([0, 1, 254, 255]), { qos })
          const message = await receiver.receive()
          assert.deepEqual([...message.payload], [0, 1, 254, 255])
          assert.equal(message.packet.qos, qos)
          assert.equal(message.packet.retain, false)
        })

        test(`two hundred messages of QoS ${qos} keep their order`, async t => {
          const topic = word()
          const receiver = await connect(t)
          await receiver.subscribe(topic, { qos })
          const sender = await connect(t)
          const numbers = Array.from({ length: 200 }, (_, number) => String(number))
          await sender.publishAll(topic, numbers, { qos })
          assert.deepEqual(await receiver.payloads(200), numbers)
        })
      }

      test('a payload of 200 KiB passes whole', async t => {
        const topic = word()
        const both = await connect(t)
        await both.subscribe(topic)
        const payload = Buffer.alloc(200 * 1024, 'holdfast ')
        await both.publish(topic, payload)
        assert.ok((await both.receive()).payload.equals(payload))
      })

      test('a persistent session resumes with what came while it was away', async t => {
        const [topic, clientId] = [word(), word()]
        const first = await connect(t, { clientId, clean: false })
        assert.equal(first.connack.sessionPresent, false)
        await first.subscribe(topic, { qos: 2 })
        await first.leave()
        const sender = await connect(t)
        await sender.publish(topic, 'one', { qos: 1 })
        await sender.publish(topic, 'two', { qos: 2 })
        const second = await connect(t, { clientId, clean: false })
        assert.equal(second.connack.sessionPresent, true)
        assert.deepEqual(await second.payloads(2), ['one', 'two'])
      })

      test('a retained message greets a later subscriber', async t => {
        const topic = word()
        const sender = await connect(t)
        await sender.publish(topic, 'kept', { qos: 1, retain: true })
        const receiver = await connect(t)
        await receiver.subscribe(topic)
        const message = await receiver.receive()
        assert.equal(message.payload.toString(), 'kept')
        assert.equal(message.packet.retain, true)
      })

      test('a will is published when the connection is lost', async t => {
        const topic = word()
        const watcher = await connect(t)
        await watcher.subscribe(topic)
        const lost = await connect(t, { will: { topic, payload: Buffer.from('gone'), qos: 1, retain: false } })
        await lost.cut()
        assert.deepEqual(await watcher.payloads(1), ['gone'])
      })

      test('the same client id takes over', async t => {
        const clientId = word()
        const first = await connect(t, { clientId })
        const second = await connect(t, { clientId })
        await first.closes.take('the end of the first connection')
        await second.subscribe(clientId)
        await second.publish(clientId, 'here')
        assert.deepEqual(await second.payloads(1), ['here'])
      })

      test('an idle connection is kept by its pings', async t => {
        const idle = await connect(t, { keepalive: 1 })
        let pings = 0
        await new Promise(resolve => idle.client.on('packetreceive', packet => {
          if (packet.cmd === 'pingresp' && ++pings === 3) resolve()
        }))
        assert.equal(idle.client.connected, true)
      })

      test('wildcards match, and unsubscribing ends it', async t => {
        const base = word()
        const both = await connect(t)
        await both.subscribe(`${base}/+/a`)
        await both.subscribe(`${base}/b/#`)
        for (const topic of ['x/a', 'x/y/a', 'b', 'b/c/d']) await both.publish(`${base}/${topic}`, topic)
        assert.deepEqual(await both.payloads(3), ['x/a', 'b', 'b/c/d'])
        await both.client.unsubscribeAsync(`${base}/+/a`)
        await both.publish(`${base}/x/a`, 'no')
        await both.publish(`${base}/b`, 'yes')
        assert.deepEqual(await both.payloads(1), ['yes'])
      })
    })
  }

  describe(`only in MQTT 5, over ${transport}`, () => {
    const connect = (t, options = {}) => Device.connect(t, url(), { protocolVersion: 5, ...options })

    test('properties pass through', async t => {
      const topic = word()
      const both = await connect(t)
      await both.subscribe(topic, { qos: 1, properties: { subscriptionIdentifier: 321 } })
      const properties = {
        payloadFormatIndicator: true,
        contentType: 'text/plain',
        responseTopic: 'answers',
        correlationData: Buffer.from([0, 1, 2]),
        userProperties: { a: ['1', '2'], b: '3' }
      }
      await both.publish(topic, 'x', { qos: 1, properties })
      const { properties: heard } = (await both.receive()).packet
      assert.equal(heard.contentType, 'text/plain')
      assert.equal(heard.responseTopic, 'answers')
      assert.deepEqual([...heard.correlationData], [0, 1, 2])
      assert.deepEqual({ ...heard.userProperties }, properties.userProperties)
      assert.equal(heard.subscriptionIdentifier, 321)
    })

    test('no local spares the publisher', async t => {
      const topic = word()
      const both = await connect(t)
      await both.subscribe(topic, { qos: 1, nl: true })
      await both.publish(topic, 'mine')
      const other = await connect(t)
      await other.publish(topic, 'theirs')
      assert.deepEqual(await both.payloads(1), ['theirs'])
    })

    test('topic aliases are assigned and used both ways', async t => {
      const topic = word()
      const receiver = await connect(t, { properties: { topicAliasMaximum: 5 } })
      await receiver.subscribe(`${topic}/#`)
      const sender = await connect(t, { autoAssignTopicAlias: true })
      assert.ok(sender.connack.properties.topicAliasMaximum >= 1)
      for (let number = 0; number < 20; number++) await sender.publish(`${topic}/${number % 3}`, String(number))
      for (let number = 0; number < 20; number++) {
        const message = await receiver.receive()
        assert.equal(message.topic, `${topic}/${number % 3}`)
        assert.equal(message.payload.toString(), String(number))
      }
    })

    test('the loser of a takeover hears why', async t => {
      const clientId = word()
      const first = await connect(t, { clientId })
      await connect(t, { clientId })
      assert.equal((await first.disconnects.take('DISCONNECT')).reasonCode, 0x8E)
    })

    test('a client id is assigned', async t => {
      const nameless = await connect(t, { clientId: '' })
      assert.ok(nameless.connack.properties.assignedClientIdentifier.length > 0)
    })

    test('a client that takes three at a time gets all in the end', async t => {
      const topic = word()
      const receiver = await connect(t, { properties: { receiveMaximum: 3 } })
      await receiver.subscribe(topic, { qos: 2 })
      const sender = await connect(t)
      const numbers = Array.from({ length: 50 }, (_, number) => String(number))
      await sender.publishAll(topic, numbers, { qos: 2 })
      assert.deepEqual(await receiver.payloads(50), numbers)
    })
  })
}
