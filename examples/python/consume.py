#!/usr/bin/env python3
"""Reads a topic from its beginning with librdkafka, hot and cold records alike. Needs: pip install confluent-kafka

    python consume.py [BOOTSTRAP] [TOPIC]
"""

import sys

from confluent_kafka import Consumer, TopicPartition

bootstrap = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
topic = sys.argv[2] if len(sys.argv) > 2 else "readings"

consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "example", "enable.auto.commit": False})
count = 0
for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    if low == high:
        continue
    consumer.assign([TopicPartition(topic, partition, low)])
    while True:
        message = consumer.poll(10)
        if message is None or message.error():
            sys.exit(f"partition {partition}: {message.error() if message else 'no answer'}")
        count += 1
        if message.offset() + 1 >= high:
            print(f"{topic}-{partition} {message.offset()} {message.key()} {message.value()}")
            break
consumer.close()
print(f"{count} records")
