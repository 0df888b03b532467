"""Streams of texts: which texts are in which experience, and what their tokens are."""

import pickle
import shutil

import polars as pl
import pytest

from ftp_cl.benchmarks import (
    WORDINGS,
    EmojiText,
    TextTable,
    emoji_text,
    few_labels,
    split_emoji,
    split_text,
    text_domains,
)
from ftp_cl.benchmarks.identity import data_identity
from ftp_cl.benchmarks.tokens import PADDING

CLS, SEP, UNKNOWN = 2, 3, 1
RED, GREEN, BLUE, GREY, CAT, DOG, COW, HEN, RUNS, EATS = range(4, 14)


def tokens_of(experience):
    """The texts of an experience as lists of ids, without padding."""
    return [[int(i) for i in item[0] if i != PADDING] for item in experience.dataset]


@pytest.fixture
def options(tiny_bert):
    return {"tokenizer": str(tiny_bert), "max_length": 6}


def test_an_item_is_the_tokens_of_its_text_cut_and_padded_to_one_length(tmp_path, tiny_bert):
    pl.DataFrame({"text": ["red cat", "a red red red cat runs"], "label": ["x", "y"]}).write_csv(tmp_path / "train.csv")
    table = TextTable(tmp_path, "train", tokenizer=str(tiny_bert), max_length=6)
    assert [item[0].tolist() for item in (table[0], table[1])] == [
        [CLS, RED, CAT, SEP, PADDING, PADDING],
        [CLS, UNKNOWN, RED, RED, RED, SEP],
    ]
    assert table[0][0].dtype.is_signed and [table[i][1] for i in range(2)] == [0, 1]
    copy = pickle.loads(pickle.dumps(table))
    assert (copy.data == table.data).all() and copy.targets == table.targets


def test_classes_arrive_with_all_their_texts_and_the_ood_part_by_name(text_files, options):
    benchmark = split_text(text_files, 2, fixed_class_order=[3, 0, 2, 1], **options)  # sorted: cat, cow, dog, hen
    assert list(benchmark.streams) == ["train", "test", "ood_short"]
    assert benchmark.description["experiences"][0] == {"classes": [3, 0], "names": ["hen", "cat"]}
    first = tokens_of(benchmark.train_stream[0])
    assert len(first) == 2 * 3 * 4 and all(HEN in text or CAT in text for text in first)
    assert tokens_of(benchmark.streams["ood_short"][0]) == [[CLS, GREY, CAT, SEP]]
    assert [len(e.dataset) for e in split_text(text_files, 2, shots=2, seed=3, **options).train_stream] == [4, 4]
    labels = [e.task_label for e in split_text(text_files, 4, return_task_id=True, **options).test_stream]
    assert labels == [0, 1, 2, 3]


def test_domains_arrive_one_by_one_and_unseen_ones_are_ood(text_files, options):
    benchmark = text_domains(text_files, train_domains=["blue", "red"], **options)
    assert [e["domain"] for e in benchmark.description["experiences"]] == ["blue", "red"]
    assert list(benchmark.streams) == ["train", "test", "ood_green", "ood_grey", "ood_short"]
    assert all(text[1] == RED for text in tokens_of(benchmark.train_stream[1]))
    assert tokens_of(benchmark.streams["ood_grey"][0])[0] == [CLS, GREY, CAT, RUNS, EATS, SEP]
    everything = text_domains(text_files, **options)
    assert [e["domain"] for e in everything.description["experiences"]] == ["red", "green", "blue"]


def test_a_domain_that_is_trained_on_has_texts_to_train_and_test_on(text_files, options, tmp_path):
    shutil.copy(text_files / "train.csv", tmp_path)
    pl.read_csv(text_files / "test.csv").filter(pl.col("domain") != "green").write_csv(tmp_path / "test.csv")
    for domain, part in (("grey", "train"), ("green", "test")):
        with pytest.raises(ValueError, match=f"^The domain {domain} has nothing to {part} on"):
            text_domains(tmp_path, train_domains=["red", domain], **options)


def test_parquet_one_file_and_a_saved_dataset_give_the_same_streams(text_files, options, tmp_path):
    import datasets

    tables = {path.stem: pl.read_csv(path) for path in text_files.glob("*.csv")}
    (tmp_path / "parquet").mkdir()
    for part, table in tables.items():
        table.write_parquet(tmp_path / "parquet" / f"{part}.parquet")
    pl.concat([table.with_columns(split=pl.lit(part)) for part, table in tables.items()]).write_csv(
        tmp_path / "one.csv"
    )
    names = datasets.ClassLabel(names=["hen", "cat", "dog", "cow"])  # positions here are not those of the stream
    saved = {
        part: datasets.Dataset.from_dict(table.to_dict(as_series=False)).cast_column("label", names)
        for part, table in tables.items()
    }
    datasets.DatasetDict({**saved, "validation": saved["test"]}).save_to_disk(str(tmp_path / "saved"))
    expected = split_text(text_files, 2, **options)
    for root in ("parquet", "one.csv", "saved"):
        found = split_text(tmp_path / root, 2, **options)
        assert data_identity(found) == data_identity(expected), root
    assert found.description["parts_left_out"] == ["validation"]


