#!/usr/bin/env bash
# Four archives into stores, then the study and its report. Goes on where it was interrupted.
# usage: run.sh CT
set -euo pipefail
ct=$1
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../out/real # where study.toml looks for the stores

store() { # name, then what `ingest` takes
    local name=$1
    shift
    [ -e "$out/stores/$name" ] || hounsfield ingest "$@" --out "$out/stores/$name" --size 96 --workers 2
}

store ich "$ct/ich" --labels "$ct/ich/labels.csv"
store sts "$ct/sts/dicom" --labels "$ct/sts/labels.csv"
store lung "$ct/lung"
store lidc "$ct/lidc"
hounsfield study "$here/study.toml" --out "$out/study" --jobs 2
hounsfield report "$out/study"
