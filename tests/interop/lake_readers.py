"""deltalake, pyarrow and duckdb read one lake table and agree: every (_partition, _offset) is there exactly once.

    python lake_readers.py TABLE [ROWS] [--end PARTITION=OFFSET]...

TABLE is a folder or URL. `--end` names the offset after a partition's last record; partitions that are not named must be
contiguous all the same. Exits with 0 when all of it held.
"""

import argparse
import sys
from urllib.parse import unquote, urlparse

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

SYSTEM = {
    "_partition": "int32",
    "_offset": "int64",
    "_timestamp": "timestamp[us, tz=UTC]",
    "_key": "binary",
    "_headers": None,
    "_value": "binary",
    "_error": "string",
}


def check(condition, *what):
    if not condition:
        sys.exit("lake_readers: " + " ".join(str(part) for part in what))


def plain(data_type):
    """Readers choose between an Arrow type, its large and its view form: that is no difference."""
    return str(data_type).replace("large_", "").replace("_view", "")


def check_extents(reader, extents, rows, ends):
    """`extents`: partition, rows, distinct offsets, first and last offset."""
    total = 0
    for partition, count, distinct, first, last in sorted(extents):
        check(count == distinct, f"{reader}: partition {partition} has {count} rows but {distinct} offsets")
        check(last - first + 1 == count, f"{reader}: partition {partition} has {count} rows in {first}..{last}")
        if partition in ends:
            check(last + 1 == ends[partition], f"{reader}: partition {partition} ends at {last + 1}, not {ends[partition]}")
        total += count
    found = {extent[0] for extent in extents}
    missing = sorted(partition for partition, end in ends.items() if end > 0 and partition not in found)
    check(not missing, f"{reader}: no rows of partitions", missing)
    if rows is not None:
        check(total == rows, f"{reader}: {total} rows, expected {rows}")
    print(f"{reader}: {total} rows in {len(found)} partitions, each offset once")
    return total


def arrow_extents(table):
    grouped = table.group_by("_partition").aggregate(
        [("_offset", "count"), ("_offset", "count_distinct"), ("_offset", "min"), ("_offset", "max")]
    )
    columns = ("_partition", "_offset_count", "_offset_count_distinct", "_offset_min", "_offset_max")
    return list(zip(*(grouped[column].to_pylist() for column in columns)))


def check_rows(table):
    """What the contract says of a row: the columns, and when `_value` and `_error` are there."""
    for name, wanted in SYSTEM.items():
        check(name in table.column_names, "no column", name)
        found = plain(table.schema.field(name).type)
        check(wanted is None or found == wanted, f"column {name} is {found}, not {wanted}")
    check("_date" in table.column_names, "no column _date")
    lost = pc.and_(pc.is_valid(table["_error"]), pc.is_null(table["_value"]))
    check(not pc.any(lost).as_py(), "rows with an _error but without their bytes in _value")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("rows", type=int, nargs="?")
    parser.add_argument("--end", action="append", default=[], metavar="PARTITION=OFFSET")
    args = parser.parse_args()
    ends = {int(partition): int(end) for partition, end in (pair.split("=") for pair in args.end)}

    delta = DeltaTable(args.table)
    table = delta.to_pyarrow_table()
    check_rows(table)
    total = check_extents("deltalake", arrow_extents(table), args.rows, ends)

    uris = delta.file_uris()
    files = [unquote(urlparse(uri).path) if "://" in uri else uri for uri in uris]
    columns = ds.dataset(files, format="parquet").to_table(columns=["_partition", "_offset"])
    check_extents("pyarrow", arrow_extents(columns), total, ends)
    for file in files:
        check(pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD", file, "is not zstd")

    # Without its delta extension, which it would download: the files that the table lists.
    extents = duckdb.connect().execute(
        "select _partition, count(*), count(distinct _offset), min(_offset), max(_offset)"
        " from read_parquet($files, union_by_name = true, hive_partitioning = true) group by 1",
        {"files": files},
    )
    check_extents("duckdb", extents.fetchall(), total, ends)


if __name__ == "__main__":
    main()
