#!/usr/bin/env bash
# Everything that needs a GPU, in the order of value, within a given time:
#
#   bash scripts/gpu_run.sh SECONDS OUT_DIR [--steps NAME,NAME] [--rehearse]
#
# Steps: environment build tests memcheck racecheck bench-ops bench-search bench-match bench-1024
# bench-train training.
# Each has a share of the time (scripts/gpu/budget.py) and is stopped at its limit; one that fails
# does not stop the others. OUT_DIR gets summary.json, summary.txt, logs.tar.gz and, of the training,
# SHA256SUMS, state.safetensors.part-*, model.safetensors and the last grid of samples: at most 8
# files below 16 MiB. The state is put together by
#
#   python scripts/gpu/parts.py join OUT_DIR state.safetensors
#
# Nothing is downloaded or installed. Needed: a checkout, and a python3 (or what PYTHON names) with
# torch >= 2.10, numpy, pillow, click, safetensors, scipy and pytest, and nvcc with ninja and a C++
# compiler. lpips, face-alignment and tqdm are not imported by anything here. What a python lacks can
# be brought as wheels: unpack them with `pip install --target` and name the folder in PYTHONPATH.
#
# The training goes on where runs/faces128/state.safetensors stands, or the bundled state if there is
# none, on the images of runs/faces-128.zip, which is made by
#
#   python scripts/gpu/pack_images.py faces/train runs/faces-128.zip --quality 72
#
# (both paths are ignored by git: name them when the checkout is copied). Without the archive there
# is no training. To give all the time to the training: --steps training.
#
# --rehearse runs every step at toy size on the CPU, in less than 4 minutes on 2 cores (SECONDS 210):
# the CPU library only, a few CPU tests instead of the GPU's, no sanitizer, benchmarks of the smallest
# shapes, and a training of some seconds on random pictures.
set -u

usage() {
    echo "usage: gpu_run.sh SECONDS OUT_DIR [--steps NAME,NAME] [--rehearse]" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 2
helpers=$root/scripts/gpu
python=${PYTHON:-python3}
rehearse=
names=all
positional=()
while [ $# -gt 0 ]; do
    case $1 in
        --rehearse) rehearse=1 ;;
        --steps) names=${2:-}; [ $# -gt 1 ] || usage; shift ;;
        -*) usage ;;
        *) positional+=("$1") ;;
    esac
    shift
