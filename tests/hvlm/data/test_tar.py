import hashlib
import io
import tarfile

import pytest

from hvlm.data.tar import HashingSink, TarWriter, read_members


def write(members):
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    ranges = [writer.add(name, data) for name, data in members]
    size = writer.finish()
    assert size == len(buffer.getvalue())
    return buffer.getvalue(), ranges


MEMBERS = [("a.npy", b"x" * 513), ("b.json", b""), ("c" * 150 + ".json", b"long name"), ("é.json", b"1" * 512)]


def test_a_standard_reader_reads_it_and_owner_and_time_are_fixed():
    data, _ = write(MEMBERS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        infos = archive.getmembers()
        assert [(info.name, archive.extractfile(info).read()) for info in infos] == MEMBERS
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in infos} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_each_range_alone_holds_its_member_and_the_ranges_tile_the_tar():
    data, ranges = write(MEMBERS)
    for (name, content), (offset, size) in zip(MEMBERS, ranges, strict=True):
        assert read_members(data[offset : offset + size]) == {name: content}
    ends = [offset + size for offset, size in ranges]
    assert [offset for offset, _ in ranges] == [0, *ends[:-1]]
    assert len(data) == ends[-1] + 1024


def test_adjacent_ranges_are_read_together():
    data, ranges = write(MEMBERS)
    end = ranges[1][0] + ranges[1][1]
    assert read_members(data[:end]) == dict(MEMBERS[:2])


def test_a_range_that_is_cut_short_is_refused():
    data, _ = write(MEMBERS)
    with pytest.raises(tarfile.TarError):
        read_members(data[:600])


def test_equal_members_give_equal_bytes():
    assert write(MEMBERS)[0] == write(MEMBERS)[0]


def test_the_sink_hashes_the_whole_and_its_parts():
    buffer = io.BytesIO()
    sink = HashingSink(buffer)
    parts = []
    for data in (b"one", b"two"):
        sink.write(data)
        parts.append(sink.take_part())
    assert parts == [hashlib.sha256(data).hexdigest() for data in (b"one", b"two")]
    assert sink.whole() == hashlib.sha256(b"onetwo").hexdigest() and buffer.getvalue() == b"onetwo"
