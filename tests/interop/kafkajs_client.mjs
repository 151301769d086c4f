// KafkaJS against one Kafka listener: producer, groups with a rebalance, admin. Run by test_kafkajs.py:
//
//     KAFKAJS=FOLDER_WITH_node_modules BOOTSTRAP=HOST:PORT node kafkajs_client.mjs

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

const { AssignerProtocol, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = createRequire(`${process.env.KAFKAJS}/`)('kafkajs')

const PARTITIONS = 4
const DEADLINE = 30_000
const kafka = new Kafka({ clientId: 'interop', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 8 } })
const admin = kafka.admin()
const fresh = what => `js-${what}-${randomUUID().slice(0, 8)}`

before(() => admin.connect())
after(() => admin.disconnect())

async function until(holds, what) {
  for (const end = Date.now() + DEADLINE; !(await holds()); await sleep(50)) assert.ok(Date.now() < end, `not in time: ${what}`)
}

async function makeTopic(numPartitions = PARTITIONS, configEntries = []) {
  const topic = fresh('topic')
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: true }), true)
  return topic
}

async function fill(topic, count, settings = {}, more = {}) {
  const producer = kafka.producer(settings)
  await producer.connect()
  const messages = Array.from({ length: count }, (_, n) => ({ key: `key ${n % 13}`, value: `value ${n}`, headers: { a: '1' }, ...more.message }))
  const placed = await producer.send({ topic, messages, acks: -1, compression: more.compression })
  await producer.disconnect()
  return placed
}

async function member(t, groupId, topic, settings = {}) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 6000, ...settings })
  const one = { consumer, owned: [], joins: 0, read: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    one.joins += 1
    one.owned = payload.memberAssignment[topic] ?? []
  })
  t.after(() => consumer.disconnect())
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommitInterval: 200,
    eachMessage: async ({ partition, message }) => {
      one.read.push({ partition, offset: Number(message.offset), key: String(message.key), value: String(message.value), headers: message.headers })
    },
  })
  return one
}

const shared = members => until(() => {
  const owned = members.flatMap(one => one.owned).sort((a, b) => a - b)
  return members.every(one => one.owned.length) && owned.join() === [...Array(PARTITIONS).keys()].join()
}, 'every partition has one owner')
const places = members => members.flatMap(one => one.read.map(({ partition, offset }) => `${partition}:${offset}`))

for (const [name, settings, more] of [
  ['plain', {}, {}],
  ['gzip', {}, { compression: CompressionTypes.GZIP }],
  ['idempotent, gzip', { idempotent: true, maxInFlightRequests: 1 }, { compression: CompressionTypes.GZIP }],
]) {
  test(`what is produced is consumed: ${name}`, async t => {
    const topic = await makeTopic()
    await fill(topic, 300, settings, more)
    const one = await member(t, fresh('group'), topic)
    await until(() => one.read.length >= 300, '300 messages')
    assert.equal(new Set(places([one])).size, 300)
    assert.deepEqual(one.read.map(m => m.value).sort(), Array.from({ length: 300 }, (_, n) => `value ${n}`).sort())
    assert.equal(String(one.read[0].headers.a), '1')
    const ofOneKey = one.read.filter(m => m.key === 'key 5').map(m => Number(m.value.split(' ')[1]))
    assert.deepEqual(ofOneKey, [...ofOneKey].sort((a, b) => a - b))
  })
}

test('members share a topic, one joins, one leaves', async t => {
  const [topic, group] = [await makeTopic(), fresh('group')]
  const members = [await member(t, group, topic), await member(t, group, topic)]
  await shared(members)
  await fill(topic, 300)
  await until(() => places(members).length >= 300, 'the first messages')
  members.push(await member(t, group, topic))
  await shared(members)
  assert.ok(members[0].joins >= 2, 'a join is a rebalance for those who are there')
  const { groups } = await admin.describeGroups([group])
  assert.deepEqual([groups[0].state, groups[0].members.length], ['Stable', 3])
  const seen = members.flatMap(one => one.read).length
  const gone = members.shift()
  await gone.consumer.disconnect()
  await shared(members)
  await fill(topic, 300)
  await until(() => places([gone, ...members]).length >= seen + 300, 'the second messages')
  assert.equal(new Set(places([gone, ...members])).size, 600)
})

