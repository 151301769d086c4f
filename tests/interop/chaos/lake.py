"""The lake as delta-rs reads it."""

from deltalake import DeltaTable


def rows(path):
    """(partition, offset, device, number) of every row."""
    table = DeltaTable(str(path)).to_pyarrow_table(columns=["_partition", "_offset", "device", "seq"])
    return list(zip(*(table[name].to_pylist() for name in ("_partition", "_offset", "device", "seq"))))
