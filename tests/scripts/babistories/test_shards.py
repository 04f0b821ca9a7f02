from threading import Barrier, Thread

import pytest

from mosaic_lab.babistories.options import StoryArguments
from mosaic_lab.babistories.shards import make_records
from mosaic_lab.core.errors import InputError

OPTIONS = StoryArguments(output_dir="tales", model="grammar", seed=5)


def record(numbers, seed):
    return [{"number": number, "seed": seed} for number in numbers]


def make(folder, num_records, make=record, options=OPTIONS):
    return list(make_records(folder, options, "tales", num_records, 2, make))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json*")}


def test_records_come_back_in_order(tmp_path):
    records = make(tmp_path, 7)
    assert [entry["number"] for entry in records] == list(range(7))
    shards = [0, 0, 1, 1, 2, 2, 3]
    assert [entry["seed"] for entry in records] == [f"5/tales-{shard:05}" for shard in shards]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"tales-{shard:05}" for shard in range(4)]


def test_processes_share_the_shards(tmp_path):
    """Both begin one, neither makes one again, and both get all records."""
    barrier, made, read = Barrier(2), [], []

    def meet(numbers, seed):
        made.append(numbers.start)
        if len(made) <= 2:
            barrier.wait(60)
        return record(numbers, seed)

    threads = [Thread(target=lambda: read.append(make(tmp_path / "shared", 10, meet))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 2, 4, 6, 8]
    assert read == [make(tmp_path / "alone", 10)] * 2
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_finished_shards_are_kept_and_unfinished_ones_leave_nothing(tmp_path):
    made = []

    def stop_in_third(numbers, seed):
        if numbers.start == 4 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(numbers.start)
        return record(numbers, seed)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 10, stop_in_third)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tales-00000", "tales-00001"]
    made.append("again")
    records = make(tmp_path, 10, stop_in_third)
    assert made == [0, 2, "again", 4, 6, 8]
    assert [entry["number"] for entry in records] == list(range(10))


def test_damaged_records_are_named(tmp_path):
    make(tmp_path, 4)
    (tmp_path / "tales-00001" / "records.jsonl").write_text('{"number": 2}\n{"numb')
    with pytest.raises(InputError, match="tales-00001/records.jsonl, line 2: not JSON"):
        make(tmp_path, 4)
