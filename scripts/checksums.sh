#!/usr/bin/env bash
# What the commands write, as checksums: the same before and after a change that must not change results.
#     scripts/checksums.sh TREE PHOTO IMAGES >before      TREE: a checkout; PHOTO: one with several faces;
#                                                         IMAGES: a folder of training images
# Pictures and tensors count; dates, seconds and versions in text files do not. PYTHON names the interpreter,
# KIMG how many thousand images a training sees.
set -euo pipefail
tree=$(realpath "$1") photo=$(realpath "$2") images=$(realpath "$3")
python=${PYTHON:-python3} kimg_in_all=${KIMG:-2}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export PYTHONPATH=$tree STYLEGAN_OPS=ref OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
cd "$out"
call() { "$python" -m pulse_sr "$@" --device cpu >log 2>&1 || { cat log >&2; exit 1; }; }
call run "$tree/examples/face_lr.png" --samples 8 -o readme
call run "$photo" --samples 2 -o photo
"$python" -m pulse_sr align "$photo" --lr 16,32 -o align >log 2>&1
for arch in stylegan2 fastgan; do
    options=(--resolution 32)
    [ $arch = stylegan2 ] || options=(--resolution 64 --ngf 16) # the smallest that it takes
    for kimg in "$("$python" -c "print($kimg_in_all / 2)")" "$kimg_in_all"; do # the second call resumes
        call train-prior "$images" -o "train-$arch" --arch $arch "${options[@]}" --kimg "$kimg" --score-samples 0
    done
    rm -rf "train-$arch/cache"
done
find . \( -name '*.png' -o -name '*.jpg' \) ! -path './train-*' | sort | xargs sha256sum
# Tensors alone: headers name versions.
"$python" - <<'PY'
import hashlib
from pathlib import Path

from safetensors.numpy import load_file

for path in sorted(Path().glob("train-*/*.safetensors")):
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(name.encode() + tensor.tobytes())
    print(f"{digest.hexdigest()}  {path} (tensors)")
PY
