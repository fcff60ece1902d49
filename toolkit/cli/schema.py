"""`aitk schema`: the JSON Schema of a config."""

from __future__ import annotations

import json

from toolkit.config.json_schema import json_schema


def schema() -> None:
    """With `aitk schema > aitk.schema.json` and, as first line of a config, `# yaml-language-server:
    $schema=aitk.schema.json`, editors complete and explain keys.
    """
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
