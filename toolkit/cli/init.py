"""`aitk init`: a commented starter config. Asks nothing, never overwrites."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from toolkit.config.starter import starter

BAD_CONFIG = 2


def init(
    path: Annotated[Path, typer.Argument(help="The new file.")] = Path("my_first_lora.yaml"),
    arch: Annotated[str, typer.Option("--arch", help="Model family; `aitk ls archs` lists them.")] = "flux",
) -> None:
    """The file is named after the job in it. An existing file is left as it is."""
    if path.suffix == "":
        path = path.with_suffix(".yaml")
    try:
        text = starter(arch, path.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"{path} exists and was not changed; name another file", file=sys.stderr)
        raise typer.Exit(BAD_CONFIG) from None
    except ValueError as error:
        print(f"--arch: {error}", file=sys.stderr)
        raise typer.Exit(BAD_CONFIG) from None
    except OSError as error:
        print(f"{path}: {error.strerror or error}", file=sys.stderr)
        raise typer.Exit(BAD_CONFIG) from None
    print(f"wrote {path}; put your folder of pictures and your model in, then: aitk check {path}")
