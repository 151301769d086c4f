"""The brokers that are measured, by the name that --peers takes."""

from .forebay import Forebay, ForebayLog
from .hivemq import HiveMq
from .kafka import Kafka, KafkaFsync
from .mosquitto import Mosquitto
from .rabbitmq import RabbitMq
from .rumqttd import Rumqttd

MQTT = {"mosquitto": Mosquitto, "rabbitmq": RabbitMq, "rumqttd": Rumqttd, "hivemq": HiveMq}
KAFKA = {"kafka": Kafka, "kafka-fsync": KafkaFsync}

__all__ = ["KAFKA", "MQTT", "Forebay", "ForebayLog"]
