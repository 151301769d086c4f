"""Spark's Kafka connector against one listener: batch and streaming reads and writes, and a stream that goes on from its checkpoint.

    spark-submit --jars JARS spark_kafka_client.py BOOTSTRAP FOLDER

FOLDER takes checkpoints and sinks. Exits with 0 when all of it held.
"""

import json
import sys
import uuid

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

PARTITIONS = 4
ROWS = 2000


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(part) for part in what))


def name(what):
    return f"spark-{what}-{uuid.uuid4().hex[:8]}"


class Job:
    def __init__(self, bootstrap, folder):
        self.bootstrap, self.folder = bootstrap, folder
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        self.spark = builder.config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC").getOrCreate()
        self.spark.sparkContext.setLogLevel("ERROR")

    def options(self, **more):
        # Each cached consumer waits for its last fetch when the program ends.
        return {"kafka.bootstrap.servers": self.bootstrap, "kafka.fetch.max.wait.ms": "50", **more}

    def read(self, topic, **options):
        return self.spark.read.format("kafka").options(**self.options(subscribe=topic, **options)).load()

    def rows(self, first, count):
        """Rows of known key, value, partition and header: `n` is in partition n % PARTITIONS."""
        return self.spark.range(first, first + count).select(
            f.concat(f.lit("customer "), f.col("id") % 50).cast("binary").alias("key"),
            f.concat(f.lit("purchase "), f.col("id")).cast("binary").alias("value"),
            (f.col("id") % PARTITIONS).cast("int").alias("partition"),
            f.array(f.struct(f.lit("n").alias("key"), f.col("id").cast("string").cast("binary").alias("value"))).alias("headers"),
        )

    def write(self, topic, first, count, **options):
        self.rows(first, count).write.format("kafka").options(**self.options(topic=topic, **options)).save()

    def numbers(self, frame):
        return sorted(int(row.value.split()[1]) for row in frame.selectExpr("cast(value as string) as value").collect())

    def batch(self):
        topic = name("batch")
        self.write(topic, 0, ROWS, **{"kafka.compression.type": "zstd", "includeHeaders": "true"})
        everything = self.read(topic, includeHeaders="true")
        check(self.numbers(everything) == list(range(ROWS)), "a batch of everything")
        found = {row.partition: (row.first, row.last, row.n) for row in everything.groupBy("partition").agg(
            f.min("offset").alias("first"), f.max("offset").alias("last"), f.count("*").alias("n")).collect()}
        each = ROWS // PARTITIONS
        check(found == {part: (0, each - 1, each) for part in range(PARTITIONS)}, "offsets", found)
        row = everything.where("cast(value as string) = 'purchase 77'").first()
        check((bytes(row.key), row.partition, bytes(row.headers[0].value)) == (b"customer 27", 77 % PARTITIONS, b"77"), row)

        borders = lambda start, end: {  # noqa: E731
            "startingOffsets": json.dumps({topic: start}), "endingOffsets": json.dumps({topic: end})}  # fmt: skip
        places = lambda offset: {str(part): offset for part in range(PARTITIONS)}  # noqa: E731
        middle = self.read(topic, **borders(places(100), places(110))).select("partition", "offset").collect()
        check(sorted(map(tuple, middle)) == [(part, n) for part in range(PARTITIONS) for n in range(100, 110)], "from the middle", middle)
        # -2 and -1 are the first and the last offset in the connector's language.
        check(self.read(topic, **borders(places(-2), places(-1))).count() == ROWS, "from -2 to -1")
        split = self.read(topic, minPartitions="12")
        check(split.rdd.getNumPartitions() >= 12 and split.count() == ROWS, "more tasks than partitions")
        check(self.spark.read.format("kafka").options(**self.options(subscribePattern=f"{topic[:-3]}.*")).load().count() == ROWS, "a pattern")

    def batch_by_time(self):
        topic = name("time")
        self.write(topic, 0, ROWS)
        middle = self.read(topic).orderBy("timestamp").select("timestamp").collect()[ROWS // 2].timestamp
        since = int(middle.timestamp() * 1000)
        late = self.read(topic, startingTimestamp=str(since))
        # Two producers write to each partition, so an older record may follow: what counts is the first offset of that time.
        rows = self.read(topic).select("partition", "offset", f.unix_millis("timestamp").alias("time"))
        first = rows.where(f.col("time") >= since).groupBy("partition").agg(f.min("offset").alias("first"))
        wanted = sorted(map(tuple, rows.join(first, "partition").where("offset >= first").select("partition", "offset").collect()))
        found = sorted(map(tuple, late.select("partition", "offset").collect()))
        check(0 < len(wanted) < ROWS and found == wanted, "from a time on", len(found), len(wanted))
        never = self.read(topic, startingTimestamp=str(since + 10**9), startingOffsetsByTimestampStrategy="latest")
        check(never.count() == 0, "from the future")

    def stream(self, topic, sink, **options):
        source = self.spark.readStream.format("kafka").options(**self.options(subscribe=topic, startingOffsets="earliest", **options)).load()
        query = (
            source.selectExpr("cast(value as string) as value", "partition", "offset")
            .writeStream.format("parquet")
            .option("checkpointLocation", f"{self.folder}/{sink}-checkpoint")
            .trigger(availableNow=True)
            .start(f"{self.folder}/{sink}")
        )
        query.awaitTermination()
        return query

    def streaming(self):
        topic, sink = name("stream"), "streamed"
        self.write(topic, 0, ROWS)
        query = self.stream(topic, sink, maxOffsetsPerTrigger="500")
        check(len([step for step in query.recentProgress if step["numInputRows"]]) >= 4, "micro-batches of a limited size")
        table = lambda: self.spark.read.parquet(f"{self.folder}/{sink}")  # noqa: E731
        check(self.numbers(table()) == list(range(ROWS)), "the stream's first rows")
        self.write(topic, ROWS, ROWS)
        self.stream(topic, sink)
        check(self.numbers(table()) == list(range(2 * ROWS)), "after a restart from the checkpoint")
        check(table().select("partition", "offset").distinct().count() == 2 * ROWS, "each offset once")
        self.stream(topic, sink)
        check(table().count() == 2 * ROWS, "nothing new, nothing twice")
        self.onwards(topic)

    def onwards(self, topic):
        """From topic to topic, with a count per key in between."""
        onward = name("counts")
        source = self.spark.readStream.format("kafka").options(**self.options(subscribe=topic, startingOffsets="earliest")).load()
        query = (
            source.groupBy("key").count().select("key", f.col("count").cast("string").alias("value"))
            .writeStream.format("kafka")
            .options(**self.options(topic=onward))
            .option("checkpointLocation", f"{self.folder}/{onward}-checkpoint")
            .outputMode("update")
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        counts = {bytes(row.key): int(bytes(row.value)) for row in self.read(onward).orderBy("timestamp", "offset").collect()}
        check(len(counts) == 50 and sum(counts.values()) == 2 * ROWS, "counts per customer", counts)


job = Job(*sys.argv[1:3])
job.batch()
job.batch_by_time()
job.streaming()
job.spark.stop()
print("spark and the topics agree")
