from __future__ import annotations

import random

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.storage.codecs import ChunkError, compress_chunk, decompress_chunk
from iqdb_core.storage.layout import CODEC_LZ4, CODEC_NONE, CODEC_ZSTD, MAX_CHUNK_BYTES

BOTH = pytest.mark.parametrize("codec", [CODEC_LZ4, CODEC_ZSTD])
TEXT = b"the quick brown fox " * 200


@BOTH
@given(raw=st.binary(min_size=1, max_size=300).map(lambda part: part * (len(part) % 7 + 1)))
def test_a_chunk_comes_back_and_is_never_longer_stored(codec: int, raw: bytes) -> None:
    stored = compress_chunk(codec, 3, raw)
    assert len(stored) <= len(raw)
    assert bytes(decompress_chunk(codec, stored, len(raw))) == raw


@pytest.mark.parametrize("level", [1, 3, 19, 22])
def test_every_zstd_level_shrinks_what_repeats(level: int) -> None:
    stored = compress_chunk(CODEC_ZSTD, level, TEXT)
    assert len(stored) < 100
    assert decompress_chunk(CODEC_ZSTD, stored, len(TEXT)) == TEXT


@BOTH
def test_a_whole_mebibyte_is_one_chunk(codec: int) -> None:
    raw = bytes(MAX_CHUNK_BYTES)
    assert decompress_chunk(codec, compress_chunk(codec, 1, raw), len(raw)) == raw


@BOTH
def test_a_chunk_that_does_not_shrink_is_stored_as_it_is(codec: int) -> None:
    raw = random.Random(7).randbytes(5000)
    assert compress_chunk(codec, 22, raw) == raw


@BOTH
def test_the_same_chunk_gives_the_same_bytes(codec: int) -> None:
    assert compress_chunk(codec, 5, TEXT) == compress_chunk(codec, 5, TEXT)


@BOTH
@pytest.mark.parametrize("change", [-1, 1, 4000, MAX_CHUNK_BYTES - len(TEXT)])
def test_a_chunk_of_another_size_than_declared_is_refused(codec: int, change: int) -> None:
    with pytest.raises(ChunkError):
        decompress_chunk(codec, compress_chunk(codec, 3, TEXT), len(TEXT) + change)


@BOTH
@pytest.mark.parametrize("raw_bytes", [0, -1, MAX_CHUNK_BYTES + 1, 1 << 62])
def test_a_size_outside_the_limits_is_refused_before_anything_is_allocated(
    codec: int, raw_bytes: int
) -> None:
    with pytest.raises(ChunkError, match=r"outside 1\.\.1048576"):
        decompress_chunk(codec, b"x", raw_bytes)


@BOTH
def test_a_chunk_that_is_stored_in_more_bytes_than_it_has_is_refused(codec: int) -> None:
    with pytest.raises(ChunkError, match="9 stored bytes for 8"):
        decompress_chunk(codec, b"x" * 9, 8)


@BOTH
def test_bytes_after_the_chunk_are_refused(codec: int) -> None:
    with pytest.raises(ChunkError):
        decompress_chunk(codec, compress_chunk(codec, 3, TEXT) + b"\0", len(TEXT))


def test_a_second_zstd_frame_is_refused() -> None:
    half = TEXT[:2000]
    frame = compress_chunk(CODEC_ZSTD, 3, half)
    with pytest.raises(ChunkError):
        decompress_chunk(CODEC_ZSTD, frame + frame, 2000)
    with pytest.raises(ChunkError, match="declares 2000 bytes, not 4000"):
        decompress_chunk(CODEC_ZSTD, frame + frame, 4000)


def test_a_zstd_frame_without_its_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(ChunkError, match="declares"):
        decompress_chunk(CODEC_ZSTD, frame, len(TEXT))


def test_a_zstd_frame_that_declares_more_than_it_holds_is_refused() -> None:
    stored = bytearray(compress_chunk(CODEC_ZSTD, 3, TEXT))
    # Magic and descriptor take 5 bytes; a single segment of this size has its size, less 256, there.
    assert int.from_bytes(stored[5:7], "little") + 256 == len(TEXT)
    stored[5:7] = (60_000 - 256).to_bytes(2, "little")
    with pytest.raises(ChunkError):
        decompress_chunk(CODEC_ZSTD, stored, 60_000)


def test_a_zstd_frame_with_a_dictionary_is_refused() -> None:
    samples = [f"record {i} of many, all alike but for {i * i}".encode() for i in range(2000)]
    dictionary = zstandard.train_dictionary(2048, samples)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT)
    with pytest.raises(ChunkError, match="needs dictionary"):
        decompress_chunk(CODEC_ZSTD, frame, len(TEXT))


def test_an_lz4_block_that_begins_with_its_size_is_refused() -> None:
    with pytest.raises(ChunkError):
        decompress_chunk(CODEC_LZ4, lz4.block.compress(TEXT, store_size=True), len(TEXT))


def test_without_a_codec_a_chunk_is_what_it_is() -> None:
    assert bytes(decompress_chunk(CODEC_NONE, b"abc", 3)) == b"abc"
    with pytest.raises(ChunkError, match="codec 0"):
        decompress_chunk(CODEC_NONE, b"abc", 4)


@BOTH
@given(data=st.data())
def test_damage_gives_an_error_or_the_right_number_of_bytes(codec: int, data: st.DataObject) -> None:
    stored = bytearray(compress_chunk(codec, 3, TEXT))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] = data.draw(st.integers(0, 255))
    try:
        raw = decompress_chunk(codec, stored, len(TEXT))
    except ChunkError:
        return
    assert memoryview(raw).nbytes == len(TEXT)
