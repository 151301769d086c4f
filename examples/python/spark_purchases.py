#!/usr/bin/env python3
"""The classic tutorial: purchases keyed by customer go into a topic, Spark reads the stream, prices them and writes a Delta table.
Needs: pip install pyspark==4.0.0 confluent-kafka, and Java 17

    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0,io.delta:delta-spark_2.13:4.0.0 \
        spark_purchases.py [BOOTSTRAP] [TABLE] [COUNT]

Run it again, and it goes on from its checkpoint: each purchase is in the table once.
"""

import json
import random
import sys

from confluent_kafka import Producer
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

TOPIC = "purchases"
PRICES = {"bread": 3.2, "milk": 1.1, "coffee": 7.9, "apples": 2.5}

bootstrap = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
table = sys.argv[2] if len(sys.argv) > 2 else "purchases"
count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000

producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "zstd"})
for _ in range(count):
    customer = f"customer-{random.randrange(20)}"
    purchase = {"customer": customer, "item": random.choice(list(PRICES)), "quantity": random.randrange(1, 6)}
    producer.produce(TOPIC, key=customer, value=json.dumps(purchase))
    producer.poll(0)
if producer.flush(30):
    sys.exit("not every purchase was acknowledged")

spark = (
    SparkSession.builder.appName("purchases")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .getOrCreate()
)
prices = spark.createDataFrame(list(PRICES.items()), "item string, price double")
purchases = (
    spark.readStream.format("kafka")
    .option("kafka.bootstrap.servers", bootstrap)
    .option("subscribe", TOPIC)
    .option("startingOffsets", "earliest")
    .load()
    .withColumn("purchase", f.from_json(f.col("value").cast("string"), "customer string, item string, quantity int"))
    .select("purchase.*", "partition", "offset", "timestamp")
    .join(prices, "item")
    .withColumn("amount", f.round(f.col("quantity") * f.col("price"), 2))
)
stream = (
    purchases.writeStream.format("delta")
    .option("checkpointLocation", f"{table}/_checkpoint")
    .trigger(availableNow=True)  # everything that is there now, then stop; without it the stream runs on
    .start(table)
)
stream.awaitTermination()

rows = spark.read.format("delta").load(table)
rows.groupBy("customer").agg(f.count("*").alias("purchases"), f.round(f.sum("amount"), 2).alias("amount")).orderBy("customer").show()
print(f"{rows.count()} purchases in {table}")
spark.stop()
