from __future__ import annotations

import pytest

from e2e.emulator.table import TableError, parse_table

ROWS = [
    "request_id,service,prompt_tokens,small_out_tokens,small_correct,large_out_tokens,large_correct",
    "q1,chat,300,40,0,60,1",
    "q2,search,900,0,1,20,1",
]


def test_recorded_outcomes_are_found_by_request_and_member() -> None:
    table = parse_table(ROWS)
    assert table.members == ("small", "large")
    small, large = table.outcome("q1", "small"), table.outcome("q1", "large")
    assert (small.prompt_tokens, small.output_tokens, small.satisfied, small.known) == (300, 40, False, True)
    assert (large.output_tokens, large.satisfied) == (60, True)
    assert table.outcome("q2", "small").output_tokens == 1  # an engine generates at least one token


def test_each_service_has_its_own_requests() -> None:
    table = parse_table(ROWS)
    assert table.ids_of("chat") == ("q1",)
    assert table.ids_of("nobody") == ()
    without = parse_table([",".join(row.split(",")[:1] + row.split(",")[2:]) for row in ROWS])
    assert without.ids_of("chat") == ("q1", "q2")


def test_what_was_never_recorded_is_invented_the_same_way_each_time() -> None:
    table = parse_table(ROWS)
    first = table.outcome("stranger", "small", prompt_tokens_guess=77)
    assert first == table.outcome("stranger", "small", prompt_tokens_guess=77)
    assert not first.known
    assert first.prompt_tokens == 77
    assert table.outcome("q1", "unheard-of").prompt_tokens == 300  # the prompt is known even so
    satisfied = [table.outcome(str(i), "small").satisfied for i in range(2000)]
    assert 0.55 < sum(satisfied) / 2000 < 0.65  # 154 of 256 hashes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["request_id,small_out_tokens,small_correct"], "prompt_tokens"),
        (["request_id,prompt_tokens,small_out_tokens"], "two columns"),
        ([*ROWS, "q3,chat,many,1,1,1,1"], "line 4"),
        ([*ROWS, "q3,chat,5"], "line 4"),
    ],
)
def test_a_damaged_table_says_where(rows: list[str], words: str) -> None:
    with pytest.raises(TableError, match=words):
        parse_table(rows)
