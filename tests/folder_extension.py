"""A folder extension for tests of the command line: its process does at once what its config says, without torch."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INIT = """
from toolkit.extension import Extension

class Act(Extension):
    uid = "act"
    name = "Act"

    @classmethod
    def get_process(cls):
        from .process import ActProcess
        return ActProcess

AI_TOOLKIT_EXTENSIONS = [Act]
"""
PROCESS = """
import os, time
from pathlib import Path
from jobs import Stopped
from jobs.process import BaseExtensionProcess
from toolkit.training.stop import StopFlag

class ActProcess(BaseExtensionProcess):
    def run(self):
        super().run()
        what = self.get_conf("what") or self.get_conf("do.what", required=True)
        is_mended = Path("mended").exists()
        print(f"{self.job.name} does {what}")
        with open("log.txt", "a") as log:
            log.write(f"{self.job.name} {what}\\n")
        if what == "fail" and not is_mended:
            raise RuntimeError("the\\nsky fell")
        if what == "blame":
            raise ValueError("do.what: this model cannot do that")
        if what == "crash":
            {}["key"]
        if what == "stop":
            raise Stopped("saved at step 7")
        if what == "wait" and not is_mended:
            time.sleep(60)
        if what == "train":
            with StopFlag() as stop:
                for step in range(600):
                    if stop.requested:
                        raise Stopped(f"saved at {step}")
                    time.sleep(0.1)
        if what == "env":
            print(os.environ["FROM_FILE"], os.environ["FROM_BOTH"])
        if training_folder := self.get_conf("training_folder"):
            folder = Path(training_folder, self.name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.job.name}.txt").write_text(str(what))

    def on_error(self, error):
        Path(f"{self.job.name}.heard").write_text(type(error).__name__)
"""
JOB = """
job: extension
config:
  name: {name}
  process:
    - type: act
      do: {{what: {what}}}
"""


def write_extension(here: Path) -> None:
    """Put it where `aitk` finds it that is started in `here`."""
    folder = here / "extensions/actor"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(INIT, encoding="utf-8")
    (folder / "process.py").write_text(PROCESS, encoding="utf-8")


def write_job(here: Path, name: str, what: str = "work") -> str:
    """Write a job of it into `here`; the name of the file."""
    (here / f"{name}.yaml").write_text(JOB.format(name=name, what=what).lstrip(), encoding="utf-8")
    return f"{name}.yaml"


def acted(here: Path) -> list[str]:
    """What was done of it in `here`: the name of the job and what it did, in that order."""
    log = here / "log.txt"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def aitk(*arguments: str) -> list[str]:
    """The command line of `aitk ARGUMENTS`."""
    return [sys.executable, str(ROOT / "scripts" / "aitk.py"), *arguments]


def run_py(*arguments: str) -> list[str]:
    """The command line of `python run.py ARGUMENTS`, which is that of `aitk run`."""
    return [sys.executable, str(ROOT / "run.py"), *arguments]
