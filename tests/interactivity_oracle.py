"""A slow, independent reading of the event rules: whole timelines as boolean arrays, nothing incremental.

Written from the table in `duologue.metrics.events`, sharing no code with it. Timelines must end in at least 8 s of
silence, so that the end of the recording decides nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Found = tuple[str, str | None, int, int, int | None]
Span = tuple[int, int]
Ticks = npt.NDArray[np.bool_]


def runs(active: Ticks, bridge: int = 0) -> list[Span]:
    """Spans of activity, silences of at most `bridge` ticks included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
    spans: list[list[int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if spans and start - spans[-1][1] <= bridge:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [(start, end) for start, end in spans]


def fill(spans: list[Span], length: int) -> Ticks:
    filled = np.zeros(length, dtype=np.bool_)
    for start, end in spans:
        filled[start:end] = True
    return filled


def find_events(user: Ticks, agent: Ticks) -> list[Found]:
    """Every event of the table, in no particular order."""
    assert not user[-800:].any()
    assert not agent[-800:].any()
    raw = {"user": user, "agent": agent}
    ipus = {side: runs(raw[side], 20) for side in raw}
    utterances = {side: runs(raw[side], 100) for side in raw}
    on = {side: fill(ipus[side], len(user)) for side in raw}
    found: list[Found] = []
    for side in raw:
        found += [(f"{side}_speech_started", side, start, start, None) for start, _ in ipus[side]]
        found += [(f"{side}_speech_ended", side, start, end, None) for start, end in ipus[side]]
        found += [("utterance", side, start, end, None) for start, end in utterances[side]]
    found += _floor(on, ipus)
    found += [("overlap", None, start, end, None) for start, end in runs(on["user"] & on["agent"])]
    found += _pauses(on, ipus, utterances)
    found += _backchannels(ipus, utterances)
    for turn in utterances["user"]:
        if turn[1] - turn[0] > 100:
            found += _turn(turn, on, ipus, utterances)
        begins_in_speech = turn[0] > 0 and on["agent"][turn[0]] and on["agent"][turn[0] - 1]
        if begins_in_speech:
            found += _onset(turn, on, ipus, utterances)
    return found


def _floor(on: dict[str, Ticks], ipus: dict[str, list[Span]]) -> list[Found]:
    found: list[Found] = []
    alone = np.flatnonzero(on["user"] ^ on["agent"])
    for before, now in zip(alone[:-1].tolist(), alone[1:].tolist(), strict=True):
        old, new = ("user" if on["user"][tick] else "agent" for tick in (before, now))
        silent_before = not on["user"][now - 1] and not on["agent"][now - 1]
        if old == new:
            if now > before + 1 and silent_before:
                begin = max(end for side in on for _, end in ipus[side] if end <= now)
                found.append(("pause", new, begin, now, None))
            continue
        start = max(start for start, _ in ipus[new] if start <= now)
        end = max(end for _, end in ipus[old] if end <= now)
        if start > end:
            found.append(("gap", new, end, start, start - end))
        found.append(("floor_transfer", new, min(start, end), max(start, end), start - end))
    return found


def _holding(utterances: list[Span], tick: int) -> Span:
    return next(span for span in utterances if span[0] <= tick < span[1])


def _pauses(on: dict[str, Ticks], ipus: dict[str, list[Span]], utterances: dict[str, list[Span]]) -> list[Found]:
    found: list[Found] = []
    for (_, end), (start, _) in zip(ipus["user"], ipus["user"][1:], strict=False):
        if start - end > 100:
            continue
        heard = np.flatnonzero(on["agent"][end:start]) + end
        lengths = [span[1] - span[0] for span in (_holding(utterances["agent"], int(tick)) for tick in heard)]
        found.append(("takeover" if max(lengths, default=0) > 100 else "pause_kept", "agent", end, start, None))
    return found


def _backchannels(ipus: dict[str, list[Span]], utterances: dict[str, list[Span]]) -> list[Found]:
    found: list[Found] = []
    for side, other in (("user", "agent"), ("agent", "user")):
        for start, end in utterances[side]:
            inside = any(a < start < b for a, b in utterances[other])
            if end - start > 100 or not inside:
                continue
            offsets = sorted((start - b for _, b in ipus[other]), key=lambda offset: (abs(offset), -offset))
            offset = offsets[0] if abs(offsets[0]) <= 200 else None
            found.append(("backchannel", side, start, end, offset))
    return found


def _answer(
    turn: Span, on: dict[str, Ticks], ipus: dict[str, list[Span]], utterances: dict[str, list[Span]]
) -> tuple[str, int]:
    end = turn[1]
    if on["agent"][end - 1] and on["agent"][end]:
        onset = _holding(utterances["agent"], end)[0]
        return ("talked_over" if onset < end - 100 else "answered"), onset
    onset = min((start for start, _ in ipus["agent"] if start >= end), default=10**9)
    again = min((start for start, _ in ipus["user"] if start >= end), default=10**9)
    return ("answered" if onset <= end + 500 and onset <= again else "missed"), onset


def _turn(
    turn: Span, on: dict[str, Ticks], ipus: dict[str, list[Span]], utterances: dict[str, list[Span]]
) -> list[Found]:
    outcome, onset = _answer(turn, on, ipus, utterances)
    if outcome != "answered":
        return [(f"turn_{outcome}", "agent", *turn, None)]
    end = turn[1]
    found: list[Found] = [("turn_answered", "agent", min(onset, end), max(onset, end), onset - end)]
    answer = _holding(utterances["agent"], onset)
    if answer[1] - answer[0] <= 100:
        found.append(("answered_briefly", "agent", *answer, None))
    return found


def _onset(
    turn: Span, on: dict[str, Ticks], ipus: dict[str, list[Span]], utterances: dict[str, list[Span]]
) -> list[Found]:
    onset, end = turn
    if end - onset <= 100:
        stop = _holding(utterances["agent"], onset)[1]
        if stop <= onset + 100:
            return [("agent_stopped_for_backchannel", "agent", onset, stop, stop - onset)]
        return [("agent_ignored_backchannel", "agent", onset, onset + 100, None)]
    # An interruption becomes known while it is still going on, so its end is not compared.
    found: list[Found] = [("interruption", "user", onset, -1, None)]
    for _, stop in ipus["agent"]:
        resumed = min((start for start, _ in ipus["agent"] if start >= stop), default=10**9)
        if onset < stop <= onset + 200 and (resumed - stop > 100 or resumed >= end):
            found.append(("agent_yielded", "agent", onset, stop, stop - onset))
            outcome, answer = _answer(turn, on, ipus, utterances)
            if outcome == "answered":
                found.append(("agent_responded", "agent", min(answer, end), max(answer, end), answer - end))
            return found
    return [*found, ("agent_held", "agent", onset, onset + 200, None)]
