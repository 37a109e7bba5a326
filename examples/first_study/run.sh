#!/usr/bin/env bash
# Head CT into a store, then the study and its report. Goes on where it was interrupted.
# usage: run.sh CT
set -euo pipefail
ct=$1
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../out/first_study # where study.toml looks for the store

[ -e "$out/stores/ich" ] ||
    hounsfield ingest "$ct/ich" --labels "$ct/ich/labels.csv" --out "$out/stores/ich" --size 128 --crop body
hounsfield study "$here/study.toml" --out "$out/study" --jobs 2
hounsfield report "$out/study"
