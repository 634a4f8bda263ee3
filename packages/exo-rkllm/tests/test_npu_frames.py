"""The frames between node and worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_rkllm.worker.frames import HEAD, LARGEST_BODY, FrameReader, Kind, frame, ids_from_bytes, ids_to_bytes

FRAMES = st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=40)), max_size=10)


@given(frames=FRAMES, cut=st.integers(1, 30))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames: list[tuple[Kind, bytes]], cut: int) -> None:
    data = b"".join(frame(kind, body) for kind, body in frames)
    reader = FrameReader()
    found = [one for start in range(0, len(data), cut) for one in reader.feed(data[start : start + cut])]
    assert found == frames


def test_an_impossible_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        list(FrameReader().feed(HEAD.pack(LARGEST_BODY + 1, 1)))


@given(ids=st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_token_ids(ids: list[int]) -> None:
    assert list(ids_from_bytes(ids_to_bytes(ids))) == ids
