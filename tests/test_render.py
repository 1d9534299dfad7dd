import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tying_env import partition, render


def test_the_map_as_text() -> None:
    expected = "\n".join(
        [
            " 0 ●      leads 1, 4",
            " 1 ○      = 0",
            " 2 │ ●    leads 5",
            " 3 │ │ ●  alone",
            " 4 ○ │    = 0",
            " 5   ○    = 2",
            " 6 ●      alone",
        ]
    )
    assert render.replication_map_text([0, 0, 2, 3, 0, 2, 6]) == expected


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(*(st.integers(0, i) for i in range(n)))))
def test_the_text_tells_the_tying(action: tuple[int, ...]) -> None:
    tying = partition.canonicalise(list(action))
    lines = render.replication_map_text(tying).splitlines()
    assert len(lines) == len(tying)
    for i, line in enumerate(lines):
        assert line.split()[0] == str(i)
        assert ("●" in line) == (tying[i] == i)
        if tying[i] != i:
            assert line.endswith(f"= {tying[i]}")
            column = line.index("○")
            assert lines[tying[i]][column] == "●"
            assert all(lines[j][column] in "│○" for j in range(tying[i] + 1, i))


def test_followers_in_a_row_are_a_range() -> None:
    first, *_ = render.replication_map_text([0, 1, 0, 3, 0, 0, 0, 1, 0]).splitlines()
    assert first.endswith("leads 2, 4-6, 8")


@given(st.tuples(*(st.integers(0, i) for i in range(48))))
def test_no_line_of_48_layers_is_wider_than_80_columns(action: tuple[int, ...]) -> None:
    assert max(map(len, render.replication_map_text(partition.canonicalise(list(action))).splitlines())) <= 80


def test_too_many_followers_are_cut_off_with_a_sign() -> None:
    pairs = [i // 2 for i in range(24)]  # as many rails as can be
    scattered = [0, 1, *(i % 2 for i in range(46))]
    for tying in (partition.canonicalise(pairs + list(range(24))), partition.canonicalise(scattered)):
        lines = render.replication_map_text(tying).splitlines()
        assert max(map(len, lines)) <= 80
    assert lines[0].endswith(" ...") and lines[0].startswith("  0 ●    leads 2, 4, 6, 8,")


@pytest.mark.parametrize("n_layer", [1, 2, 12, 48])
def test_the_picture_has_an_arc_for_every_follower(n_layer: int) -> None:
    tying = partition.canonicalise(partition.uniform_random_action(n_layer, np.random.default_rng(0)))
    axes = render.replication_map_figure(tying).axes[0]
    assert len(axes.patches) == int((tying != np.arange(n_layer)).sum())
    assert f"{len(partition.leaders(tying))} of {n_layer} layers independent" in axes.get_title()
    assert axes.get_xlabel().startswith("layer")


def test_the_picture_as_pixels() -> None:
    image = render.replication_map_image([0, 0, 2])
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert 0 < image.mean() < 255
    assert (image != render.replication_map_image([0, 1, 2])).any()
