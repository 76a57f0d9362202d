import io

import pytest

from hvlm.data.readers.parsing import id_list, number, read_json_mapping, read_table, text_of, whole_number
from hvlm.errors import UserError


def table(text, columns=("a", "b"), **options):
    return list(read_table(io.StringIO(text, newline=""), "x.csv", columns, **options))


def test_cells_come_by_column_with_the_line_of_the_file():
    assert table('\ufeffb,a,c\r\n1,"x, ""y""\nz",3\r\n\r\n4,5,6\r\n') == [
        ("x.csv, line 3", {"b": "1", "a": 'x, "y"\nz', "c": "3"}),
        ("x.csv, line 5", {"b": "4", "a": "5", "c": "6"}),
    ]
    assert table('a\tb\n1, 2\t#C C says "so"\n', delimiter="\t")[0][1] == {"a": "1, 2", "b": '#C C says "so"'}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header: got \\[\\]"),
        ("a,c\n1,2\n", "x.csv, header"),
        ("a,b,a\n1,2,3\n", "x.csv, header"),
        ("a,b\n1,2\n1,2,3\n", "x.csv, line 3: got 3 cells"),
        ("a,b\n1\n", "x.csv, line 2: got 1 cells"),
        ('a,b\n1,"2\n', "x.csv, line 2: got unexpected end"),
    ],
)
def test_another_table_is_refused_with_the_line_named(text, message):
    with pytest.raises(UserError, match=message):
        table(text)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[1]", '{"a": 1, "a": 2}', '{"x": {"a": 1, "a": 2}}'])
def test_other_json_is_refused_and_a_key_twice_too(text):
    with pytest.raises(UserError, match=r"^x\.json"):
        read_json_mapping(text, "x.json")


@pytest.mark.parametrize(("value", "found"), [("1.5", 1.5), (" 2 ", 2.0), (3, 3.0), (0.25, 0.25)])
def test_numbers_of_cells_and_json(value, found):
    assert number(value, "x") == found


@pytest.mark.parametrize("value", ["", "one", "nan", "inf", True, None, [1]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(UserError, match="x: got"):
        number(value, "x")


def test_whole_numbers():
    assert whole_number("7", "x") == whole_number(7.0, "x") == 7
    for value in ("7.5", -1, "a"):
        with pytest.raises(UserError, match="x: got"):
            whole_number(value, "x")


@pytest.mark.parametrize(
    ("value", "ids"), [("[192, 115, 12]", (192, 115, 12)), ("[]", ()), ("", ()), ([3], (3,)), ("[93]", (93,))]
)
def test_id_lists(value, ids):
    assert id_list(value, "x") == ids


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('touch pwned')",
        "[1, 'a']",
        "(1, 2)",
        "[1.0]",
        "[true]",
        "[-1]",
        "5",
        "[" * 100_000,
        None,
    ],
)
def test_what_is_no_id_list_is_refused_and_never_run(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="x: got"):
        id_list(value, "x")
    assert list(tmp_path.iterdir()) == []


def test_texts_lose_their_outer_blanks_and_may_not_be_blank():
    assert text_of(" a b ", "x") == "a b"
    for value in ("  ", None, 3):
        with pytest.raises(UserError, match="x: got"):
            text_of(value, "x")
