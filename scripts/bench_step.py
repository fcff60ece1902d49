"""How much a step of the trainer costs beside a bare PyTorch loop over the same model, batch size and optimizer.

    python scripts/bench_step.py
    python scripts/bench_step.py --model output/tiny-flux-untrained --batch-size 1

Both loops run in turns in one process, so that a busy machine slows both; the CPU time, that of the data threads
included, is hardly touched by what else runs. The trainer's is the real one, with all it
does in a run: data threads, noise, schedule, clipping, log lines, the look whether a save is due. The bare loop repeats
forward, backward, clipping and update on inputs that were made before. Target: at most 1.05 times its time.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from extensions_built_in.sd_trainer.config import SdTrainer
from extensions_built_in.sd_trainer.process import losses
from jobs import Job, get_job
from toolkit.models.latents import pack
from toolkit.reporting.progress import bar
from toolkit.trainer.data import make_feed, make_workers, read_data
from toolkit.trainer.saving import save_hook
from toolkit.trainer.session import open_session
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed
from toolkit.training.hooks import LogLoss
from toolkit.training.loop import Hook
from toolkit.training.losses import LossReader
from toolkit.training.path import Path as NoisePath
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag


@dataclass(frozen=True)
class Duration:
    """Seconds on the clock, and of all CPU cores together."""

    clock: float
    cpu: float


def timed(work: Callable[[], None]) -> Duration:
    """How long `work` takes, on the device too."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Duration(time.perf_counter() - clock, time.process_time() - cpu)


class StopAfter:
    """Ends the loop after so many steps; it can be started again."""

    def __init__(self, count: int, flag: StopFlag) -> None:
        self.count, self.flag, self.done = count, flag, 0

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        self.done += 1
        self.flag.requested = self.done % self.count == 0


def take_turns(config: SdTrainer, job: Job, rounds: int, steps_per_round: int) -> list[tuple[Duration, Duration]]:
    """Run the trainer's loop and a bare one in turns; how long each took, after a first turn that is not counted."""
    with open_session(config, job) as session:
        workers = session.stack.enter_context(make_workers(config))
        feed = make_feed(config, session, read_data(config, session), workers)
        feed.encode(bar)
        state = session.load()
        batches = feed.batches(session.stack, state.position, workers.num_workers, workers.prefetch)
        bare = bare_step(feed, next(batches)[1], state)
        reader, stop = LossReader(session.context.device), StopFlag()
        log = LogLoss(
            reader, session.progress.update, session.loggers.log, config.logging.log_every, config.train.steps
        )
        save = save_hook(config, job, session.folder, session.family, reader, "")
        hooks: list[Hook] = [log, save, StopAfter(steps_per_round, stop)]

        def ours() -> None:
            stop.requested = False
            session.steps(batches, partial(losses, session), hooks, stop)

        def theirs() -> None:
            for _ in range(steps_per_round):
                bare()

        ours()
        theirs()
        return [(timed(ours), timed(theirs)) for _ in range(rounds)]


def bare_step(feed: Feed, batch: Batch, state: TrainState) -> Callable[[], None]:
    """Forward, backward and update as one writes them without this program; all inputs are made here, once."""
    family, device = feed.family, feed.context.device
    path = NoisePath.of(family.facts)
    t = torch.full((len(batch),), 0.5, dtype=torch.float64)
    wanted = pack(path.wanted(batch.latents, batch.noise, t))
    h, w = batch.latents.shape[-2:]
    ids = torch.zeros(h // 2, w // 2, 3, device=device)
    ids[..., 1] += torch.arange(h // 2, device=device)[:, None]
    ids[..., 2] += torch.arange(w // 2, device=device)[None, :]
    text = batch.cond["text"]
    inputs: dict[str, Any] = {
        "hidden_states": pack(path.noisy(batch.latents, batch.noise, t)),
        "timestep": t.float().to(device),
        "guidance": torch.ones(len(batch), device=device),
        "pooled_projections": batch.cond["pooled"],
        "encoder_hidden_states": text,
        "txt_ids": torch.zeros(text.shape[1], 3, device=device),
        "img_ids": ids.reshape(-1, 3),
        "return_dict": False,
    }
    params = state.params
    optimizer = torch.optim.AdamW(params, lr=1e-30, fused=device.type in ("cpu", "cuda"))
    denoiser = family.denoiser

    def step() -> None:
        with feed.context.autocast():
            guess = denoiser(**inputs)[0]
        loss = (guess.float() - wanted).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def report(turns: Sequence[tuple[Duration, Duration]], num_steps: int) -> list[str]:
    """A table of medians; the ratio is the median of the turns' ratios."""
    lines = ["            trainer        bare   ratio"]
    for title, seconds in (("clock", lambda turn: turn.clock), ("CPU", lambda turn: turn.cpu)):
        ours, bare = ([seconds(turn[side]) / num_steps for turn in turns] for side in (0, 1))
        ratio = median(one / other for one, other in zip(ours, bare, strict=True))
        lines.append(f"{title:6} {median(ours) * 1e3:9.2f} ms {median(bare) * 1e3:8.2f} ms {ratio:7.3f}")
    return lines


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny-flux", help="a FLUX.1 in diffusers format (%(default)s)")
    parser.add_argument("--data", default=str(ROOT / "datasets/mochi"), help="pictures with captions (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--dtype", default="fp32", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each loop (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn (default: %(default)s)")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        process = {
            "type": "sd_trainer",
            "training_folder": folder,
            "model": {"arch": "flux", "name_or_path": chosen.model},
            "network": {"type": "lora", "linear": 16, "linear_alpha": 16},
            "datasets": [{"folder_path": chosen.data, "resolution": chosen.resolution, "cache_latents": True}],
            "train": {
                "steps": 10**9,
                "batch_size": chosen.batch_size,
                "lr": 1e-4,
                "dtype": chosen.dtype,
                "gradient_checkpointing": False,
            },
            "save": {"save_every": 10**8},
        }
        job = get_job({"job": "extension", "config": {"name": "bench_step", "process": [process]}})
        turns = take_turns(job.processes[0], job, chosen.rounds, chosen.steps)  # type: ignore[arg-type]
    print(f"\none step at batch size {chosen.batch_size}, median of {chosen.rounds} turns of {chosen.steps} steps:")
    print(*report(turns, chosen.steps), sep="\n")


if __name__ == "__main__":
    main()
