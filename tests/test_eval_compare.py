"""Two runs compared: the randomisation test against SciPy's and against all sign flips, verdicts, exit codes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from eval.compare import compare, least_questions, randomisation_test
from eval.gate import main
from eval.record import Baseline, read_baseline, write
from server.base import InvalidRequestError

IDS = tuple(f"q{i}" for i in range(300))


def baseline(served: list[float], fused: list[float] | None = None, **changed: object) -> Baseline:
    values = {"fused": tuple(fused or served), "late-interaction": tuple(served)}
    ids = IDS[: len(served)]
    made = Baseline("baseline", "handbook", "f" * 64, "late-interaction", "nDCG@10", ids, values, {})
    return Baseline(**{name: changed.get(name, getattr(made, name)) for name in Baseline.__slots__})  # type: ignore[arg-type]


def draw(shift: float, n: int = 300) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(7)
    before, noise = rng.random(n), rng.normal(0, 0.2, n)
    return before.tolist(), (before + noise - noise.mean() + shift).tolist()


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=10))
@settings(deadline=None)
def test_p_is_the_share_of_all_sign_flips_that_lie_as_far_out(differences: list[float]) -> None:
    d = np.array(differences)
    flips = np.array(list(itertools.product([-1, 1], repeat=len(d)))).reshape(-1, len(d))
    exact = float((np.abs(flips @ d) >= abs(d.sum()) - 1e-9).mean())
    assert randomisation_test(d) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.03])
def test_p_agrees_with_scipy(shift: float) -> None:
    before, after = draw(shift)
    theirs = permutation_test(
        (np.array(after), np.array(before)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert randomisation_test(np.array(after) - np.array(before)) == pytest.approx(theirs.pvalue, abs=0.02)


def test_p_does_not_change_from_run_to_run_nor_with_sign_or_order() -> None:
    before, after = draw(0.02)
    d = np.array(after) - np.array(before)
    assert randomisation_test(d) == randomisation_test(d)
    assert randomisation_test(-d) == pytest.approx(randomisation_test(d), abs=0.01)
    assert randomisation_test(d[::-1]) == pytest.approx(randomisation_test(d), abs=0.01)
    assert randomisation_test(np.zeros(5)) == randomisation_test(np.zeros(0)) == 1


def test_wins_ties_and_losses_by_hand() -> None:
    found = compare(baseline([0.5, 0.5, 0.5, 0.5]), baseline([1, 0.50005, 0.5, 0]))
    served = found.columns[0]
    assert (served.column, served.wins, served.ties, served.losses) == ("served", 1, 2, 1)
    assert served.delta == pytest.approx(0.0, abs=1e-4)
    assert found.deltas["q3"] == -0.5


def test_only_a_loss_beyond_chance_fails() -> None:
    before, after = draw(-0.08)
    assert compare(baseline(before), baseline(after)).is_worse
    assert not compare(baseline(after), baseline(before)).is_worse
    before, after = draw(-0.002)
    assert not compare(baseline(before), baseline(after)).is_worse


def test_a_worse_fused_column_fails_though_the_reranker_hides_it() -> None:
    before, after = draw(-0.08)
    found = compare(baseline(before, before), baseline(before, after))
    assert [one.verdict for one in found.columns if one.is_judged] == ["as good", "worse"]
    assert found.is_worse
    assert not compare(baseline(before, before), baseline(before, after), column="served").is_worse


def test_the_order_of_questions_does_not_matter() -> None:
    before, after = draw(-0.08)
    turned = baseline(after, questions=IDS[::-1], values={"fused": after[::-1], "late-interaction": after[::-1]})
    assert compare(baseline(before), turned).columns == compare(baseline(before), baseline(after)).columns


@pytest.mark.parametrize("changed", [{"fingerprint": "0" * 64}, {"questions": ("a", "b")}])
def test_other_questions_or_judgements_are_not_compared(changed: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match="evaluate the same, without --limit"):
        compare(baseline([0, 1]), baseline([0, 1], **changed))


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="no column 'colbert' in both: there are 'served', 'fused'"):
        compare(baseline([0, 1]), baseline([0, 1]), column="colbert")


def test_the_command_says_so_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = draw(-0.08)
    write(baseline(before), tmp_path / "base.json")
    write(baseline(after), tmp_path / "run.json")
    assert read_baseline(tmp_path / "base.json") == baseline(before)
    assert main([str(tmp_path / "base.json"), str(tmp_path / "base.json")]) == 0
    assert main([str(tmp_path / "base.json"), str(tmp_path / "run.json")]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 / 300 / 0" in printed
    assert printed.endswith("worse than the baseline, beyond chance")


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"kind": "run"}')
    with pytest.raises(InvalidRequestError, match="is no run or baseline of refdesk eval"):
        read_baseline(tmp_path / "other.json")
    with pytest.raises(InvalidRequestError, match="cannot be read: No such file"):
        read_baseline(tmp_path / "none.json")


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_as_few_questions_as_can_show_a_difference(alpha: float) -> None:
    needed = least_questions(alpha)
    assert randomisation_test(np.ones(needed)) < alpha <= randomisation_test(np.ones(needed - 1))
