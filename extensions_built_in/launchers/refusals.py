"""What sbatch has against a job, and the key of the config that it speaks of."""

from __future__ import annotations

from toolkit.config.document import Document
from toolkit.config.launch import LAUNCH

REFUSALS = {
    "invalid partition name": ("partition", "`sinfo` lists those of this cluster"),
    "invalid account": ("account", "`sacctmgr show associations user=$USER` lists yours, with their partitions"),
    "invalid qos": ("qos", "`sacctmgr show associations user=$USER` lists yours"),
    "reservation": ("reservation", "`scontrol show reservation` lists those of this cluster"),
    "invalid feature": ("constraint", "`sinfo -o '%N %f'` lists what the machines have"),
    "generic resource": ("gres", "`sinfo -o '%N %G'` lists what the machines have"),
    "invalid node name": ("exclude", "`sinfo -N` lists the machines"),
    "time limit is invalid": ("time", "`sinfo -o '%P %l'` lists the limits of the partitions"),
    "dependency": ("dependency", "must name jobs that SLURM knows, as in afterok:1234"),
    "unrecognized option": ("extra", "`sbatch --help` lists the flags"),
    "node configuration": ("nodes", "`sinfo -o '%P %D %c %m %G'` lists machines, cores, MB and GPUs of the partitions"),
}
"""A part of what SLURM says -> the key, and what to do; the first that fits counts."""


def explain(said: str, document: Document) -> list[str]:
    """Where the config, or a profile, has what SLURM refuses, and what to do; nothing if that is not known."""
    known = [found for part, found in REFUSALS.items() if part in said.lower()]
    return [str(document.problem((*LAUNCH, key), advice)) for key, advice in known[:1]]
