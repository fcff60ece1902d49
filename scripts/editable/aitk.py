"""The module `aitk` of an editable install: loads scripts/aitk.py of this clone.

The install puts this folder on sys.path; it holds nothing else, so no other script becomes importable.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_spec = spec_from_file_location(__name__, Path(__file__).resolve().parent.parent / "aitk.py")
assert _spec is not None and _spec.loader is not None
sys.modules[__name__] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[__name__])
