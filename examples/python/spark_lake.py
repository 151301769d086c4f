#!/usr/bin/env python3
"""Reads a topic's Delta table with Spark: energy per meter. Needs: pip install pyspark delta-spark

    python spark_lake.py [TABLE]
"""

import sys

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

builder = (
    SparkSession.builder.appName("forebay")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
)
spark = configure_spark_with_delta_pip(builder).getOrCreate()
table = spark.read.format("delta").load(sys.argv[1] if len(sys.argv) > 1 else "forebay-data/lake/readings")
table.groupBy("meter").count().orderBy("meter").show(50)
