"""Batches that are made in a thread."""

import threading

import pytest

from lumiere_core.training.prefetch import Ahead


class Maker:
    """Makes the square of each number and remembers in what blocks, and in which thread."""

    def __init__(self, broken=()):
        self.blocks, self.threads, self.broken = [], set(), broken

    def __call__(self, numbers):
        self.blocks.append(tuple(numbers))
        self.threads.add(threading.current_thread())
        if set(self.broken) & set(numbers):
            raise ValueError(f"nothing for {numbers}")
        return [number**2 for number in numbers]


def ahead(make, early, block=3):
    made = Ahead(make, "cpu", block)
    made.early = early
    return made


def test_on_a_cpu_each_batch_is_made_when_it_is_asked_for():
    make = Maker()
    batches = ahead(make, early=False)
    assert [batches(number) for number in (0, 1, 5)] == [0, 1, 25]
    assert make.blocks == [(0,), (1,), (5,)]
    assert make.threads == {threading.current_thread()}


def test_blocks_are_made_once_and_before_they_are_asked_for():
    make = Maker()
    batches = ahead(make, early=True)
    assert [batches(number) for number in range(9)] == [n**2 for n in range(9)]
    assert make.blocks[:3] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert threading.current_thread() not in make.threads


def test_the_batches_of_one_of_several_processes():
    batches = ahead(Maker(), early=True)
    assert [batches(number) for number in range(1, 40, 4)] == [n**2 for n in range(1, 40, 4)]


def test_a_number_out_of_turn():
    batches = ahead(Maker(), early=True)
    assert [batches(number) for number in (0, 1, 17, 18, 4, 4)] == [0, 1, 289, 324, 16, 16]


def test_an_error_is_raised_where_the_batch_is_wanted():
    batches = ahead(Maker(broken=[4]), early=True)
    assert batches(1) == 1
    with pytest.raises(ValueError, match="nothing for"):
        batches(4)
