#!/usr/bin/env python3
"""A meter in Python: publishes readings with QoS 1 and waits for each PUBACK. Needs: pip install paho-mqtt

    python publish.py [HOST:PORT] [METER] [COUNT]
"""

import json
import sys
from datetime import datetime, timedelta, timezone

import paho.mqtt.client as mqtt

host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1883").rsplit(":", 1)
meter = sys.argv[2] if len(sys.argv) > 2 else "m1"
count = int(sys.argv[3]) if len(sys.argv) > 3 else 10

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=meter, protocol=mqtt.MQTTv5)
client.connect(host, int(port))
client.loop_start()
start = datetime.now(timezone.utc).replace(microsecond=0)
for n in range(count):
    reading = {"meter": meter, "ts": (start + timedelta(minutes=n)).isoformat().replace("+00:00", "Z"), "voltage": 230 + n % 7}
    info = client.publish(f"meters/{meter}/readings", json.dumps(reading, separators=(",", ":")), qos=1)
    info.wait_for_publish(10)  # the reading is on disk when this returns
print(f"{count} readings of {meter} are durable")
client.disconnect()
client.loop_stop()
