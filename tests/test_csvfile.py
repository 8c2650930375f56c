"""CSV files: every dialect is understood or refused in one line, never half understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from veil.data.csvfile import open_csv
from veil.errors import InputError


def read(path: Path, keyed: bool = True) -> tuple[tuple[str, ...], list[list[str]]]:
    file = open_csv(path)
    return file.header, list(file.records(keyed))


ROWS = (("source", "gender"), [["0.jpg", "f"], ["1.jpg", "m"]])


@pytest.mark.parametrize(
    "text",
    [
        "source,gender\n0.jpg,f\n1.jpg,m\n",
        "source;gender\r\n0.jpg;f\r\n1.jpg;m\r\n",
        "source\tgender\r0.jpg\tf\r1.jpg\tm",
        "source|gender\n0.jpg|f\n1.jpg|m\n",
        "\n \n\nsource,gender\n\n0.jpg,f\n\n1.jpg,m\n\n",
        "sep=;\nsource;gender\n0.jpg;f\n1.jpg;m\n",
        '"sep=:"\r\nsource:gender\r\n0.jpg:f\r\n1.jpg:m\r\n',
        "SEP=\t\nsource\tgender\n0.jpg\tf\n1.jpg\tm\n",
        '"source", "gender"\n"0.jpg", "f"\n"1.jpg", "m"\n',
        '"source" ,"gender"\n "0.jpg" , "f" \n1.jpg , m\n',
        "'source','gender'\n'0.jpg','f'\n'1.jpg','m'\n",
        "source,gender\n'0.jpg',f\n'1.jpg',m\n",
        "source,gender\n0.jpg,f\n,\n1.jpg,m\n,\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_dialect_is_understood(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    assert read(tmp_path / "x.csv") == ROWS


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b\n"x, ""y""",2\n', [['x, "y"', "2"]]),
        ("a,b\nO'Brien,'t Hooft\n", [["O'Brien", "'t Hooft"]]),
        ('a,b\n5" disk,"5"" disk"\n', [['5" disk', '5" disk']]),
        ("a;b\n0,5;1,5\n", [["0,5", "1,5"]]),
        ("a,b,\n1,2,\n", [["1", "2", ""]]),
        ('a,b\n"[0.1\n 0.2]",x\n', [["[0.1\n 0.2]", "x"]]),
        ("a,e\u0301\n1,\u00e9\n", [["1", "\u00e9"]]),
    ],
)
def test_cells_are_what_was_meant(tmp_path: Path, text: str, rows: list[list[str]]) -> None:
    (tmp_path / "x.csv").write_text(text, "utf-8")
    assert read(tmp_path / "x.csv")[1] == rows


def test_names_of_columns_are_in_nfc(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("source,a\u0302ge\n", "utf-8")
    assert open_csv(tmp_path / "x.csv").header == ("source", "\u00e2ge")


def test_blank_lines_are_rows_where_only_their_order_tells_them(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("gender\nf\n\nm\n\n")
    assert read(tmp_path / "x.csv", keyed=False)[1] == [["f"], [""], ["m"], [""]]
    (tmp_path / "x.csv").write_text("gender,age\nf,1\n\nm,2\n")
    with pytest.raises(InputError, match=r"x\.csv: line 3 must be a row of 2 cells, .*, got a blank line"):
        read(tmp_path / "x.csv", keyed=False)
    (tmp_path / "x.csv").write_text("gender,age\nf,1\n,\nm,2\n\n\n")
    assert read(tmp_path / "x.csv", keyed=False)[1] == [["f", "1"], ["", ""], ["m", "2"]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"sep=;\n", "empty"),
        (b"a,a\n1,2\n", "column 'a' stands there more than once"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 must have 2 cells as the header, got 3"),
        (b"a,b\n1\n", "line 2 must have 2 cells as the header, got 1"),
        (b"a\n1;2\n", "line 2 must have 1 cells as the header, got 2"),
        (b"a,b;c\n1,2;3\n", "may be separated by ',' or ';'; say which in a first line such as sep=,"),
        (b'a,b\n"x"y,2\n', "line 2: a cell must end with its closing quote, got '\"x\"y,2'"),
        (b'a,b\n"x \\"y\\"",2\n', "line 2: a cell must end with its closing quote"),
        (b'a,b\n1,2\n"x,2\n3,4\n', "line 3: a quote is left open"),
        (b"a,b\n1,\xe9\n", "line 2: must be UTF-8 text, or UTF-16 with its mark"),
        (b"a,b\n1,\0\0\n", "must be text, got bytes that are 0"),
        (b"PK\x03\x04rest", "must be CSV, got an archive, or a workbook: save it as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "must be CSV, got a workbook: save it as CSV"),
        (b"\x1f\x8brest", "must be CSV, got compressed: unpack it"),
    ],
)
def test_what_is_not_understood_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "x.csv")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'x.csv'}: ")
    assert "\n" not in str(caught.value)


def test_a_line_far_below_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 500 + "1,2,3\n")
    with pytest.raises(InputError, match="line 502 must have 2 cells"):
        read(tmp_path / "x.csv")


def test_a_quote_that_is_left_open_does_not_take_the_rest_of_a_long_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n"x,2\n' + "1,2\n" * 50_000)
    with pytest.raises(InputError, match="line 2: a quote is left open"):
        read(tmp_path / "x.csv")
