"""``index.html``: one page that needs nothing beside it (style and pictures are inside)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from benchmarks.report import layers, words
from benchmarks.report.plots import Picture
from benchmarks.results import SUMMARY, Row, Summary
from benchmarks.statistics import Ratio
from benchmarks.targets import IN_MEMORY, YARDSTICK
from benchmarks.workloads import WORKLOADS

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 84rem;
       margin: 2rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; } summary { cursor: pointer; }
p, li { max-width: 60rem; } .quiet { color: #5a5a5a; }
img { width: 100%; max-width: 70rem; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .8rem; white-space: nowrap; }
th { text-align: right; font-weight: 600; border-bottom: 2px solid #1b1b1b; padding: .25rem .4rem;
     vertical-align: bottom; }
td { text-align: right; padding: .2rem .4rem; border-top: 1px solid #ececec; }
th.left, td.left { text-align: left; }
tr.workload td { text-align: left; font-weight: 600; padding-top: 1rem; border-top: 0; }
tr.first td { border-top-color: #a5a5a5; }
td.better { color: #00588a; font-weight: 600; } td.worse { color: #b04300; font-weight: 600; }
td small { color: #6b6b6b; }
pre { background: #f5f5f5; padding: .7rem .9rem; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .78rem; line-height: 1.45; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1.2rem; }
dt { color: #5a5a5a; } dd { margin: 0; }
"""

LEGEND = (
    "Each figure is the median of the rounds. <b>±</b> is half the distance between the extreme rounds. "
    f"A <b>ratio</b> is the median of the rounds' ratios to {YARDSTICK} in the same round, with the smallest and "
    "the largest beside it. <b>CPU</b> is user and system time of all nodes of the target, divided by the "
    "requests; <b>nodes</b> shows each by itself: the CPU that it kept busy (100 % is one), its resident "
    "memory. <b>Idle</b> is the CPU of the targets that waited for their turn. <b>404</b> counts right answers to a "
    "GET or DELETE after another user's DELETE; <b>errors</b> counts every other answer that is not 2xx, lost "
    "connections, time-outs, and reads of a value that the user did not write. <b>Load CPU</b> is what the load "
    "generator itself used; 100 % is one CPU, and it takes it from the same machine."
)

HEADINGS = (
    "users",
    "target",
    "durability,<br>reads",
    "req/s",
    "±, of<br>rounds",
    "ratio",
    "p50 ms",
    "p99 ms",
    "ratio",
    "p99.9 ms",
    "errors",
    "404",
    "CPU us<br>/ request",
    "ratio",
    "nodes:<br>CPU %",
    "nodes:<br>MiB",
    "load<br>CPU",
    "idle<br>CPU",
)
LEFT = (1, 2)


def write_page(
    output: Path, summary: Summary, pictures: Sequence[Picture], layer_bars: Sequence[Path] = ()
) -> Path:
    file = output / "index.html"
    file.write_text(page(summary, pictures, layer_bars))
    return file


def page(summary: Summary, pictures: Sequence[Picture], layer_bars: Sequence[Path] = ()) -> str:
    rows = summary.rows
    sections = [
        "<h1>Key-value services on Raft, beside etcd</h1>",
        f'<p class="quiet">{escape(summary.environment.get("date", ""))} · '
        f"<code>{escape(summary.command)}</code></p>",
        _at_a_glance(rows),
        layers.section(summary),
        *(_picture(file, "What the layers cost") for file in layer_bars),
        *(
            _section(name, list(of_section), [each for each in pictures if each.section == name])
            for name, of_section in groupby(rows, key=lambda row: row.section)
        ),
        f'<p class="quiet">{LEGEND}</p>',
        _losses(rows),
        _method(summary),
        _environment(summary),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Benchmarks: services on Raft beside etcd</title>\n<style>{STYLE}</style>\n"
        + "\n".join(sections)
        + "\n</html>\n"
    )


def _at_a_glance(rows: Sequence[Row]) -> str:
    lines = []
    for (section, tool, target), ratios in _ratios(rows).items():
        text = ", ".join(f"{name} {_range(each)}" for name, each in ratios.items() if each)
        lines.append(f"<li><b>{escape(target)}</b> ({escape(section)}, {tool}): {text}</li>")
    if not lines:
        return ""
    return (
        f"<p>Next to {YARDSTICK}, from the worst to the best of the cells below (throughput: more is better; "
        f"latency and CPU: less is better):</p><ul>{''.join(lines)}</ul>"
    )


