"""A hand-made table with one row of every kind: whole, partly failed, missing, failed, without latency."""

from peftbench.tables.table import Cell, Claim, Column, Row, RunPoint, Table

SPECIAL = 'Adapter <m = 64> & "co" </script><!-- $x$'
OOM = "CUDA out of memory: tried to allocate 2.00 GiB"

COLUMNS = [
    Column("accuracy", "Accuracy", "%"),
    Column("f1", "F1", "%"),
    Column("difference", "Difference", "points"),
    Column("share", "Parameter share", "%", 2),
    Column("train_time", "Training time", "s", 0),
    Column("latency", "Latency", "×", 2),
]
MORE = [Column("trained", "Trained parameters", "", 0), Column("memory", "Memory", "MiB", 0)]


def made_run(name: str, seed: int, final: float | None, **more) -> RunPoint:
    """Make a finished run that ends at accuracy `final`, or one that is missing (`final` None)."""
    fields = {
        "id": f"{name}-mrpc-minilm-s{seed}",
        "seed": seed,
        "folder": f"outputs/lab/{name}-mrpc-minilm-s{seed}",
        "status": "missing" if final is None else "finished",
        "used": final is not None,
        "command": f"peftbench train experiment=lab task=mrpc method={name} seed={seed}",
        "config": {"method": {"name": name}, "seed": seed, "trainer": {"epochs": 3}},
    }
    if final is not None:
        fields["metrics"] = {"validation": {"accuracy": final, "f1": final + 0.06, "loss": 0.44}}
        fields["history"] = [
            {"epoch": epoch, "step": 115 * epoch, "loss": 0.7 / epoch, "validation": {"accuracy": score}}
            for epoch, score in ((1, 0.68 + seed / 100), (2, (0.7 + final) / 2), (3, final))
        ]
    return RunPoint(**{**fields, **more})


def made_row(label: str, name: str, finals: list[float], **cells: Cell) -> Row:
    runs = [made_run(name, seed, final) for seed, final in enumerate(finals)]
    return Row(label, [f"method={name}"], name == "full", cells, runs)


def made_rows() -> list[Row]:
    full = made_row(
        "Full fine-tuning",
        "full",
        [0.86, 0.85, 0.87],
        accuracy=Cell(86.0, 1.0, 3, lab=84.0, verdict="holds"),
        f1=Cell(92.0, 1.0, 3),
        share=Cell(100.0, n=3),
        train_time=Cell(412.0, 5.0, 3),
        latency=Cell(1.0, 0.01, 3),
        trained=Cell(22713216.0, n=3),
    )
    adapter = made_row(
        SPECIAL,
        "adapter",
        [0.81, 0.80, 0.808],
        accuracy=Cell(80.6, 0.5, 3, lab=77.5, verdict="does not hold", published="84.8 (Houlsby <2019>)"),
        f1=Cell(86.6, 0.5, 3),
        difference=Cell(-5.4, 0.6, 3, low=-7.9, high=-2.9, differs=True),
        share=Cell(2.66, n=3),
        train_time=Cell(109.0, 2.0, 3),
        latency=Cell(1.31, 0.03, 3),
    )
    lora = made_row(
        "LoRA, r = 8",
        "lora",
        [0.822, 0.826],
        accuracy=Cell(82.4, 0.3, 2, lab=82.0, verdict="cannot be told"),
        f1=Cell(88.4, 0.3, 2),
        difference=Cell(-3.6, 0.3, 2, low=-7.5, high=0.3, differs=False),
        share=Cell(0.32, n=2),
        latency=Cell(),
    )
    lora.runs.append(made_run("lora", 2, None, status="failed", reason="ValueError: loss is NaN\n  at step 40"))
    prefix = Row("Prefix, 20", ["method=prefix"], False, {}, [made_run("prefix", seed, None) for seed in range(3)])
    bitfit = made_row(
        "BitFit",
        "bitfit",
        [0.79, 0.781, 0.8],
        accuracy=Cell(79.0, 0.9, 3),
        f1=Cell(85.0, 0.9, 3),
        difference=Cell(-7.0, 1.1, 3, low=-9.8, high=-4.2, differs=True),
        share=Cell(0.18, n=3),
        train_time=Cell(1090.0, 8.0, 3),
        latency=Cell(1.0, 0.02, 3),
    )
    head = made_row(
        "Head only",
        "head",
        [0.7, 0.69, 0.71],
        accuracy=Cell(70.0, 1.0, 3),
        share=Cell(0.0, n=3),
        train_time=Cell(50.0, 1.0, 3),
        latency=Cell(1.0, 0.01, 3),
    )
    prompt = Row(
        "Prompt, 500",
        ["method=prompt", "method.length=500"],
        False,
        {"accuracy": Cell(), "share": Cell(0.85, n=3)},
        [made_run("prompt", seed, None, status="oom", reason=OOM) for seed in range(3)],
    )
    return [full, adapter, lora, prefix, bitfit, head, prompt]


def made_table() -> Table:
    """Return the table: 7 rows, of which 5 have a score, 4 also a latency."""
    return Table(
        name="lab/methods",
        title="Methods on MRPC & friends",
        command="peftbench table lab/methods",
        model="minilm",
        task="mrpc",
        seeds=[0, 1, 2],
        baseline="Full fine-tuning",
        primary="accuracy",
        examples=408,
        ceiling=97.5,
        evaluation="validation",
        columns=COLUMNS,
        all_columns=[*COLUMNS, *MORE],
        rows=made_rows(),
        claims=[
            Claim("Adapters keep 97 % of full fine-tuning", "93.7 % of its accuracy", "does not hold"),
            Claim("LoRA <merged> costs no latency", "not measured", "cannot be told"),
            Claim("BitFit trains less than 1 %", "0.18 %", "holds"),
        ],
        pairs=[],
        conclusion="Highest accuracy: Full fine-tuning; the cheapest that cannot be told from it is LoRA, r = 8.",
        reading=["± is the standard deviation over the seeds.", "bold: α < 0.05 → “certain”"],
        notes=["3 runs are missing: peftbench sweep table=lab/methods makes them."],
        environment={"torch": ["2.13.0"], "device": ["cpu"], "commit": ["4138a31", "dd10a97"]},
    )
