"""`ftp-cl evaluate`: a finished run's weights on streams of a benchmark."""

import json

import pytest

DIGITS = [
    "benchmark=split_digits",
    "model=small_cnn",
    "train.epochs=1",
    "train.batch_size=64",
    "benchmark.n_experiences=2",
]


def test_the_weights_of_a_run_reach_what_the_run_measured_at_its_end(ftp_cl, tmp_path):
    assert ftp_cl("run", *DIGITS, "method=naive", "save_weights=true", "out=first")[0] == 0
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    status, output, error = ftp_cl("evaluate", "first", "--json", "numbers.json")
    assert status == 0, error
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers.keys() == {"test", *result["ood"]} and "test " in output
    assert {name: numbers[name] for name in result["ood"]} == pytest.approx(result["ood"], abs=1e-5)
    sizes, last = result["data"]["stream_sizes"]["test"], result["accuracy_matrix"][-1]
    mean = sum(size * accuracy for size, accuracy in zip(sizes, last, strict=True)) / sum(sizes)
    assert numbers["test"] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=naive"], "first has no weights.safetensors: repeat it with ftp-cl run --from"),
        (["method=ncm", "save_weights=true"], "method=ncm, whose statistics are not in its weights"),
    ],
)
def test_a_run_that_cannot_be_evaluated_says_why(words, said, ftp_cl, refused):
    assert ftp_cl("run", *DIGITS, *words, "out=first")[0] == 0
    assert said in refused("evaluate", "first")
