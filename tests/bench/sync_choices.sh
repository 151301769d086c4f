#!/usr/bin/env bash
# How should four partitions become durable? Measured with fio (apt install fio) on the file system of the given directory:
# four files synced side by side, the same in turn, and one journal for all, by plain system calls and by io_uring.
#
#   tests/bench/sync_choices.sh [DIRECTORY] [SECONDS A RUN] [ROUNDS]
set -euo pipefail

directory=${1:-$(mktemp -d)}
seconds=${2:-4}
rounds=${3:-3}
command -v fio >/dev/null || { echo "fio is missing: apt install fio"; exit 1; }
mkdir -p "$directory"

run() {
    local name=$1
    shift
    fio --name="$name" --directory="$directory" --size=256m --runtime="$seconds" --time_based --rw=write --fdatasync=1 \
        --fallocate=none --group_reporting --thread --output-format=json "$@" 2>/dev/null | python3 -c '
import json, sys
text = sys.stdin.read()
job = json.loads(text[text.index("{"):])["jobs"][0]
sync = job["sync"]["lat_ns"]
print("%-30s %7.1f MB/s  %7.0f syncs/s  sync p50 %6.0f us  mean %6.0f us" % (
    sys.argv[1], job["write"]["bw_bytes"] / 1e6, job["write"]["iops"], sync["percentile"]["50.000000"] / 1e3, sync["mean"] / 1e3))
' "$name"
    rm -f "$directory/$name".*
}

for _ in $(seq "$rounds"); do
    run "4 files of 64 KiB, side by side" --ioengine=psync --bs=64k --numjobs=4
    run "4 files of 64 KiB, in turn" --ioengine=psync --bs=64k --nrfiles=4 --file_service_type=roundrobin
    run "1 journal of 256 KiB writes" --ioengine=psync --bs=256k
    run "4 files, io_uring" --ioengine=io_uring --iodepth=1 --bs=64k --numjobs=4
    run "1 journal, io_uring" --ioengine=io_uring --iodepth=1 --bs=256k
done