def test_numbers_as_labels_are_in_the_order_of_numbers(tmp_path, tiny_bert):
    for part in ("train", "test"):
        pl.DataFrame({"text": ["red"] * 3, "label": [10, 9, 2]}).write_parquet(tmp_path / f"{part}.parquet")
    assert TextTable(tmp_path, "train", tokenizer=str(tiny_bert)).classes == ["2", "9", "10"]
    pl.DataFrame({"text": ["red"] * 4, "label": ["1", "01", "b", "001"]}).write_csv(tmp_path / "train.csv")
    (tmp_path / "train.parquet").unlink()
    assert TextTable(tmp_path, "train", tokenizer=str(tiny_bert)).classes == ["001", "01", "1", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "txt"}, r"Unknown column of .*train.csv 'txt': did you mean 'text'\?"),
        ({"label": "name"}, r"Unknown column of .*train.csv 'name': choose from text, label, domain"),
        ({"dataset_root": "nowhere.csv"}, "There is no file or directory nowhere.csv"),
        ({"dataset_root": "/nowhere"}, "There is no file or directory /nowhere"),
        ({"dataset_root": __file__}, "no table that is read here: use .csv or .parquet"),
        ({"tokenizer": "/nowhere"}, "There is no tokenizer '/nowhere'"),
        ({"max_length": 2}, "max_length=2 must be a whole number of at least 4"),
    ],
)
def test_bad_input_is_one_sentence(text_files, options, change, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        split_text(**{"dataset_root": text_files, **options, **change})
    assert "\n" not in str(error.value)


def test_labels_that_training_has_not_and_empty_texts_are_refused(tmp_path, options):
    pl.DataFrame({"text": ["red"], "label": ["cat"]}).write_csv(tmp_path / "train.csv")
    pl.DataFrame({"text": ["red"], "label": ["emu"]}).write_csv(tmp_path / "test.csv")
    with pytest.raises(ValueError, match=r"^test in .* has the label 'emu', which training has not"):
        split_text(tmp_path, **options)
    pl.DataFrame({"text": ["red", " "], "label": ["cat", "dog"]}).write_csv(tmp_path / "test.csv")
    with pytest.raises(ValueError, match=r"^Row 1 of .*test.csv has nothing in the column 'text'"):
        split_text(tmp_path, **options)


def test_missing_labels_and_two_files_of_one_part_are_refused(tmp_path, options):
    import datasets

    table = pl.DataFrame({"text": ["red", "red"], "label": [0.0, float("nan")]})
    table.write_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"^Row 1 of .*train.parquet has nothing in the column 'label'"):
        split_text(tmp_path, **options)
    table.write_csv(tmp_path / "train.csv")
    with pytest.raises(ValueError, match=r"has train.csv and train.parquet: keep the one that is meant"):
        split_text(tmp_path, **options)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])})
    parts = {
        part: datasets.Dataset.from_dict({"text": ["red", "red"], "label": labels}, features=features)
        for part, labels in {"train": [0, 1], "test": [-1, -1]}.items()
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"test has rows without a label: their 'label' is -1\."):
        split_text(tmp_path / "saved", **options)


def test_emoji_text_names_the_emoji_that_split_emoji_draws(options):
    benchmark, images = emoji_text(**options), split_emoji(size=8)
    for part in ("class_order", "validation_identities"):
        assert benchmark.description[part] == images.description[part]
    assert benchmark.description["stream_sizes"]["test"] == images.description["stream_sizes"]["test"]
    assert list(benchmark.streams)[3:] == [f"ood_{name}" for name in WORDINGS[1:]]
    words = dict(zip((t := EmojiText(["name", "de"], "test", **options)).domains, t.texts, strict=True))
    assert words == {"name": "tram", "de": "Straßenbahn"}  # the last of each
    assert t.image_identity(0) == t.image_identity(244) and len(t) == 488


def test_few_labels_hide_those_of_texts(text_files, options):
    benchmark = few_labels(split_text(text_files, 2, **options), per_class=2, seed=0)
    assert [len(e.dataset) for e in benchmark.train_stream] == [4, 4]
    assert [len(e.dataset) for e in benchmark.streams["unlabelled"]] == [20, 20]


def test_texts_that_are_trained_and_tested_on_are_told_with_their_number(text_files, options, tmp_path, caplog):
    split_text(text_files, **options), text_domains(text_files, **options)
    assert not caplog.text
    shutil.copytree(text_files, tmp_path, dirs_exist_ok=True)
    train, test = (pl.read_csv(tmp_path / f"{part}.csv") for part in ("train", "test"))
    pl.concat([test, train.filter(pl.col("domain") == "red").head(2)]).write_csv(tmp_path / "test.csv")
    split_text(tmp_path, **options)
    assert "2 of the 18 texts to test on in test are among those to train on" in caplog.text
    caplog.clear()
    text_domains(tmp_path, **options)
    assert "2 of the 6 texts to test on in red are among those to train on" in caplog.text
    assert len(caplog.records) == 1