test('a consumer pauses, seeks and goes on where its group was', async t => {
  const [topic, group] = [await makeTopic(1), fresh('group')]
  await fill(topic, 20)
  const one = await member(t, group, topic)
  await until(() => one.read.length === 20, '20 messages')
  one.consumer.pause([{ topic }])
  await fill(topic, 5)
  await sleep(300)
  assert.equal(one.read.length, 20)
  one.consumer.resume([{ topic }])
  await until(() => one.read.length === 25, 'the messages after the pause')
  one.consumer.seek({ topic, partition: 0, offset: '15' })
  await until(() => one.read.length === 35, 'the messages again')
  await one.consumer.disconnect()
  const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  assert.deepEqual(partitions.map(p => p.offset), ['25'])
  await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '24' }] })
  const next = await member(t, group, topic)
  await until(() => next.read.length === 1, 'the last message')
  assert.equal(next.read[0].offset, 24)
})

test('admin: topics, offsets and the cluster', async () => {
  const topic = await makeTopic(2, [{ name: 'retention.ms', value: '3600000' }])
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] }), false, 'a topic is made once')
  assert.ok((await admin.listTopics()).includes(topic))
  assert.equal((await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length, 2)
  await fill(topic, 40, {}, { message: { partition: 1, timestamp: '1700000000000' } })
  const ends = Object.fromEntries((await admin.fetchTopicOffsets(topic)).map(p => [p.partition, [p.low, p.high]]))
  assert.deepEqual(ends, { 0: ['0', '0'], 1: ['0', '40'] })
  const at = Object.fromEntries((await admin.fetchTopicOffsetsByTimestamp(topic, 1_600_000_000_000)).map(p => [p.partition, p.offset]))
  assert.deepEqual(at, { 0: '0', 1: '0' })
  const cluster = await admin.describeCluster()
  assert.equal(cluster.brokers.length, 1)
  assert.ok(cluster.clusterId && cluster.controller === cluster.brokers[0].nodeId)
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['retention.ms'] }
  const { resources } = await admin.describeConfigs({ resources: [resource] })
  assert.deepEqual(resources[0].configEntries.map(entry => entry.configValue), ['3600000'])
  await admin.deleteTopics({ topics: [topic] })
  await until(async () => !(await admin.listTopics()).includes(topic), 'the topic is gone')
})

test('admin: groups', async t => {
  const [topic, group] = [await makeTopic(), fresh('group')]
  const one = await member(t, group, topic)
  await shared([one])
  assert.ok((await admin.listGroups()).groups.some(listed => listed.groupId === group && listed.protocolType === 'consumer'))
  const described = (await admin.describeGroups([group])).groups[0]
  assert.equal(described.members[0].clientId, 'interop')
  assert.equal(AssignerProtocol.MemberAssignment.decode(described.members[0].memberAssignment).assignment[topic].length, PARTITIONS)
  await assert.rejects(admin.deleteGroups([group]), error => error.groups[0].error.type === 'NON_EMPTY_GROUP')
  await one.consumer.disconnect()
  await admin.deleteGroups([group])
  assert.ok(!(await admin.listGroups()).groups.some(listed => listed.groupId === group))
})

test('admin: configs are replaced', async () => {
  const topic = await makeTopic(1, [{ name: 'retention.ms', value: '3600000' }])
  const change = { type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'segment.bytes', value: '1048576' }] }
  await admin.alterConfigs({ resources: [change] })
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
  const now = Object.fromEntries(resources[0].configEntries.map(entry => [entry.configName, entry.configValue]))
  assert.equal(now['segment.bytes'], '1048576')
  assert.notEqual(now['retention.ms'], '3600000')
})

test('admin: partitions are added', async t => {
  const topic = await makeTopic(2)
  await admin.createPartitions({ topicPartitions: [{ topic, count: PARTITIONS }] })
  await until(async () => (await admin.fetchTopicOffsets(topic)).length === PARTITIONS, 'partitions')
  await fill(topic, 10, {}, { message: { partition: 3 } })
  const one = await member(t, fresh('group'), topic)
  await until(() => one.read.length === 10, '10 messages')
})

test('admin: records are deleted', async t => {
  const topic = await makeTopic(1)
  await fill(topic, 100)
  // It looks for the leader in what it knows of the topic, and does not ask.
  await admin.fetchTopicOffsets(topic)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '40' }] })
  assert.deepEqual((await admin.fetchTopicOffsets(topic)).map(p => [p.low, p.high]), [['40', '100']])
  const one = await member(t, fresh('group'), topic)
  await until(() => one.read.length === 60, '60 messages')
  assert.equal(one.read[0].offset, 40)
})
