"""`test:values/cells`: a guest's own resource in every place that a handle can stand in, in four languages.

`HANDLE_ROWS` is the part of the conformance table about handles: what is asked of such a guest, and what it answers.
A cell holds a number. In C and WAT, which have no binding, the number is the resource's representation: who borrows a
cell gets the number, who owns one gets its handle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloche.values import Case

CELLS = "test:values/cells"


@dataclass(frozen=True)
class HandleRow:
    """One place of a handle: its name in the table, the type as users write it, what is asked, and the answer."""

    name: str
    wit: str
    ask: Callable[[Any], object]
    answer: object


def _pairs(cells: Any) -> object:
    first, second, third = cells.make_many([4, 5, 6])
    whole = cells.pass_pair({"first": first, "second": second})
    half = cells.pass_pair({"first": third, "second": None})
    return whole.first.get(), whole.second.get(), half.first.get(), half.second


def _either(cells: Any) -> object:
    back = cells.pass_either(Case("one", cells.cell(7)))
    return back.case, back.value.get(), cells.pass_either(Case("number", 3)).value, cells.pass_either("none").case


HANDLE_ROWS: tuple[HandleRow, ...] = (
    HandleRow("own", "own<r>", lambda cells: cells.pass_(cells.cell(7)).get(), 7),
    HandleRow("borrow", "borrow<r>", lambda cells: cells.read(cells.cell(7)), 7),
    HandleRow(
        "list-own",
        "list<own<r>>",
        lambda cells: [each.get() for each in cells.pass_many(cells.make_many([1, 2, 3]))],
        [1, 2, 3],
    ),
    HandleRow("list-borrow", "list<borrow<r>>", lambda cells: cells.sum(cells.make_many([1, 2, 3])), 6),
    HandleRow("record-own", "record { first: own<r>, second: option<own<r>> }", _pairs, (4, 5, 6, None)),
    HandleRow(
        "record-borrow",
        "record { cell: borrow<r>, weight: u32 }",
        lambda cells: cells.weigh({"cell": cells.cell(7), "weight": 3}),
        21,
    ),
    HandleRow(
        "option-own",
        "option<own<r>>",
        lambda cells: (cells.pass_option(cells.cell(7)).get(), cells.pass_option(None)),
        (7, None),
    ),
    HandleRow(
        "option-borrow",
        "option<borrow<r>>",
        lambda cells: (cells.read_option(cells.cell(7)), cells.read_option(None)),
        (7, 0),
    ),
    HandleRow("variant-own", "variant { one(own<r>), none, number(u32) }", _either, ("one", 7, 3, "none")),
    HandleRow(
        "variant-borrow",
        "variant { one(borrow<r>), none }",
        lambda cells: (cells.read_lent(Case("one", cells.cell(7))), cells.read_lent("none")),
        (7, 0),
    ),
)

WIT = """\
interface cells {
    resource cell {
        constructor(number: u32);
        get: func() -> u32;
    }
    record pair { first: cell, second: option<cell> }
    record view { cell: borrow<cell>, weight: u32 }
    variant either { one(cell), none, number(u32) }
    variant lent { one(borrow<cell>), none }
    make-many: func(numbers: list<u32>) -> list<cell>;
    pass: func(x: cell) -> cell;
    pass-many: func(x: list<cell>) -> list<cell>;
    pass-pair: func(x: pair) -> pair;
    pass-option: func(x: option<cell>) -> option<cell>;
    pass-either: func(x: either) -> either;
    read: func(x: borrow<cell>) -> u32;
    sum: func(x: list<borrow<cell>>) -> u32;
    weigh: func(x: view) -> u32;
    read-option: func(x: option<borrow<cell>>) -> u32;
    read-lent: func(x: lent) -> u32;
}
"""

PYTHON_CELL = """\
from cloche_guest import export
from wit_world.exports import cells


@export
class Cell(cells.Cell):
    def __init__(self, number):
        self.number = number

    def get(self):
        return self.number
"""
"""A module of its own: componentize-py wants a resource in one named like its interface."""

PYTHON = """\
from cells import Cell


@export
class Cells(exports.Cells):
    pass_ = pass_many = pass_pair = pass_option = pass_either = same

    def make_many(self, numbers):
        return [Cell(number) for number in numbers]

    def read(self, x):
        return x.get()

    def sum(self, x):
        return sum(each.get() for each in x)

    def weigh(self, x):
        return x.cell.get() * x.weight

    def read_option(self, x):
        return 0 if x is None else x.get()

    def read_lent(self, x):
        return x.value.get() if hasattr(x, "value") else 0


