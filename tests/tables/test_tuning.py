"""What a table says of how its rows were tuned, where some had fewer trials than others."""

from made_table import made_table

from peftbench.tables.table import Tuned
from peftbench.tables.tuning import with_tuning


def test_trials_are_counted_a_row():
    full = Tuned("Full fine-tuning", ["trainer.lr=1e-4"], [80.0, 84.0, 82.0], 1, [82.0, 83.0])
    lora = Tuned("LoRA, r = 8", [], [], 2, [])
    table = with_tuning(made_table(), [lora, full])
    assert any("the best of 2 to 4 trials a row" in line for line in table.reading)
    assert "LoRA, r = 8: 2 of 2 trials failed, counted as the worst" in table.notes
    assert "Full fine-tuning: 1 of 4 trials failed, counted as the worst" in table.notes
    assert "its space has no more combinations: LoRA, r = 8, 2" in table.notes
    alike = with_tuning(made_table(), [full])
    assert any("the best of 4 trials a row" in line for line in alike.reading)
    assert not any("combinations" in note for note in alike.notes)