def _ratios(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.throughput_ratio is None:
            continue
        ratios = found.setdefault(
            (row.section, row.tool, words.target_name(row)),
            {"throughput": [], "p99": [], "CPU per request": []},
        )
        for name, ratio in zip(ratios, (row.throughput_ratio, row.p99_ratio, row.cpu_ratio), strict=True):
            if ratio is not None:
                ratios[name].append(ratio.median)
    return found


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return f"{low}x" if low == high else f"{low}x to {high}x"


def _picture(file: Path, text: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{data}"></p>'


def _section(name: str, rows: Sequence[Row], pictures: Sequence[Picture]) -> str:
    """One infrastructure: pictures, then a table for each tool."""
    in_memory = {row.durability for row in rows} == {IN_MEMORY, "fsync"}
    note = (
        f"<p>A standalone service keeps its data in memory alone, where {YARDSTICK} waits for its disk: "
        "a PUT's ratios compare what each is, not the same promise.</p>"
        if in_memory and not words.is_chain(name)
        else ""
    )
    return (
        f"<h2>{escape(words.section_title(name))}</h2>{note}"
        + "".join(_picture(each.file, each.text) for each in pictures)
        + "".join(_table(tool, list(of_tool)) for tool, of_tool in groupby(rows, key=lambda row: row.tool))
    )


def _table(tool: str, rows: Sequence[Row]) -> str:
    head = "".join(
        f'<th class="left">{name}</th>' if number in LEFT else f"<th>{name}</th>"
        for number, name in enumerate(HEADINGS)
    )
    body = []
    for workload, of_workload in groupby(rows, key=lambda row: row.workload):
        title = f"{escape(workload)}: {escape(words.workload_title(workload))}"
        body.append(f'<tr class="workload"><td colspan="{len(HEADINGS)}">{title}</td></tr>')
        for _, of_users in groupby(of_workload, key=lambda row: row.users):
            body += [_line(row, first=number == 0) for number, row in enumerate(of_users)]
    return (
        f'<h3>Load from {tool}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _line(row: Row, *, first: bool) -> str:
    generator = words.percent(row.generator_cpu)
    cells = [
        _cell(str(row.users) if first else ""),
        _cell(escape(words.target_name(row)), "left"),
        _cell(f"{row.durability}, {row.reads}", "left"),
        _cell(words.count(row.throughput)),
        _cell(f"{words.scatter(row)} of {row.rounds}"),
        _ratio_cell(row.throughput_ratio, more_is_better=True),
        _cell(words.milliseconds(row.p50_ms)),
        _cell(words.milliseconds(row.p99_ms)),
        _ratio_cell(row.p99_ratio, more_is_better=False),
        _cell(words.milliseconds(row.p999_ms)),
        _cell(words.count(row.errors), "worse" if row.errors else ""),
        _cell(words.count(row.missing) if row.missing else ""),
        _cell(words.optional(row.cpu_us)),
        _ratio_cell(row.cpu_ratio, more_is_better=False),
        _cell(words.of_nodes([*row.node_cpu.values()], 100)),
        _cell(words.of_nodes([*row.node_memory_mib.values()])),
        _cell(generator, "worse" if words.at_limit(row) else ""),
        _cell(words.UNKNOWN if row.others_cpu is None else words.percent(row.others_cpu)),
    ]
    return f"<tr{' class=first' if first else ''}>{''.join(cells)}</tr>"


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _ratio_cell(ratio: Ratio | None, *, more_is_better: bool) -> str:
    if ratio is None:
        return _cell("")
    better = ratio.median > 1 if more_is_better else ratio.median < 1
    span = words.span(ratio)
    text = f"{words.times(ratio)} <small>{span}</small>" if span else words.times(ratio)
    return _cell(text, "better" if better else "worse")


def _losses(rows: Sequence[Row]) -> str:
    lost = words.losses(rows)
    if not any(row.throughput_ratio for row in rows):
        return ""
    text = (
        _list(map(escape, lost))
        if lost
        else "<p>In none of the cells above, by throughput, p99 or CPU per request.</p>"
    )
    return f"<h2>Where {YARDSTICK} is better</h2>{text}"


def _method(summary: Summary) -> str:
    starts = "\n".join(f"# {name}\n" + "\n".join(commands) for name, commands in summary.starts.items())
    example: dict[tuple[str, str], str] = {}
    for run in sorted(summary.runs, key=lambda run: -run.users):
        example.setdefault((run.tool, run.workload), run.command)
    return (
        "<h2>How it was measured</h2>"
        "<p>All nodes and the load generator share one machine. The targets take turns within each round "
        "(A B A B), so that a change in the machine's mood meets all of them. Before anything was measured, "
        "each cluster had to answer a PUT, GET and DELETE on every node as etcd does, and to show each node's "
        "writes on the others. Users are spread evenly over the nodes. Half a second of warm-up goes before "
        "each run and is not counted. Data directories are fresh and on the disk named below.</p>"
        f"{_list(_notes(summary))}"
        f"<p>The nodes (DATA is a fresh directory):</p><pre>{escape(starts)}</pre>"
        "<p>The load, from the repository's root, here with the most users of each; the other runs differ in "
        f"the number of users, and in the ports of the target:</p><pre>{escape(chr(10).join(example.values()))}</pre>"
        f"<p>All runs: <code>{SUMMARY}</code>; what the tools said: <code>target/infrastructure/workload/</code> "
        "beside it.</p>"
    )


def _notes(summary: Summary) -> list[str]:
    notes = [
        "Durability <i>fsync</i>: a write is answered after a majority has it on disk, as etcd does by default."
    ]
    notes.append("Reads <i>local</i>: a GET is answered by the node that is asked, etcd's v2 default.")
    notes += [
        f"{each.name}: {each.title}."
        for each in WORKLOADS.values()
        if any(run.workload == each.name for run in summary.runs)
    ]
    limited = words.limited(summary.rows)
    if limited:
        notes.append(
            "Where the load CPU is marked, the load generator kept nearly all CPUs busy that it can use, or "
            "used more than the nodes did: those rows show the load generator's limit as much as the target's. "
            f"They are:{_list(escape(each) for each in limited)}"
        )
    return notes


def _environment(summary: Summary) -> str:
    facts = {**summary.environment, **{f"{name} says": text for name, text in summary.versions.items()}}
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return f"<h2>Machine and versions</h2><dl>{items}</dl>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
