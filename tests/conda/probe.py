"""Tell, as JSON, in which environment this runs and where each of the named modules was imported from.

python -I probe.py MODULE...
"""

from __future__ import annotations

import importlib
import json
import sys

found = {}
for name in sys.argv[1:]:
    try:
        found[name] = str(importlib.import_module(name).__file__)
    except ImportError as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps({"prefix": sys.prefix, "modules": found}))
