"""What `launch: {type: slurm}` makes of its keys: the batch script as text, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import get_job
from toolkit.config import ConfigError, to_yaml
from toolkit.launch.launcher import Array, Order

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = """\
#!/bin/bash
#SBATCH --job-name="my run"
#SBATCH --account=lab
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:a100:4
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --mail-user=me@site.org
#SBATCH --mail-type=BEGIN,END,FAIL,REQUEUE
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR2@300
#SBATCH --chdir={here}
#SBATCH --output="{here}/output/my run/slurm/slurm-%j.out"
#SBATCH --exclusive
#SBATCH --licenses="a b"

# each task learns its rank from SLURM; they meet at the first machine of the job
export AITK_LAUNCHED=slurm
export AITK_RUN_FOLDER='{here}/output/my run'
export AITK_SCRIPT='{here}/output/my run/slurm/submit.sbatch'
export AITK_MAX_REQUEUES=7
export AITK_STOP_SIGNAL=USR2
export AITK_SIGNAL_LEAD_S=300
export AITK_GPUS_PER_NODE=4
export AITK_PROGRESS='{here}/output/my run'
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 NCCL_DEBUG="${{NCCL_DEBUG:-VERSION}}"
export AITK_LOCAL="${{SLURM_TMPDIR:-${{TMPDIR:-/tmp}}}}/aitk-$SLURM_JOB_ID"
trap 'rm -rf "$AITK_LOCAL"; timeout 60 srun --overlap --ntasks=2 --ntasks-per-node=1 rm -rf "$AITK_LOCAL" \
2> /dev/null' EXIT
export TRITON_CACHE_DIR="$AITK_LOCAL/triton" TORCHINDUCTOR_CACHE_DIR="$AITK_LOCAL/inductor"
# what an earlier start has loaded from the Hub is not asked for again
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] && [ -e '{here}/output/my run/checkpoints.json' ]; then
    export HF_HUB_OFFLINE="${{HF_HUB_OFFLINE:-1}}"
fi

module load cuda/12 || exit 1
source /envs/aitk/bin/activate || exit 1
export NCCL_IB_HCA=mlx5
export WANDB_API_KEY="${{SITE_KEY}}"
ulimit -n 65536

