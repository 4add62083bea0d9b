#!/bin/sh
# Installs what was carried to a machine without a network, and runs the kit there:
#   sh benchmarks/gpu/start.sh WHEELS OUT --minutes 9 [further options of run.py]
# WHEELS: the folder of wheels.py, or one of its folders. OUT: results and logs, and gpu.tar.gz of them all; where
# WHEELS holds the gpu.tar.gz of an earlier call, the run goes on from it. Joined files lie in $S3T_KIT_SITE/files.
set -eu
wheels=$1 out=$2
shift 2
site=${S3T_KIT_SITE:-/tmp/s3t-gpu-site}
python=${PYTHON:-python3}
mkdir -p "$site/files" "$site/results" "$out"
# Parts of one file may have come in several transfers: they wait here for the last of them.
find "$wheels" -type f ! -name gpu.tar.gz -exec cp {} "$site/files/" \;
for first in "$site"/files/*.part-000; do
    [ -e "$first" ] || continue
    cat "${first%000}"* > "${first%.part-000}"
done
find "$wheels" -name gpu.tar.gz -exec tar -xzf {} -C "$site/results" \;
"$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site/packages" \
    "$site"/files/*.whl
PYTHONPATH="$site/packages${PYTHONPATH:+:$PYTHONPATH}" \
    "$python" benchmarks/gpu/run.py --out "$site/results" --bundle "$out/gpu.tar.gz" "$@" || code=$?

exit "${code:-0}"
