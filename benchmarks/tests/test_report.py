import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.attribution import chain
from benchmarks.report import words
from benchmarks.report.html import page
from benchmarks.report.layers import show_layers, write_bars
from benchmarks.report.plots import write_plots
from benchmarks.report.styles import styles
from benchmarks.report.table import show
from benchmarks.results import Summary, summarise
from benchmarks.targets import SERVERS
from benchmarks.tests.fixtures import UNSEEN, run, summary


def table(width: int) -> str:
    text = io.StringIO()
    show(summary().rows, Console(file=text, width=width))
    return text.getvalue()


def line_of(text: str, *words_in_it: str) -> list[str]:
    [line] = [line for line in text.splitlines() if all(word in line for word in words_in_it)]
    return line.split()


def test_the_table_has_every_figure_of_a_row():
    cells = line_of(table(200), "v2.reactive-native", "2,650")
    expected = (
        "v2.reactive-native 2,650 25 % 2.50x 2.00 4.02 0.42x 8.03 4 14 80 0.42x 50 30 20 60 30 30 25 % !"
    )
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
        "v2.reactive-native (wrk): throughput 0.80x in same-data 24; p99 1.25x in same-data 24; "
        "CPU per request 1.25x in same-data 24"
    ]


def test_losses_in_many_cells_are_counted_and_their_range_is_told():
    runs = [
        run(target, users, 1, throughput, section="independent")
        for users in (3, 24, 96, 384)
        for target, throughput in (("etcd", 1000.0), ("x", 100.0 + users))
    ]
    [lost] = words.losses(summarise(runs))
    assert lost.startswith(
        "x (independent, wrk): throughput 0.10x to 0.48x in 4 of 4 cells; p99 2.07x to 9.71x"
    )


def test_the_load_generator_is_the_limit_where_it_is_busy_or_busier_than_the_nodes():
    def told(**changes: object) -> str:
        [row] = summarise([run("x", 3, 1, 1000.0, **changes)])  # its nodes keep 0.2 CPUs busy
        return words.at_limit(row)

    assert told(generator_cpu=0.1) == ""
    assert told(generator_cpu=0.25) == "it used more CPU (0.2) than all nodes (0.2)"
    assert told(generator_cpu=1.9, generator_cpus=2) == "it kept 1.9 of the 2 CPUs busy that it can use"
    assert told(generator_cpu=1.7, generator_cpus=2, cpu_us=1900.0) == ""
    assert told(generator_cpu=0.5, **UNSEEN) == ""


def test_rows_at_the_generators_limit_are_named_by_target():
    runs = [run("x", users, 1, 1000.0, tool="locust", generator_cpu=0.95) for users in (3, 24, 96, 384, 768)]
    assert words.limited(summarise(runs)) == [
        "x (locust): same-data 3, same-data 24, same-data 96 and 2 more; "
        "there it kept 0.9 of the 1 CPUs busy that it can use"
    ]


def test_targets_of_one_name_are_told_apart_where_infrastructures_meet():
    rows = summarise(
        [
            run("x-compose", 3, 1, 1.0, infrastructure=infrastructure, section="compose")
            for infrastructure in ("embedded", "independent")
        ]
    )
    assert [words.target_name(row) for row in rows] == ["x-compose, embedded", "x-compose, independent"]


def test_numbers_keep_three_digits():
    assert [words.milliseconds(value) for value in (0.123, 1.234, 12.34, 123.4, 1234.5)] == [
        "0.12",
        "1.23",
        "12.3",
        "123",
        "1,234",
    ]


def test_a_picture_for_each_tool_that_has_a_line_to_draw(tmp_path: Path):
    (tmp_path / "users-embedded-locust.png").write_text("of an earlier comparison")
    pictures = write_plots(tmp_path, summary())
    assert [(each.section, each.file.name) for each in pictures] == [
        ("embedded", "users-embedded-wrk.png"),
        ("embedded", "bars-embedded-wrk.png"),
        ("embedded", "bars-embedded-locust.png"),
    ]
    assert all(each.file.read_bytes().startswith(b"\x89PNG") for each in pictures)
    assert not (tmp_path / "users-embedded-locust.png").exists()


