"""A step of the projection without an optimizer."""

import pytest

from ftp_cl.projection import Rule, Scaler, Update, get_backends, parts_of

PAPER = Rule()


@pytest.fixture
def take_step():
    """Votes with the gradients, and projection of the weights as they are; returns which were skipped, by number."""

    def run(backend, states, weights, gradients=None, rule=PAPER):
        given = zip(states, weights, weights if gradients is None else gradients, strict=True)
        updates = [Update(str(i), weight, gradient, state, {}) for i, (state, weight, gradient) in enumerate(given)]
        skipped = {}
        for part in parts_of(updates, get_backends(backend)):
            part.vote(rule)
            names = [update.name for update in part.updates]
            skipped |= zip(names, part.project(rule, Scaler()).tolist(), strict=True)
        return skipped

    return run