"""

JAVASCRIPT = """\
class Cell {
  constructor(number) { this.number = number; }
  get() { return this.number; }
}
export const cells = {
  Cell,
  makeMany: (numbers) => Array.from(numbers, (number) => new Cell(number)),
  pass: same,
  passMany: same,
  passPair: same,
  passOption: same,
  passEither: same,
  read: (x) => x.get(),
  sum: (x) => x.reduce((sum, each) => sum + each.get(), 0),
  weigh: (x) => x.cell.get() * x.weight,
  readOption: (x) => (x == null ? 0 : x.get()),
  readLent: (x) => (x.tag === "one" ? x.val.get() : 0),
};
"""

C = """\
/* A cell's representation is its number; who owns a cell gets its handle, who borrows it the representation. */
#define CELLS "test:values/cells#"
CLOCHE_IMPORT("[export]test:values/cells", "[resource-new]cell") uint32_t cell_new(uint32_t number);
CLOCHE_EXPORT(CELLS "[constructor]cell") uint32_t cell_make(uint32_t number) { return cell_new(number); }
CLOCHE_EXPORT(CELLS "[method]cell.get") uint32_t cell_get(uint32_t number) { return number; }
CLOCHE_EXPORT(CELLS "make-many") const cloche_text *cells_make_many(const uint32_t *numbers, size_t length) {
    uint32_t *handles = cloche_take(4, 4 * length);
    for (size_t i = 0; i < length; i++) handles[i] = cell_new(numbers[i]);
    return cloche_return((cloche_text){(const char *)handles, length});
}
CLOCHE_EXPORT("cabi_post_" CELLS "make-many") void cells_made(const cloche_text *x) { (void)x; cloche_release(); }
CLOCHE_EXPORT(CELLS "pass") uint32_t cells_pass(uint32_t handle) { return handle; }
CLOCHE_EXPORT(CELLS "pass-many") const cloche_text *cells_pass_many(const char *handles, size_t length) {
    return cloche_return((cloche_text){handles, length});
}
CLOCHE_EXPORT("cabi_post_" CELLS "pass-many") void cells_done(const cloche_text *x) { (void)x; cloche_release(); }
static uint32_t *words(size_t count) { return cloche_take(4, 4 * count); }
CLOCHE_EXPORT(CELLS "pass-pair") uint32_t *cells_pass_pair(uint32_t first, uint32_t is_some, uint32_t second) {
    uint32_t *area = words(3);
    area[0] = first, area[1] = is_some, area[2] = second;
    return area;
}
CLOCHE_EXPORT("cabi_post_" CELLS "pass-pair") void cells_done_pair(uint32_t *x) { (void)x; cloche_release(); }
CLOCHE_EXPORT(CELLS "pass-option") uint32_t *cells_pass_option(uint32_t is_some, uint32_t handle) {
    uint32_t *area = words(2);
    area[0] = is_some, area[1] = handle;
    return area;
}
CLOCHE_EXPORT("cabi_post_" CELLS "pass-option") void cells_done_option(uint32_t *x) { (void)x; cloche_release(); }
CLOCHE_EXPORT(CELLS "pass-either") uint32_t *cells_pass_either(uint32_t index, uint32_t payload) {
    uint32_t *area = words(2);
    area[0] = index, area[1] = payload;
    return area;
}
CLOCHE_EXPORT("cabi_post_" CELLS "pass-either") void cells_done_either(uint32_t *x) { (void)x; cloche_release(); }
CLOCHE_EXPORT(CELLS "read") uint32_t cells_read(uint32_t number) { return number; }
CLOCHE_EXPORT(CELLS "sum") uint32_t cells_sum(const uint32_t *numbers, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++) sum += numbers[i];
    cloche_release();
    return sum;
}
CLOCHE_EXPORT(CELLS "weigh") uint32_t cells_weigh(uint32_t number, uint32_t weight) { return number * weight; }
CLOCHE_EXPORT(CELLS "read-option") uint32_t cells_read_option(uint32_t is_some, uint32_t number) {
    return is_some ? number : 0;
}
CLOCHE_EXPORT(CELLS "read-lent") uint32_t cells_read_lent(uint32_t index, uint32_t number) {
    return index == 0 ? number : 0;
}

"""

WAT = """\
(module
  (import "[export]test:values/cells" "[resource-new]cell" (func $new (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 4096))
  (func $take (param $size i32) (result i32) (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $take (local.get 3)))
  (func $two (param i32 i32) (result i32) (local $at i32)
    (local.set $at (call $take (i32.const 8)))
    (i32.store (local.get $at) (local.get 0)) (i32.store offset=4 (local.get $at) (local.get 1)) (local.get $at))
  (func (export "test:values/cells#[constructor]cell") (param i32) (result i32) (call $new (local.get 0)))
  (func (export "test:values/cells#[method]cell.get") (param i32) (result i32) (local.get 0))
  (func (export "test:values/cells#make-many") (param $at i32) (param $count i32) (result i32)
    (local $left i32) (local $to i32)
    (local.set $to (local.get $at)) (local.set $left (local.get $count))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $left)))
      (i32.store (local.get $to) (call $new (i32.load (local.get $to))))
      (local.set $to (i32.add (local.get $to) (i32.const 4)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $more)))
    (call $two (local.get $at) (local.get $count)))
  (func (export "test:values/cells#pass") (param i32) (result i32) (local.get 0))
  (func (export "test:values/cells#pass-many") (param i32 i32) (result i32) (call $two (local.get 0) (local.get 1)))
  (func (export "test:values/cells#pass-pair") (param i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (call $take (i32.const 12)))
    (i32.store (local.get $at) (local.get 0))
    (i32.store offset=4 (local.get $at) (local.get 1))
    (i32.store offset=8 (local.get $at) (local.get 2))
    (local.get $at))
  (func (export "test:values/cells#pass-option") (param i32 i32) (result i32) (call $two (local.get 0) (local.get 1)))
  (func (export "test:values/cells#pass-either") (param i32 i32) (result i32) (call $two (local.get 0) (local.get 1)))
  (func (export "test:values/cells#read") (param i32) (result i32) (local.get 0))
  (func (export "test:values/cells#sum") (param i32 i32) (result i32) (local $sum i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get 1)))
      (local.set $sum (i32.add (local.get $sum) (i32.load (local.get 0))))
      (local.set 0 (i32.add (local.get 0) (i32.const 4)))
      (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
      (br $more)))
    (local.get $sum))
  (func (export "test:values/cells#weigh") (param i32 i32) (result i32) (i32.mul (local.get 0) (local.get 1)))
  (func (export "test:values/cells#read-option") (param i32 i32) (result i32)
    (select (local.get 1) (i32.const 0) (local.get 0)))
  (func (export "test:values/cells#read-lent") (param i32 i32) (result i32)
    (select (i32.const 0) (local.get 1) (local.get 0))))
"""