def test_each_target_looks_the_same_everywhere_and_unlike_the_others():
    names = [f"{name}-{server}" for name, servers in SERVERS.items() for server in servers]
    looks = styles(["etcd", *names, "etcd-compose"])
    assert looks["etcd"].colour == looks["etcd-compose"].colour == "#000000"
    assert len({(looks[name].colour, looks[name].line, looks[name].marker) for name in names}) == len(names)
    assert styles(names[3:])[names[5]] == looks[names[5]]
    assert len({looks[f"{name}-hypercorn"].colour for name in SERVERS}) == len(SERVERS)


def page_of(found: Summary, folder: Path) -> str:
    return page(found, write_plots(folder, found), write_bars(folder, found))


def test_the_page_needs_nothing_beside_it_and_escapes_what_it_is_given(tmp_path: Path):
    text = page_of(summary(), tmp_path)
    assert 'src="data:image/png;base64,' in text
    assert "http-equiv" not in text
    assert "<link" not in text
    assert "a &lt;fast&gt; one" in text
    assert "python -m v2.reactive --name n1" in text
    assert "wrk -c24 http://127.0.0.1:8001" in text
    assert "2.50x <small>2.00–3.00</small>" in text
    assert "fsync, local" in text
    assert "endpoints (locust): same-data 24; there it kept 1.0 of the 1 CPUs busy" in text
    assert "v2.reactive-native (wrk): throughput 0.80x in same-data 24" in text
    assert "<td>50 30 20</td><td>60 30 30</td>" in text
    assert "What the layers cost" not in text


def test_the_page_has_a_section_for_each_infrastructure_with_its_own_ratios(tmp_path: Path):
    alone = [
        run(target, 3, 1, throughput, section="standalone-linearizable", durability=durability)
        for target, throughput, durability in (
            ("etcd", 100.0, "fsync"),
            ("v1.servlet-granian", 700.0, "memory"),
        )
    ]
    found = summary()
    text = page_of(replace(found, runs=[*found.runs, *alone]), tmp_path)
    embedded, standalone = text.index("<h2>Embedded"), text.index("<h2>Standalone, linearizable")
    assert embedded < standalone
    assert "7.00x" in text[standalone:]
    assert "7.00x" not in text[embedded:standalone]
    assert "keeps its data in memory alone" in text[standalone:]
    assert "keeps its data in memory alone" not in text[:standalone]


def test_layers_are_shown_with_the_two_targets_that_each_figure_comes_from(tmp_path: Path):
    found = layers_of("v1.servlet", "granian")
    text = page_of(found, tmp_path)
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["layers-cpu.png", "layers-latency.png"]
    assert "<td>50%</td><td>20%</td>" in text  # Raft and the log, of 100 us
    assert (
        "WAL (fsync): v1.servlet-granian, embedded 100 - v1.servlet-granian, embedded-no-fsync 80; "
        "of the rounds&#x27; differences 20.00 to 20.00, median 20.00" in text
    )
    output = io.StringIO()
    show_layers(found, Console(file=output, width=200))
    line = line_of(output.getvalue(), "v1.servlet-granian", "PUT", "100")
    assert " ".join(line) == "v1.servlet-granian PUT 96 100 15% 5% 10% 50% 20% 0%"


def layers_of(name: str, server: str) -> Summary:
    one = chain(name, server)
    runs = [
        run(
            target.name,
            96,
            number,
            1000.0,
            infrastructure=target.infrastructure,
            workload=workload,
            section=one.section,
            cpu_us=cost,
            mean_ms=cost / 20,
        )
        for workload in ("put-only", "get-only")
        for target, cost in zip(one.targets, (100.0, 80.0, 70.0, 20.0, 15.0), strict=True)
        for number in (1, 2)
    ]
    return replace(summary(), runs=runs)
