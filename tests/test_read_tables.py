"""Tables that are easily cut in the wrong place."""

import pytest

from tests.test_read import read_one


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("A;1,5;2,5\nB;1,7;2,5\n", "A | 1,5 | 2,5\nB | 1,7 | 2,5"),
        ("1,5;2,5\n1,7;2,5\n", "1,5 | 2,5\n1,7 | 2,5"),
        ("1,5\t2,5\n1,7\t2,5\n", "1,5 | 2,5\n1,7 | 2,5"),
        ("1,5\n7,25\n", "1 | 5\n7 | 25"),
        ("1,a;b\n2,c;d\n", "1 | a;b\n2 | c;d"),
        ("1,2;3,4\n5,6,7\n8,9,0\n", "1 | 2;3 | 4\n5 | 6 | 7\n8 | 9 | 0"),
    ],
)
def test_decimal_commas_part_no_columns(source: str, text: str) -> None:
    assert read_one(source, "a.csv").text == text
