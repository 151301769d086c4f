#!/usr/bin/env bash
# Starts the three nodes of this folder as one cluster and stops them on Ctrl-C.
#
#   examples/cluster/run.sh [--data-dir DIR] [--first-port PORT]
#
# --data-dir: where the nodes and the lake are kept (default: forebay-cluster); started again on it, they go on.
# --first-port: twelve ports from this one on, instead of those in the configurations.
# The program is `forebay` on the PATH, or what FOREBAY_BIN names.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
data=forebay-cluster
first=
while [ $# -gt 0 ]; do
    case $1 in
        --data-dir) data=${2:?a directory}; shift 2 ;;
        --first-port) first=${2:?a port}; shift 2 ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
program=${FOREBAY_BIN:-forebay}
command -v "$program" >/dev/null || { echo "$program is not there: build it, and set FOREBAY_BIN or PATH" >&2; exit 1; }
mkdir -p "$data"
data=$(cd "$data" && pwd)

# Node, then which of its four listeners.
at() { echo "127.0.0.1:$((first + 4 * ($1 - 1) + $2))"; }

nodes=()
stop() {
    trap - INT TERM EXIT
    [ ${#nodes[@]} -eq 0 ] || kill "${nodes[@]}" 2>/dev/null || true
    wait
}
trap 'stop; exit 0' INT TERM
trap stop EXIT

for n in 1 2 3; do
    ports=()
    if [ -n "$first" ]; then
        ports=(--set "listeners.mqtt=$(at $n 0)" --set "listeners.kafka=$(at $n 1)" --set "listeners.http=$(at $n 2)"
            --set "cluster.peers=1@$(at 1 3),2@$(at 2 3),3@$(at 3 3)")
    fi
    # One lake for all: the node that leads a partition copies it.
    "$program" serve --config "$here/node$n.toml" --data-dir "$data/node$n" --set "object_store.url=file:$data/lake" \
        ${ports[@]+"${ports[@]}"} >"$data/node$n.out" 2>"$data/node$n.log" &
    nodes+=($!)
    echo $! >"$data/node$n.pid"
done

for n in 1 2 3; do
    patience=1200
    until grep -q '^forebay ready' "$data/node$n.out"; do
        patience=$((patience - 1))
        if [ $patience -eq 0 ]; then
            echo "node $n has not become ready within two minutes:" >&2
            tail -n 20 "$data/node$n.log" >&2
            exit 1
        fi
        for other in 1 2 3; do
            if ! kill -0 "${nodes[$((other - 1))]}" 2>/dev/null; then
                echo "node $other has ended:" >&2
                tail -n 20 "$data/node$other.log" >&2
                exit 1
            fi
        done
        sleep 0.1
    done
    grep '^forebay ready' "$data/node$n.out"
done

if [ -n "$first" ]; then http=$(at 1 2) kafka=$(at 1 1) mqtt=$(at 2 0); else http=127.0.0.1:18081 kafka=127.0.0.1:19091 mqtt=127.0.0.1:11882; fi
cat <<END

Three nodes are up; Ctrl-C stops them. Logs and process ids are in $data.
  nodes, leaders, in-sync replicas:  $program cluster status --url http://$http
  the console:                       http://$http/
  publish to one, read from another: mosquitto_pub -h ${mqtt%:*} -p ${mqtt#*:} -q 1 -t meters/m1/readings -m '{"ts": $(date +%s), "v": 230.1}'
                                     $program consume readings --bootstrap $kafka
  kill one and look again:           kill -9 \$(cat $data/node3.pid)
END

# A node that is killed is for the others to make up for: wait until all have ended.
wait
