"""The README.md of an exported run: what it is, how to load it, what it scores, how well it matches its run."""

from peftbench.config.values import settings_line
from peftbench.runs.adapter import Description
from peftbench.runs.result import Result
from peftbench.serving.certificate import Certificate
from peftbench.serving.targets import ADAPTERS_PYTHON, TARGETS
from peftbench.terminal import format_metric, metric_name

_LIBRARIES = {"merged": "transformers", "peft": "peft", "adapters": "adapters"}
_FORMS = {
    "merged": "the method is folded into the weights",
    "peft": "the adapter and the head are here, the base model is not",
    "adapters": "the adapter and the head are here, the base model is not",
}


def model_card(result: Result, description: Description, to: str, loading: str, certificate: Certificate) -> str:
    """Return the card in Markdown, with the header that the Hugging Face hub reads.

    Args:
        result: the run's. to: the form it is exported in. loading: lines of Python that load it.
    """
    columns, of_texts = description.task.get("text", ()), "text" in description.task
    example = '"…"' if len(columns) == 1 else '{"text": "…", "text_pair": "…"}'
    settings = settings_line({key: value for key, value in description.method.items() if key != "name"})
    parameters = result.parameters
    origin = f"seed {result.seed}, with peftbench {description.peftbench}"
    if result.imported:
        origin = f"brought into peftbench {description.peftbench} from a folder of {result.imported.library}"
    lines = [
        "---",
        f"library_name: {_LIBRARIES[to]}",
        f"pipeline_tag: {'text' if of_texts else 'image'}-classification",
        "tags: [peftbench]",
        "---",
        "",
        f"# {result.id}",
        "",
        f"{result.model} trained on {result.task} by `method={result.method}`{f' ({settings})' if settings else ''},"
        f" {origin}; {_FORMS[to]}.",
    ]
    if parameters:
        share = 100 * parameters.share_method
        lines.append(f"The method trained {parameters.method:,} parameters, {share:.3g} % of the backbone's.")
    if to == "merged" and of_texts:
        loading += f"answer({example})\n"
    lines += ["", "```python", loading.rstrip(), "```", ""]
    packages = [str(package["name"]) for package in description.model.get("packages") or ()]
    if to != "merged" and packages:
        lines += [f"Without the hub, the base model's files are in the package index's {', '.join(packages)}.", ""]
    if to == "adapters" and description.method.get("train_layer_norm"):
        lines += [
            "The run trained the base model's layer norms too. They lie with the head, in model_head.safetensors, and"
            " take the place of the model's own when it is loaded: load it on a model of its own.",
            "",
        ]
    if description.labels:
        lines += [f"Classes: {', '.join(description.labels)}."]
    if of_texts:
        lines += [f"Texts were cut to {description.task['max_length']} tokens in training.", ""]
    else:
        lines += ["The image processor here prepares images as they were in training.", ""]
    lines += ["| split | examples | metric | score |", "| --- | ---: | --- | ---: |"]
    for evaluation in filter(None, map(result.evaluation, result.metrics)):
        for name, value in evaluation.metrics.items():
            if name != "loss":
                shown = metric_name(name, len(description.labels)), format_metric(name, value)
                lines.append(f"| {evaluation.split} | {evaluation.examples:,} | {shown[0]} | {shown[1]} |")
    lines += ["", agreement(certificate, to), ""]
    return "\n".join(lines)


def agreement(certificate: Certificate, to: str) -> str:
    """Say how well the exported model matches its run."""
    same = "" if certificate.equal is None else f", {certificate.equal:,} predictions equal"
    compared = (
        f"compared with the run on {certificate.examples:,} validation examples, in fp32: largest difference of two"
        f" logits {certificate.largest_difference:.1e}{same}."
    )
    if certificate.library:
        return f"Loaded by {certificate.library} and {compared}"
    return (
        f"Read back by peftbench and {compared} {TARGETS[to].title} has not loaded it: {ADAPTERS_PYTHON}=PYTHON"
        " names a Python that has the library, to check it there."
    )
