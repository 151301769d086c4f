#!/usr/bin/env python3
"""Reads a topic's Delta table with deltalake and pyarrow. Needs: pip install deltalake pyarrow

    python lake.py [TABLE]
"""

import sys

from deltalake import DeltaTable

table = DeltaTable(sys.argv[1] if len(sys.argv) > 1 else "forebay-data/lake/readings")
rows = table.to_pyarrow_dataset().to_table(use_threads=False)
print(f"version {table.version()}: {rows.num_rows} rows in {len(table.file_uris())} files")
print(rows.schema.to_string(show_field_metadata=False))
for partition, end in sorted(rows.group_by("_partition").aggregate([("_offset", "max")]).to_pydict().items()):
    print(partition, end)
