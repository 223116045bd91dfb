"""One run from its config to its record, and the records there are.

`peftbench.runs` is this package and, called, the list of the runs there are: `peftbench.runs("outputs")`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(
        self, output_dir: str | Path = "outputs", settings: Mapping[str, Any] | None = None, **fields: Any
    ) -> list[dict[str, Any]]:
        """Return a flat dictionary for each run under `output_dir`, oldest first, as `pandas.DataFrame` takes them.

        Keys are dotted: `id`, `status`, `folder`, `method`, `seed`, `score` (the primary metric on validation),
        `validation.f1`, `parameters.method`, `time.train` (seconds), `memory.host_peak` (bytes), and the settings:
        `method.rank`, `trainer.lr` … A damaged record has `id`, `status="unreadable"`, `error` and `folder` alone.

        Args:
            output_dir: where the records lie; a folder that does not exist holds no runs.
            settings: keeps the runs that have these values, by dotted key: `{"trainer.lr": 1e-3}`.
            fields: likewise, for keys without a dot: `method="lora", status="finished"`.
        """
        from peftbench.runs.listing import list_runs

        return list_runs(Path(output_dir), {**(settings or {}), **fields})


sys.modules[__name__].__class__ = _CallableModule
