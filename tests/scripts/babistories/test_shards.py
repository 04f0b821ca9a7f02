from threading import Barrier, Thread
from types import SimpleNamespace

import pytest

from mosaic_lab.babistories.shards import Stage, run_stage


def process(index=0, count=1, wait=lambda: None):
    return SimpleNamespace(
        process_index=index, num_processes=count, is_main_process=index == 0, wait_for_everyone=wait
    )


def record(numbers, seed):
    return [{"number": number, "seed": seed} for number in numbers]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_records_come_back_in_order(tmp_path):
    stage = Stage("tales", 7, 3, record)
    records = list(run_stage(stage, tmp_path, 5, process()))
    assert [entry["number"] for entry in records] == list(range(7))
    assert [entry["seed"] for entry in records] == [f"5/tales-{shard:05}" for shard in (0, 0, 0, 1, 1, 1, 2)]
    assert sorted(contents(tmp_path)) == [f"tales-{shard:05}.jsonl" for shard in range(3)]


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_processes_changes_nothing(tmp_path, count):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir(), shared.mkdir()
    stage = Stage("tales", 10, 2, record)
    run_stage(stage, alone, 0, process())
    barrier = Barrier(count)
    threads = [
        Thread(target=run_stage, args=(stage, shared, 0, process(index, count, barrier.wait)))
        for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(alone) == contents(shared)


def test_finished_shards_are_kept_and_unfinished_ones_leave_nothing(tmp_path):
    made = []

    def stop_in_third(numbers, seed):
        if numbers.start == 4 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(numbers.start)
        return record(numbers, seed)

    stage = Stage("tales", 10, 2, stop_in_third)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, tmp_path, 0, process())
    assert sorted(contents(tmp_path)) == ["tales-00000.jsonl", "tales-00001.jsonl"]
    made.append("again")
    records = run_stage(stage, tmp_path, 0, process())
    assert made == [0, 2, "again", 4, 6, 8]
    assert [entry["number"] for entry in records] == list(range(10))
