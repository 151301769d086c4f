#!/usr/bin/env bash
# Runs real clients against a real node: paho, mosquitto, kcat, librdkafka, kafka-python (with its own test suite), aiokafka,
# KafkaJS, Kafka's Java tools, Spark on topics, and readers of the lake (deltalake, pyarrow, DuckDB, Spark). Installs what is
# missing: Debian packages as root; Python packages, jars from Maven and npm's packages into a folder outside the tree.
# Takes the binary that `cargo test --workspace` built. Names of modules (test_chaos) run these alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
export FOREBAY_BIN=${FOREBAY_BIN:-$(realpath "$target")/debug/forebay}
tools=${FOREBAY_INTEROP_DIR:-${TMPDIR:-/tmp}/forebay-interop}
export FOREBAY_INTEROP_DIR=$tools
mkdir -p "$tools"

[ -x "$FOREBAY_BIN" ] || { echo "$FOREBAY_BIN is missing: run cargo test --workspace first"; exit 1; }

missing=()
command -v kcat >/dev/null || missing+=(kcat)
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v openssl >/dev/null || missing+=(openssl)
command -v ip >/dev/null || missing+=(iproute2)
command -v npm >/dev/null || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
fi

venv=$tools/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q -r tests/interop/requirements.txt

"$venv/bin/python" -u -W ignore::ResourceWarning tests/interop/all.py "$@"
