"""Batches hold every row once, padded to their longest, in an order that the seed decides."""

import torch
from tiny import encoded_texts

from peftbench.tasks.text.batching import encode


def _encoded(lengths):
    rows = [{"input_ids": [i + 1] * n, "token_type_ids": [1] * n} for i, n in enumerate(lengths)]
    return encoded_texts(rows, torch.arange(len(lengths)), {"input_ids": 0, "token_type_ids": 0})


def test_rows_are_padded_to_the_longest_and_masked():
    batch = _encoded([2, 4]).batch([0, 1])
    assert batch["input_ids"].tolist() == [[1, 1, 0, 0], [2, 2, 2, 2]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]


def test_rows_are_padded_up_to_a_multiple_though_not_beyond_the_split_s_longest():
    data = _encoded([2, 3, 9, 13])
    batch = data.batch([0, 1], multiple=8)
    assert batch["input_ids"].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [2, 3]
    assert data.batch([2], multiple=8)["input_ids"].shape == (1, 13)


def test_no_mask_where_nothing_is_padded():
    assert "attention_mask" not in _encoded([3, 3]).batch([0, 1])


def test_an_epoch_holds_every_row_once_and_is_reproducible():
    data = _encoded([3 + i % 17 for i in range(103)])
    epoch = data.shuffled(8, seed=1, epoch=0)
    assert sorted(i for batch in epoch for i in batch) == list(range(103))
    assert epoch == data.shuffled(8, seed=1, epoch=0)
    assert epoch != data.shuffled(8, seed=1, epoch=1)
    assert epoch != data.shuffled(8, seed=2, epoch=0)


def test_rows_of_like_length_share_a_batch():
    data = _encoded([3 + (i * 7) % 60 for i in range(800)])
    padded = sum(max(data.sizes[batch]) * len(batch) for batch in data.shuffled(8, seed=0, epoch=0))
    assert padded < 1.05 * data.sizes.sum()


def test_a_subset_holds_its_rows_in_order():
    data = _encoded([5, 2, 9, 4])
    part = data.subset([3, 1])
    whole, of_part = data.batch([3, 1]), part.batch([0, 1])
    assert len(part) == 2 and part.sizes.tolist() == [4, 2]
    assert all(torch.equal(whole[name], of_part[name]) for name in whole)


def test_in_order_covers_the_split():
    data = _encoded([5, 2, 9, 4])
    indices = [i for batch in data.in_order(3) for i in batch]
    assert sorted(indices) == [0, 1, 2, 3]


class Words:
    """A stand-in tokenizer: one token a word, segments for pairs."""

    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    pad_token_id, pad_token_type_id = 9, 3

    def __call__(self, *columns, truncation, max_length):
        rows = [[text.split() for text in texts] for texts in zip(*columns, strict=True)]
        ids = [[len(word) for part in row for word in part][:max_length] for row in rows]
        return {"input_ids": ids, "token_type_ids": [[0] * len(row) for row in ids]}


def test_encode_pairs_with_the_tokenizer_s_own_padding():
    data = encode([("a bb", "ccc"), ("a", "a")], [1, 0], Words(), max_length=3)
    batch = data.batch([0, 1])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 1, 9]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 3]]
    assert encode([("a",)], None, Words(), 3).labels is None
    assert encode([("a",)], [0.5], Words(), 3).labels.is_floating_point()
