"""What a release shows in its trial: for how long it has worked, and what is wrong with it."""

import math

from edge.updates.machine import Figures
from edge.updates.settings import TrialSettings
from edge.updates.trial import STEP_S, WINDOWS, Trial

FIGURES = Figures(agreement_percent=90, confidence_percent=80, latency_us=2000, memory_mb=70)
SETTINGS = TrialSettings(confidence_percent=50, latency_ms=15, latency_ratio=10, silent_s=30)


def test_only_time_in_which_it_classifies_counts_and_a_few_seconds_for_each_window() -> None:
    trial = Trial(FIGURES, SETTINGS)
    for now_s in (100.0, 101.0, 103.5, 103.5 + 3600, 103.0):
        assert trial.saw(now_s, 0.9, 1.0) == ""
    assert trial.taken() == 1 + 2.5 + STEP_S
    assert trial.taken() == 0


def test_a_probability_that_is_no_number_is_the_end() -> None:
    assert Trial(FIGURES, SETTINGS).saw(0, math.nan, 1.0) == "does-not-run"


def test_one_that_is_far_less_sure_than_in_its_test_is_found_out_over_some_windows() -> None:
    """80 % in the test, of which half is 40 %."""
    for probability, why in ((0.41, ""), (0.39, "unsure")):
        trial = Trial(FIGURES, SETTINGS)
        said = [trial.saw(now_s, probability, 1.0) for now_s in range(WINDOWS)]
        assert said == [""] * (WINDOWS - 1) + [why]


def test_one_that_is_far_slower_than_in_its_test_is_found_out_unless_it_is_fast_all_the_same() -> None:
    """2 ms in the test, ten times that are 20; where that is little, 15 ms are allowed in any case."""
    for latency_us, latency_ms, why in ((2000, 19.0, ""), (2000, 21.0, "slow"), (200, 14.0, ""), (200, 16.0, "slow")):
        trial = Trial(Figures(latency_us=latency_us), SETTINGS)
        assert [trial.saw(now_s, 0.1, latency_ms) for now_s in range(WINDOWS)][-1] == why
    trial = Trial(FIGURES, SETTINGS)
    few = [trial.saw(now_s, 0.9, 900.0 if now_s % 3 == 0 else 1.0) for now_s in range(2 * WINDOWS)]
    assert set(few) == {""}, "what is slow now and then is the machine's doing"


def test_one_that_makes_nothing_of_what_sensors_give_is_silent() -> None:
    trial = Trial(FIGURES, SETTINGS)
    assert {trial.sensed(now_s) for now_s in range(31)} == {""}
    assert trial.sensed(31) == "silent"


def test_sensors_that_give_nothing_are_not_its_fault_nor_is_a_pause() -> None:
    trial = Trial(FIGURES, SETTINGS)
    assert trial.sensed(0) == trial.sensed(5000) == ""
    for now_s in range(5001, 5100):
        assert trial.sensed(now_s) == trial.saw(now_s, 0.9, 1.0) == ""
