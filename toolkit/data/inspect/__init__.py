"""What a data set holds and what training would make of it, before a run: facts, and how they are shown.

`survey.py` asks the very pipeline that training uses and fills the classes of `facts.py`; `terminal.py` and `page.py`
show them.
"""

from toolkit.data.inspect.facts import Inspection
from toolkit.data.inspect.survey import inspect_folder, inspect_items

__all__ = ["Inspection", "inspect_folder", "inspect_items"]
