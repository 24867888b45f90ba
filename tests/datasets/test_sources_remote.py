"""Tables that people and download tools write."""

from __future__ import annotations

from pathlib import Path

from musicon.datasets.sources.remote import read_table


def test_a_title_may_hold_any_kind_of_line_break(tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    file.write_text('url;title;query\r\nhttp://a;A\u2028lute \x0b\x85;lute\r\n'
                    'http://b;"Two\nlines";harp\r\n', encoding="utf-8", newline="")
    rows = read_table(file, [("url",), ("query", "class")])
    assert [(row["url"], row["query"]) for row in rows] == [("http://a", "lute"),
                                                           ("http://b", "harp")]
    assert rows[1]["title"] == "Two\nlines"