done
[ "${#positional[@]}" -eq 2 ] || usage
budget=${positional[0]}
[[ $budget =~ ^[0-9]+$ ]] && [ "$budget" -ge 60 ] || { echo "error: SECONDS is a number from 60" >&2; exit 2; }
steps=$("$python" "$helpers/budget.py" "$names") || exit 2
steps=${steps// /,}
mkdir -p "${positional[1]}" || exit 2
out=$(cd "${positional[1]}" && pwd) || exit 2

cd "$root" || exit 2
work=$(mktemp -d) || exit 2
logs=$work/logs
mkdir "$logs" || exit 2
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# Where the tests look for the compiled ops: so they are built once.
export STYLEGAN_OPS_CACHE=$root/.pytest_cache/d/stylegan_ops
reserve=25      # seconds for collecting, and for a step that does not end when it is told to
least=()
device=cuda
run_dir=$root/runs/faces128
if [ -n "$rehearse" ]; then
    reserve=12
    least=(3)
    device=cpu
    run_dir=$work/run
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # threads that wait for each other need idle cores
fi

child=
collected=
collect() {
    [ -z "$collected" ] || return 0
    collected=1
    local trained=()
    [ ! -f "$work/trained" ] || trained=("$run_dir")
    "$python" "$helpers/results.py" "$work" "$out" "$budget" "$SECONDS" ${trained[@]+"${trained[@]}"}
    local code=$?
    rm -rf "$work"
    return "$code"
}
stop() {  # stop CODE: the outer time is over, keep what there is
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null
        wait "$child" 2>/dev/null
        record "$name" "$limit" "$((SECONDS - began))" "$1" "stopped from outside"
    fi
    exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT
trap collect EXIT

record() {  # record STEP LIMIT SECONDS CODE NOTE
    printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$work/steps.tsv"
}

name=
limit=0
note=
began=0
begin() {  # begin STEP: is it wanted, and is there time? Sets name and limit.
    name=$1
    note=
    [[ ,$steps, == *,"$name",* ]] || return 1
    limit=$("$python" "$helpers/budget.py" "$name" "$steps" "$((budget - SECONDS - reserve))" ${least[@]+"${least[@]}"})
    if [ "${limit:-0}" -gt 0 ]; then
        echo "[$SECONDS s] $name, at most $limit s"
        return 0
    fi
    record "$name" 0 0 - "no time left"
    return 1
}
skip() {  # skip REASON
    record "$name" 0 0 - "$1"
}
run() {  # run COMMAND...: what it prints goes to NAME.out and NAME.log
    local code
    began=$SECONDS
    timeout -k 10 "$limit" "$@" >"$logs/$name.out" 2>"$logs/$name.log" </dev/null &
    child=$!
    wait "$child"
    code=$?
    child=
    record "$name" "$limit" "$((SECONDS - began))" "$code" "$note"
    return "$code"
}

if begin environment; then
    run "$python" "$helpers/machine.py"
fi

if begin build; then
    if [ -n "$rehearse" ]; then
        note="CPU library only"
        run "$python" -c "from stylegan_ops import build; print('cpu:', build.build('cpu', print))"
    else
        run "$python" -m pulse_sr doctor --build
    fi
fi

if begin tests; then
    if [ -n "$rehearse" ]; then
        note="CPU instead of GPU"
        run "$python" -m pytest tests/test_compiled_ops.py -k "torch_compile or every_format"
    else
        run "$python" -m pytest -m gpu --durations=10
    fi
fi

for tool in memcheck racecheck; do
    begin "$tool" || continue
    if [ -n "$rehearse" ]; then
        skip "needs a GPU"
    elif ! command -v compute-sanitizer >/dev/null; then
        skip "there is no compute-sanitizer"
    else
        # Without torch's cache of memory every tensor has bounds that the tool can see.
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 run compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$python" -m pytest -m gpu -k sanitize
    fi
done

as_text() {  # as_text FUNCTION: the report of this step, of pulse_sr.cli.bench_text, to NAME.txt
    "$python" - "$1" "$logs/$name" <<'PY'
import json, pathlib, sys
from pulse_sr.cli import bench_text
function, report = sys.argv[1:]
lines = getattr(bench_text, function)(json.loads(pathlib.Path(report + ".out").read_text()))
pathlib.Path(report + ".txt").write_text("\n".join(lines) + "\n")
PY
}

if begin bench-ops; then
    run "$python" -m pulse_sr bench ops --device "$device" --json --time "$((limit * 7 / 10))s" \
        --repeats "$([ -n "$rehearse" ] && echo 1 || echo 5)" && as_text ops_lines
fi

if begin bench-search; then
    if [ -n "$rehearse" ]; then
        settings=(--samples 1 --steps 2 --repeats 1)
    else
        settings=(--repeats 2)
    fi
    run "$python" -m pulse_sr bench search --device "$device" --json --time "$((limit / 2))s" \
        "${settings[@]}" && as_text search_lines
fi

if begin bench-match; then
    if [ -n "$rehearse" ]; then
        settings=(--samples 1 --repeats 1)
    else
        settings=(--repeats 3)
    fi
    run "$python" -m pulse_sr bench match --device "$device" --json "${settings[@]}" && as_text match_lines
fi

if begin bench-1024; then
    if [ -n "$rehearse" ]; then
        side=16 settings=(--samples 1 --steps 3 --baseline-steps 2 --repeats 1)
        note="$side px instead of 1024"
    else
        # The plain loop is slow: ten of its steps stand for a hundred.
        side=1024 settings=(--samples 8 --steps 100 --baseline-steps 10 --repeats 1)
    fi
    started=$SECONDS
    prior=$work/random-$side.safetensors
    timeout -k 10 "$limit" "$python" "$helpers/material.py" prior "$side" "$prior" >"$logs/prior.log" 2>&1
    limit=$((limit - SECONDS + started))
    if [ -f "$prior" ] && [ "$limit" -gt 0 ]; then
        run "$python" -m pulse_sr bench search --device "$device" --json --prior "$prior" \
            --time "$((limit / 2))s" "${settings[@]}" && as_text search_lines
    else
        skip "the random prior was not made in time (logs/prior.log)"
    fi
fi

if begin bench-train; then
    if [ -n "$rehearse" ]; then
        note="64 px, narrow"
        run "$python" -m pulse_sr bench train --device cpu --json --resolution 64 --batch 2 --ngf 8 \
            --steps 1 --repeats 1
    else
        run "$python" -m pulse_sr bench train --device cuda --json --steps 12 --repeats 3
    fi
fi

if begin training; then
    started=$SECONDS
    if [ -n "$rehearse" ]; then
        images=$work/images
        "$python" "$helpers/material.py" images 16 24 "$images" >"$logs/images.log" 2>&1
        settings=(--resolution 16 --channel-base 256 --channel-max 16 --w-dim 16 --batch 4)
        time=8
    else
        images=$root/runs/faces-128/train
        if [ -f runs/faces-128.zip ] && [ ! -d "$images" ]; then
            "$python" -m zipfile -e runs/faces-128.zip "$images" >"$logs/images.log" 2>&1
        fi
        if [ ! -f "$run_dir/state.safetensors" ]; then
            mkdir -p "$run_dir" && cp scripts/bundled/faces-128-state.safetensors "$run_dir/state.safetensors"
        fi
        settings=(--resolution 128 --gamma 0.4 --augment off)
        time=$((limit - 50))  # for importing, decoding, and the last checkpoint
    fi
    limit=$((limit - SECONDS + started))
    if [ ! -d "$images" ]; then
        skip "no images: see the head of scripts/gpu_run.sh"
    else
        touch "$work/trained"
        run "$python" -m pulse_sr train-prior "$images" -o "$run_dir" --device "$device" --json \
            --time "${time}s" "${settings[@]}"
    fi
fi

collect
exit $?
