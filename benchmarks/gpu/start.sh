#!/bin/sh
# Installs the transferred packages on a machine without network access, and runs the kit there:
#   sh benchmarks/gpu/start.sh WHEELS OUT --minutes 9 [further options of run.py]
# WHEELS: the folder of wheels.py, or one of its subfolders. OUT: results and logs, and gpu.tar.gz with all of them. If
# WHEELS contains the gpu.tar.gz of an earlier call, the run continues from it. Joined files are in $S3T_KIT_SITE/files.
set -eu
wheels=$1 out=$2
shift 2
site=${S3T_KIT_SITE:-/tmp/s3t-gpu-site}
python=${PYTHON:-python3}
mkdir -p "$site/files" "$site/results" "$out"
# Parts of one file may arrive in several transfers, so they are kept here until the last arrives.
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
