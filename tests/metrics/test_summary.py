"""`summarize` gives the keys of result.json, in a form that JSON holds, without loading torch."""

import json

import numpy as np
import pytest

from ftp_cl.metrics import summarize


def test_summary_of_a_hand_worked_run():
    summary = summarize([[80.0, np.nan], [50.0, 70.0]], {"ood_blob": 40.0, "ood_line_art": 20.0})
    assert summary == {
        "accuracy_matrix": [[80.0, None], [50.0, 70.0]],
        "average_accuracy": 60.0,
        "average_incremental_accuracy": 70.0,
        "average_forgetting": 30.0,
        "backward_transfer": -30.0,
        "learning_accuracy": 75.0,
        "ood": {"ood_blob": 40.0, "ood_line_art": 20.0},
        "ood_average": 30.0,
    }


def test_one_experience_without_ood_has_nulls_for_what_does_not_exist():
    summary = summarize(np.array([[80.0]], dtype=np.float32), {})
    assert (summary["average_forgetting"], summary["backward_transfer"], summary["ood_average"]) == (None, None, None)


def test_summary_is_plain_json_and_reads_its_own_output():
    matrix = np.array([[80.0, np.nan], [50.0, 70.0]], dtype=np.float32)
    summary = summarize(matrix, {"ood": np.float32(10.0)})
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert again == summary
    assert summarize(again["accuracy_matrix"], again["ood"]) == summary


def test_missing_accuracy_on_a_seen_experience_is_refused():
    with pytest.raises(ValueError, match="missing"):
        summarize([[80.0, 0.0], [None, 70.0]], {})
