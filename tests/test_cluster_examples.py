"""`examples/cluster`: the files are what Slurm and Kubernetes read, and their commands are right.

The scripts run with stand-ins for the programs of a cluster, which note how they are called; what
is called of ours is then called with --dry-run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import fsspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from pulse_sr.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS = sorted(EXAMPLES.glob("*.sbatch"))

#: What a cluster sets for the jobs.
SLURM = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "16",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "77",
    "START_S": "0",
}
_NOTE = """#!/bin/bash
for word in "$(basename "$0")" "$@"; do printf '%s\\0' "$word"; done >> "$NOTES"
printf '\\n' >> "$NOTES"
"""


@pytest.fixture
def calls(tmp_path):
    """A function that runs a script and gives what it calls, as lists of words."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "ray", "pulse-sr", "torchrun", "scontrol"):
        more = "printf 'n1\\nn2\\n'\n" if name == "scontrol" else ""
        (programs / name).write_text(_NOTE + more)
        (programs / name).chmod(0o755)
    notes = tmp_path / "notes"

    def run(script):
        paths = os.pathsep.join([str(programs), os.environ["PATH"]])
        env = os.environ | SLURM | {"PATH": paths, "NOTES": str(notes)}
        subprocess.run(["bash", str(script)], cwd=tmp_path, env=env, check=True, timeout=120)
        return [line.split("\0")[:-1] for line in notes.read_text().splitlines()]

    return run


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """The folder `faces` of the examples, in the working folder: pictures of 32 px."""
    monkeypatch.chdir(tmp_path)
    Path("faces").mkdir()
    rng = np.random.default_rng(0)
    for k in range(20):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"faces/{k:02d}.png")


def dry_run(words):
    """What one of our commands says that it would do."""
    result = CliRunner().invoke(main, [*words, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_for_slurm(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    head = [line for line in lines if line.startswith("#SBATCH")]
    # Slurm reads them up to the first line that is no comment.
    assert lines[1 : 1 + len(head)] == head
    names = "job-name|array|nodes|ntasks-per-node|gpus-per-node|cpus-per-task|mem|time|output"
    assert all(re.fullmatch(rf"#SBATCH --(({names})=\S+|requeue)", line) for line in head), head


def test_the_array_does_a_part_of_the_inputs(calls, faces):
    [words] = calls(EXAMPLES / "array.sbatch")
    assert words[0] == "pulse-sr"
    plan = dry_run(words[1:])
    assert [Path(task["path"]).name for task in plan["tasks"]] == ["03.png", "19.png"]


def test_ray_on_slurm_starts_a_cluster_and_uses_it(calls, faces):
    noted = calls(EXAMPLES / "ray.sbatch")
    starts = [words[words.index("ray") :] for words in noted if words[0] == "srun"]
    assert sorted(map(shlex.join, starts)) == [
        "ray start --address=n1:6379 --num-cpus=4 --block",
        "ray start --head --port=6379 --num-cpus=4 --include-dashboard=false --block",
    ]
    [words] = [words for words in noted if words[0] == "pulse-sr"]
    plan = dry_run(words[1:])
    assert (plan["settings"]["engine"], plan["settings"]["address"]) == ("ray", "n1:6379")
    assert len(plan["tasks"]) == 20


def test_training_over_nodes_is_a_command_of_ours(calls, faces):
    [_, words] = calls(EXAMPLES / "train.sbatch")
    assert words[:2] == ["srun", "torchrun"]
    assert "--rdzv-endpoint=n1:29500" in words
    assert "--nnodes=2" in words
    own = words[words.index("-m") + 1 :]
    assert own[0] == "pulse_sr"
    plan = CliRunner().invoke(main, [*own[1:], "--dry-run"])
    assert plan.exit_code == 0, plan.output


def test_the_job_of_kubernetes_is_one_and_its_command_is_right(faces):
    job = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {g["template"]["spec"]["containers"][0]["image"] for g in groups}
    assert len(images) == 1
    [workers] = spec["workerGroupSpecs"]
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/faces/a.png", Path("faces/00.png").read_bytes())
    words = shlex.split(job["spec"]["entrypoint"].replace("s3://", "memory://"))
    assert words[0] == "pulse-sr"
    plan = dry_run(words[1:])
    assert [task["path"] for task in plan["tasks"]] == ["memory:///bucket/faces/a.png"]
    assert plan["settings"]["workers"] == workers["replicas"]
    assert plan["settings"]["out"] == "memory://bucket/results"
    assert store.find("/bucket/results") == []
    store.store.clear()
