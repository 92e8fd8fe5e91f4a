#!/usr/bin/env bash
# Install mmcv and show how far its compilation has come:
#     tools/install_mmcv.sh PYTHON REQUIREMENT
# Where a wheel fits, nothing is compiled. The whole output goes to mmcv.log beside the environment's folders.
set -eu -o pipefail
if [ $# -ne 2 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 2
fi
python=$1 requirement=$2
log=$(dirname "$(dirname "$python")")/mmcv.log

echo "Installing $requirement; if no wheel fits, its operators are compiled on ${MAX_JOBS:-all} cores."
# ninja begins each line with [files done/files in all].
if ! "$python" -m pip install -v --disable-pip-version-check --no-build-isolation "$requirement" 2>&1 | tee "$log" |
    awk 'match($0, /\[[0-9]+\/[0-9]+\]/) {
             printf "\rcompiled %s files of mmcv", substr($0, RSTART, RLENGTH); shown = 1; fflush()
         }
         END { if (shown) print "" }'; then
    tail -n 40 "$log" >&2
    echo "$requirement could not be installed; $log has the whole output." >&2
    exit 1
fi
