"""The README.md of an exported model: what it is, how to load it, what it scores, how well it matches its run."""

from typing import TYPE_CHECKING

from peftbench.config.values import settings_line
from peftbench.runs.adapter import Description
from peftbench.runs.result import Result
from peftbench.terminal import format_metric, metric_name

if TYPE_CHECKING:
    from peftbench.serving.export import Certificate

_LOAD = """\
from transformers import pipeline

answer = pipeline("text-classification", model="FOLDER")
answer({example})
"""


def model_card(result: Result, description: Description, certificate: "Certificate") -> str:
    """Return the card in Markdown, with the header that the Hugging Face hub reads."""
    columns = description.task["text"]
    example = '"…"' if len(columns) == 1 else '{"text": "…", "text_pair": "…"}'
    settings = settings_line({key: value for key, value in description.method.items() if key != "name"})
    parameters = result.parameters
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [peftbench]",
        "---",
        "",
        f"# {result.id}",
        "",
        f"{result.model} trained on {result.task} by `method={result.method}`{f' ({settings})' if settings else ''},"
        f" seed {result.seed}, with peftbench {description.peftbench}; the method is folded into the weights.",
    ]
    if parameters:
        share = 100 * parameters.share_method
        lines.append(f"The method trained {parameters.method:,} parameters, {share:.3g} % of the backbone's.")
    lines += ["", "```python", _LOAD.format(example=example).rstrip(), "```", ""]
    if description.labels:
        lines += [f"Classes: {', '.join(description.labels)}."]
    lines += [f"Texts were cut to {description.task['max_length']} tokens in training.", ""]
    lines += ["| split | examples | metric | score |", "| --- | ---: | --- | ---: |"]
    for split, metrics in result.metrics.items():
        for name, value in metrics.items():
            if name != "loss":
                shown = metric_name(name, len(description.labels))
                lines.append(f"| {split} | {result.examples[split]:,} | {shown} | {format_metric(name, value)} |")
    lines += ["", agreement(certificate), ""]
    return "\n".join(lines)


def agreement(certificate: "Certificate") -> str:
    """Say how well the exported model matches its run."""
    same = "" if certificate.equal is None else f", {certificate.equal:,} predictions equal"
    return (
        f"Loaded by plain transformers and compared with the run on {certificate.examples:,} validation examples, in"
        f" fp32: largest difference of two logits {certificate.largest_difference:.1e}{same}."
    )
