"""Measures what a sweep costs beside training: seconds a run of 20 runs on the default model and 64 examples.

    python scripts/sweep_overhead.py

Prints, for a sweep of 2 rows × 10 seeds: wall time, what of it training, scoring and saving took by the records'
own clocks, and the rest divided by the runs: composing, locks, records, loading, table, plots and page.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, SEEDS = 2, 10


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "validation"):
            with (folder / f"{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "label"])
                writer.writerows([f"sentence number {i} is {'good' if i % 2 else 'bad'}", i % 2] for i in range(64))
        settings = ["table=smoke", f"seeds={SEEDS}", "task=text_file", "task.text=[text]", f"output_dir={folder}/out"]
        settings += [f"task.splits.{split}={folder}/{split}.csv" for split in ("train", "validation")]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "peftbench", "sweep", *settings], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        results = [json.loads(path.read_text()) for path in folder.glob("out/smoke/*/result.json")]
    runs = ROWS * SEEDS
    assert len(results) == runs, f"{len(results)} of {runs} runs"
    training = sum(result["time"]["total"] for result in results)
    print(f"{runs} runs: {wall:.1f} s, of which training, scoring and saving {training:.1f} s")
    print(f"overhead {(wall - training) / runs:.2f} s a run, the program's start included")


if __name__ == "__main__":
    main()