echo "job $SLURM_JOB_ID, start $((${{SLURM_RESTART_COUNT:-0}} + 1)), on $SLURM_JOB_NODELIST"
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=index,name,driver_version,memory.total \
--format=csv,noheader && nvidia-smi topo -m
srun --kill-on-bad-exit=1 --wait=0 --export=ALL --cpus-per-task=8 python {root}/run.py \
'{here}/output/my run/slurm/config.yaml'
code=$?
echo over
exit $code
"""


def config(name: str = "my run", **launch: Any) -> dict[str, Any]:
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "network": {"type": "lora", "linear": 2},
        "datasets": [{"folder_path": str(ROOT / "datasets/mochi"), "resolution": 64}],
    }
    launch = {"type": "slurm", **launch}
    return {"job": "extension", "config": {"name": name, "launch": launch, "process": [process]}}


def order(*options: str, **fields: Any) -> Order:
    return Order([sys.executable, str(ROOT / "run.py"), "job.yaml", *options], **fields)


def script(source: dict[str, Any], what: Order | None = None) -> str:
    job = get_job(source)
    assert job.launcher is not None
    return str(job.launcher.build(job).script(what or order()).text())


def problems(source: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        get_job(source)
    return str(caught.value)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a user without profiles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return tmp_path


def test_the_script_word_for_word(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", "a-secret-value")
    source = config(
        account="lab",
        partition="gpu",
        nodes=2,
        gres="gpu:a100:4",
        cpus_per_task=8,
        mem=0,
        time="12:00:00",
        mail="me@site.org",
        max_requeues=7,
        signal_lead_s=300,
        modules=["cuda/12"],
        venv="/envs/aitk",
        env={"NCCL_IB_HCA": "mlx5", "WANDB_API_KEY": "${SITE_KEY}"},
        setup=["ulimit -n 65536"],
        teardown=["echo over"],
        extra={"exclusive": True, "licenses": "a b", "oversubscribe": False},
    )
    assert script(source) == GOLDEN.format(here=here, root=ROOT)


def test_scripts_are_shell(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", "x")
    for launch in ({}, {"torchrun": True, "nodes": 2}, {"env": {"A": 'it\'s "${SITE_KEY}" `x` $y'}}):
        checked = subprocess.run(["bash", "-n"], input=script(config(**launch)), text=True, capture_output=True)
        assert checked.returncode == 0 and not checked.stderr
    line = next(
        line for line in script(config(env={"A": 'a "${SITE_KEY}" `x` \\ b'})).splitlines() if "export A=" in line
    )
    shown = subprocess.run(
        ["bash", "-c", f'{line}; printf %s "$A"'], text=True, capture_output=True, env={"SITE_KEY": "1"}
    )
    assert shown.stdout == 'a "1" `x` \\ b'


def test_torchrun_hears_the_signal_and_leaves_time_to_save(here: Path) -> None:
    text = script(config(torchrun=True, nodes=2, gpus_per_node=4, cpus_per_task=3, signal_lead_s=200))
    assert "#SBATCH --ntasks-per-node=1\n" in text and "#SBATCH --cpus-per-task=12\n" in text
    assert "export OMP_NUM_THREADS=3 " in text
    for part in (
        '\'exec "$0" -m torch.distributed.run --nnodes=$SLURM_NNODES --rdzv-backend=c10d ',
        "--rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT --nproc-per-node=4",
        "--signals-to-handle=SIGUSR2,SIGTERM,SIGINT --shutdown-timeout=170",
    ):
        assert part in text
    alone = script(config(torchrun=True))
    assert "--standalone --nproc-per-node=1" in alone and "rdzv" not in alone


def test_a_container_sees_the_program_the_results_and_the_working_folder(here: Path) -> None:
    text = script(config("run", container={"image": "site/torch:1", "mounts": ["/data:/data"]}))
    mounts = f"--container-mounts={ROOT}:{ROOT},{here}/output:{here}/output,{here}:{here},/data:/data"
    assert f"--container-image=site/torch:1 {mounts} --container-workdir={here} python " in text


@pytest.mark.parametrize(
    "task, asked", [({}, "requeue 7"), ({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "0"}, "requeue 5_0")]
)
def test_from_a_container_the_script_asks_for_another_start(here: Path, task: dict[str, str], asked: str) -> None:
    text = script(config("run", container={"image": "site/torch:1"}))
    (here / "output/run/slurm").mkdir(parents=True)
    # of a start before that was lost
    (here / "output/run/slurm/again-7-0").touch()
    leave = "import os, sys; from toolkit.launch.requeue import after_stop; sys.exit(after_stop(os.environ))"
    programs = {
        "srun": f"[ -z $STOPS ] || PATH=/nowhere {sys.executable} -c '{leave}'; exit 75",
        "scontrol": '[ $1 = show ] || echo "$@" >> asked; exit 1',
    }
    (here / "programs").mkdir()
    for name, does in programs.items():
        (here / "programs" / name).write_text(f"#!/bin/bash\n{does}\n")
        (here / "programs" / name).chmod(0o755)
    env = {"PATH": f"{here}/programs:{os.environ['PATH']}", "TMPDIR": str(here), "PYTHONPATH": str(ROOT)}
    env |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1", **task}
    for stops in ("", "1"):
        started = ["bash", "-c", text]
        done = subprocess.run(started, cwd=here, env={**env, "STOPS": stops}, timeout=60, capture_output=True)
        assert done.returncode == 75, done.stderr
        assert (here / "asked").exists() == bool(stops)
    assert (here / "asked").read_text().splitlines() == [asked]


def test_an_array_has_a_log_and_a_folder_per_run(here: Path) -> None:
    array = Array("swept", here / "output" / "100% $HOME swept", [0, 1, 2, 5])
    text = script(config("1", array_parallelism=2), order("--log", "said.txt", "--set", "a=b", array=array))
    assert "#SBATCH --array=0-2,5%2\n" in text
    assert f'--output="{here}/output/100%% $HOME swept/slurm/slurm-%A_%a.out"' in text
    run = f"{here}/output/100% \\$HOME swept/${{SLURM_ARRAY_TASK_ID}}"
    assert f'export AITK_RUN_FOLDER="{run}"' in text
    assert text.count(f' "{run}/job.yaml" --log said.txt\n') == 1 and "a=b" not in text


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a${b}"])
def test_a_folder_that_no_script_can_name_is_refused(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = get_job(config())
    assert job.launcher is not None
    launcher, what = job.launcher.build(job), order(array=Array("swept", here / name, [0]))
    assert launcher.start(what) == 1
    said = f"a batch script cannot name the folder {str(here / name)!r}; rename it: no \\, no line break, no ${{"
    assert capsys.readouterr().err == f"job 'swept' was not submitted: {said}\n"
    assert launcher.plan(what)[0] == said and not (here / name).exists()


@pytest.mark.parametrize(
    "launch, said",
    [
        ({"nodez": 2}, "config.launch.nodez: unknown key; did you mean 'nodes'?"),
        (
            {"container": {"imge": "x", "image": "y"}},
            "config.launch.container.imge: unknown key; did you mean 'image'?",
        ),
        ({"extra": {"nodes": 2}}, "config.launch.extra.nodes: --nodes is set by launch.nodes; use that"),
        ({"extra": {"mail_user": "x"}}, "--mail-user is set by launch.mail; use that"),
        ({"extra": {"-p": "x"}}, "--partition is set by launch.partition; use that"),
        ({"extra": {"output": "x"}}, "--output is set by aitk"),
        ({"extra": {"comment": "a\nb"}}, "must be one line"),
        ({"time": "12 hours"}, "config.launch.time: must be a time as sbatch takes it"),
        ({"mem": "64 GB"}, "config.launch.mem: must be a size as sbatch takes it"),
        (
            {"time": 2, "signal_lead_s": 120},
            "config.launch.signal_lead_s: must be less than the time of a start, 120 s",
        ),
        ({"time": 2}, "config.launch.time: is 120 s; it must be more than launch.signal_lead_s, 180 s"),
        ({"gres": "nvme:1,gpus:4"}, "config.launch.gres: 'gpus:4' asks for no GPU; write gpu:4, or gpu:a100:4"),
        ({"gres": "gpu:a100:4", "gpus_per_node": 2}, "config.launch.gpus_per_node: is 2, but gres asks for 4"),
        ({"env": {"A B": "x"}}, "cannot be the name of an environment variable"),
        ({"partition": "a\n#SBATCH --x"}, "config.launch.partition: must be one line of text"),
        ({"profile": "nowhere"}, "config.launch.profile: there is no profile 'nowhere'"),
    ],
)
def test_what_is_refused(launch: dict[str, Any], said: str) -> None:
    assert said in problems(config(**launch))


@pytest.mark.parametrize("time", ["90", 90, "1:30:00", "2-00:00:00", "2-12", "0", "UNLIMITED"])
def test_times_as_sbatch_takes_them(time: Any) -> None:
    assert f"#SBATCH --time={time}\n" in script(config(time=time))


@pytest.mark.parametrize(
    "gres, tasks", [("gpu:4", 4), ("gpu", 1), ("gpu:a100:2,nvme:1", 2), ("gpu:3090:2", 2), ("tmpdisk:10", 1)]
)
def test_a_gres_says_how_many_processes_there_are(gres: str, tasks: int) -> None:
    assert f"#SBATCH --ntasks-per-node={tasks}\n#SBATCH --gres={gres}\n" in script(config(gres=gres))


def test_a_chain_waits_for_what_the_config_waits_for_too(here: Path) -> None:
    job = get_job(config(dependency="afterok:7"))
    assert job.launcher is not None
    plan = job.launcher.build(job).plan(order(depends_on=["--dependency=afterok:12", "--kill-on-invalid-dep=yes"]))
    assert "sbatch --parsable --dependency=afterok:12,afterok:7 --kill-on-invalid-dep=yes" in plan[0]


def test_progress_is_looked_for_where_it_shows(here: Path) -> None:
    source = config()
    train = source["config"]["process"][0]
    pictures = {"type": "to_folder", "output_folder": "made", "model": train["model"], "generate": {"prompts": ["a"]}}
    assert "AITK_PROGRESS=" in script(source) and "HF_HUB_OFFLINE" in script(source)
    dream = {**train, "dreambooth": {"class_prompt": "a cat", "class_folder": "cats"}}
    for processes, steps, filled in (
        ([pictures], "''", f"{here}/made"),
        ([pictures, train], f"'{here}/output/my run'", f"{here}/made"),
        ([dream], f"'{here}/output/my run'", f"{here}/cats"),
    ):
        source["config"]["process"] = processes
        text = script(source)
        assert f"export AITK_PROGRESS={steps}\n" in text and f"export AITK_FILLED={filled}\n" in text
        assert ("HF_HUB_OFFLINE" in text) == (processes == [dream])
    source["config"]["process"] = [train, {**train, "name": "a:2"}]
    assert f"export AITK_PROGRESS='{here}/output/my run\n{here}/output/a:2'\n" in script(source)
    # nothing tells how far a merge is
    merge = {"type": "merge_loras", "output_path": "m.safetensors", "loras": ["a.safetensors", "b.safetensors"]}
    source["config"]["process"] = [train, merge]
    assert "AITK_PROGRESS=" not in script(source) and "AITK_FILLED=" not in script(source)


def test_a_dry_run_needs_neither_torch_nor_slurm_and_writes_nothing(here: Path) -> None:
    file = here / "job.json"
    file.write_text(json.dumps(config()), encoding="utf-8")
    code = (
        "import sys, run; code = run.start(['run', 'job.json', '--dry-run']); "
        "sys.exit(code or 9 * ('torch' in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '#SBATCH --job-name="my run"' in done.stdout and sorted(here.iterdir()) == [file]


def test_without_slurm_the_files_are_there_and_the_reason_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SITE_TOKEN", "a-secret-value")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    job = get_job(config(env={"WANDB_API_KEY": "${SITE_TOKEN}"}))
    assert job.launcher is not None
    assert job.launcher.build(job).start(order()) == 1
    assert "there is no program sbatch here: run this on a login node" in capsys.readouterr().err
    written = {path.name: path.read_text() for path in (here / "output" / "my run" / "slurm").iterdir()}
    assert {"config.yaml", "submit.sbatch", "env.txt"} <= set(written)
    assert "NCCL_DEBUG=INFO" in written["env.txt"]
    assert not [name for name, text in written.items() if "a-secret-value" in text]
    again = get_job(here / "output" / "my run" / "slurm" / "config.yaml")
    assert to_yaml(again) == to_yaml(job) and again.launcher is None


def answering(here: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put small programs in SLURM's place."""
    (here / "bin").mkdir()
    for name, body in programs.items():
        (here / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin:{os.environ['PATH']}")


def test_what_sbatch_refuses_is_told_with_the_key(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(here, monkeypatch, squeue="", sbatch="echo 'error: Invalid feature specification' >&2; exit 1")
    job = get_job(config(constraint="a10"))
    assert job.launcher is not None and job.launcher.build(job).start(order()) == 1
    assert "config.launch.constraint: `sinfo -o '%N %f'` lists what the machines have" in capsys.readouterr().err


def test_a_run_that_is_in_the_queue_is_not_submitted_a_second_time(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = here / "queued"
    answering(here, monkeypatch, sbatch="echo 12", squeue=f"[ ! -e {queued} ] || echo '12|PENDING|None||N/A'")
    job = get_job(config())
    assert job.launcher is not None and job.launcher.build(job).start(order()) == 0
    queued.touch()
    assert job.launcher.build(job).start(order()) == 1
    assert "was not submitted: SLURM job 12 is there for output/my run already (PENDING)" in capsys.readouterr().err
    assert job.launcher.build(job).start(order(depends_on=["--dependency=afterok:12"])) == 0
    queued.unlink()
    assert job.launcher.build(job).start(order()) == 0


def test_a_save_that_takes_too_long_is_told_before_the_next_submission(here: Path) -> None:
    place = here / "output" / "my run" / "slurm"
    place.mkdir(parents=True)
    (place / "longest_save.json").write_text('{"seconds": 100.0}')

    def first_line(**launch: Any) -> str:
        job = get_job(config(**launch))
        assert job.launcher is not None
        return str(job.launcher.build(job).plan(order())[0])

    assert "warning: a save has taken 100 s, and launch.signal_lead_s leaves 180; 300 would be safe" in first_line()
    assert "warning: launch.time gives 60 s to a start" in first_line(time=1, signal_lead_s=30)
    assert "warning" not in first_line(signal_lead_s=300)
