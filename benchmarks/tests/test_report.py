import io
from pathlib import Path

from rich.console import Console

from benchmarks.report import words
from benchmarks.report.html import page
from benchmarks.report.plots import write_plots
from benchmarks.report.table import show
from benchmarks.tests.fixtures import summary


def table(width: int) -> str:
    text = io.StringIO()
    show(summary().rows, Console(file=text, width=width))
    return text.getvalue()


def line_of(text: str, *words_in_it: str) -> list[str]:
    [line] = [line for line in text.splitlines() if all(word in line for word in words_in_it)]
    return line.split()


def test_the_table_has_every_figure_of_a_row():
    cells = line_of(table(200), "v2.reactive-native", "2,650")
    expected = "v2.reactive-native 2,650 25 % 2.50x 2.00 4.02 0.42x 8.03 4 14 80 0.42x 120 25 %"
    assert " ".join(cells) == expected


def test_a_narrow_terminal_gets_the_essential_columns():
    narrow = table(100)
    assert all(len(line) <= 100 for line in narrow.splitlines())
    cells = line_of(narrow, "v2.reactive-native", "2,650")
    assert " ".join(cells) == "v2.reactive-native 2,650 2.50x 4.02 0.42x 4 80 0.42x"


def test_the_title_says_durability_and_read_mode():
    assert "durability fsync, reads local in all rows" in table(200)


def test_what_cannot_be_seen_is_not_invented():
    cells = line_of(table(200), "endpoints")
    assert words.UNKNOWN in cells


def test_losses_are_told_and_only_losses():
    lost = words.losses(summary().rows)
    assert lost == [
        "v2.reactive-native, same-data, 24 users (wrk): throughput 0.80x, p99 1.25x, CPU per request 1.25x"
    ]


def test_numbers_keep_three_digits():
    assert [words.milliseconds(value) for value in (0.123, 1.234, 12.34, 123.4, 1234.5)] == [
        "0.12",
        "1.23",
        "12.3",
        "123",
        "1,234",
    ]


def test_a_picture_for_each_tool_that_has_a_line_to_draw(tmp_path: Path):
    (tmp_path / "users-locust.png").write_text("of an earlier comparison")
    files = write_plots(tmp_path, summary())
    assert [file.name for file in files] == ["users-wrk.png"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "users-locust.png").exists()


def test_the_page_needs_nothing_beside_it_and_escapes_what_it_is_given(tmp_path: Path):
    text = page(summary(), write_plots(tmp_path, summary()))
    assert 'src="data:image/png;base64,' in text
    assert "http-equiv" not in text
    assert "<link" not in text
    assert "a &lt;fast&gt; one" in text
    assert "python -m v2.reactive --name n1" in text
    assert "wrk -c24 http://127.0.0.1:8001" in text
    assert "2.50x <small>2.00–3.00</small>" in text
    assert "fsync, local" in text
    assert "locust's limit" in text
    assert "v2.reactive-native, same-data, 24 users (wrk): throughput 0.80x" in text
