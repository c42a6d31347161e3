"""A WAT component with a host resource and one of its own, and the WIT functions that it imports and exports."""

from __future__ import annotations

from cloche.wit.types import BorrowType, Function, FunctionKind, ListType, OwnType, Param, Prim, ResourceType, TypeName

INTERFACE = "test:res/host"
TYPE_ID = 7
BUCKET = ResourceType(TypeName(INTERFACE, "bucket"))
COUNTER = ResourceType(TypeName(None, "counter"))


def _function(name: str, params: tuple[Param, ...], result: OwnType | ListType | Prim | None) -> Function:
    return Function(name, FunctionKind.FREE, params, result)


_B, _C = OwnType(BUCKET), OwnType(COUNTER)
_LENT = (Param("a", BorrowType(BUCKET)), Param("b", BorrowType(BUCKET)))

HOST_MAKE = _function("make", (Param("n", Prim.U32),), _B)
HOST_TAKE = _function("take", (Param("b", _B),), Prim.U32)
HOST_LOOK = _function("look", (Param("a", BorrowType(BUCKET)),), Prim.U32)
HOST_ADD = _function("add", _LENT, Prim.U32)

FETCH = _function("fetch", (Param("n", Prim.U32),), _B)
"""The guest asks the host for a bucket and returns it."""
GIVE = _function("give", (Param("b", _B),), Prim.U32)
"""The guest hands a bucket of the caller on to the host."""
LEND = _function("lend", (Param("a", BorrowType(BUCKET)),), Prim.U32)
"""The guest shows the caller's bucket to the host, which looks."""
SUM = _function("sum", _LENT, Prim.U32)
"""The guest shows two of the caller's buckets to the host in one call."""
OWN_SUM = _function("own-sum", (Param("n", Prim.U32),), Prim.U32)
"""The guest makes two buckets and shows both to the host in one call: two borrows of handles that it owns."""
KEEP = _function("keep", (Param("n", Prim.U32),), None)
"""The guest makes n buckets and keeps them."""
DROP = _function("drop", (Param("b", _B),), None)
"""The guest drops a bucket of the caller."""
CRASH = _function("crash", (Param("b", _B),), None)
"""The guest takes a bucket and traps."""

NEW = _function("new", (Param("n", Prim.U32),), _C)
MANY = _function("many", (Param("n", Prim.U32),), ListType(_C))
VALUE = _function("value", (Param("c", BorrowType(COUNTER)),), Prim.U32)
CONSUME = _function("consume", (Param("c", _C),), Prim.U32)
PAIR = _function("pair", (Param("c", _C), Param("n", Prim.U32)), Prim.U32)
BORROW_OWN = _function("borrow-own", (Param("a", BorrowType(COUNTER)), Param("b", _C)), Prim.U32)
OWN_BORROW = _function("own-borrow", (Param("a", _C), Param("b", BorrowType(COUNTER))), Prim.U32)
TWO_OWNS = _function("two-owns", (Param("a", _B), Param("b", _B)), Prim.U32)
OWN_AND_LENT = _function("own-and-lent", (Param("a", _B), Param("b", BorrowType(BUCKET))), Prim.U32)
"""Each adds the numbers of both and drops what it got."""
DROPPED = _function("dropped", (), Prim.U32)
"""How many destructors of counters have run."""

WAT = f"""(component
  (import "{INTERFACE}" (instance $host
    (export "bucket" (type $bucket (sub resource)))
    (export "make" (func (param "n" u32) (result (own $bucket))))
    (export "take" (func (param "b" (own $bucket)) (result u32)))
    (export "look" (func (param "a" (borrow $bucket)) (result u32)))
    (export "add" (func (param "a" (borrow $bucket)) (param "b" (borrow $bucket)) (result u32)))))
  (alias export $host "bucket" (type $bucket))
  (alias export $host "make" (func $make))
  (alias export $host "take" (func $take))
  (alias export $host "look" (func $look))
  (alias export $host "add" (func $add))
  (core func $lmake (canon lower (func $make)))
  (core func $ltake (canon lower (func $take)))
  (core func $llook (canon lower (func $look)))
  (core func $ladd (canon lower (func $add)))
  (core func $dropbucket (canon resource.drop $bucket))
  (core module $state
    (memory (export "memory") 1)
    (global $dropped (mut i32) (i32.const 0))
    (func (export "dtor") (param i32) (global.set $dropped (i32.add (global.get $dropped) (i32.const 1))))
    (func (export "dropped") (result i32) (global.get $dropped)))
  (core instance $s (instantiate $state))
  (type $counterd (resource (rep i32) (dtor (core func $s "dtor"))))
  (export $counter "counter" (type $counterd))
  (core func $newcounter (canon resource.new $counterd))
  (core func $repcounter (canon resource.rep $counterd))
  (core func $dropcounter (canon resource.drop $counterd))
  (core module $code
    (import "h" "make" (func $make (param i32) (result i32)))
    (import "h" "take" (func $take (param i32) (result i32)))
    (import "h" "look" (func $look (param i32) (result i32)))
    (import "h" "add" (func $add (param i32 i32) (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (import "h" "new" (func $new (param i32) (result i32)))
    (import "h" "rep" (func $rep (param i32) (result i32)))
    (import "h" "dropc" (func $dropc (param i32)))
    (import "h" "memory" (memory 1))
    (func (export "fetch") (param i32) (result i32) (call $make (local.get 0)))
    (func (export "give") (param i32) (result i32) (call $take (local.get 0)))
    (func (export "lend") (param i32) (result i32)
      (call $look (local.get 0)) (call $drop (local.get 0)))
    (func (export "sum") (param i32 i32) (result i32)
      (call $add (local.get 0) (local.get 1)) (call $drop (local.get 0)) (call $drop (local.get 1)))
    (func (export "own-sum") (param i32) (result i32)
      (local $a i32) (local $b i32)
      (local.set $a (call $make (local.get 0))) (local.set $b (call $make (local.get 0)))
      (call $add (local.get $a) (local.get $b)) (call $drop (local.get $a)) (call $drop (local.get $b)))
    (func (export "keep") (param i32)
      (loop $more
        (drop (call $make (local.get 0)))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if $more (local.get 0))))
    (func (export "drop") (param i32) (call $drop (local.get 0)))
    (func (export "crash") (param i32) unreachable)
    (func (export "new") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "many") (param i32) (result i32)
      (local $at i32)
      (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (local.get 0))
      (local.set $at (i32.const 64))
      (block $done
        (loop $more
          (br_if $done (i32.eqz (local.get 0)))
          (i32.store (local.get $at) (call $new (local.get 0)))
          (local.set $at (i32.add (local.get $at) (i32.const 4)))
          (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
          (br $more)))
      (i32.const 16))
    (func (export "value") (param i32) (result i32) (local.get 0))
    (func (export "consume") (param i32) (result i32)
      (call $rep (local.get 0)) (call $dropc (local.get 0)))
    (func (export "pair") (param i32 i32) (result i32)
      (i32.add (call $rep (local.get 0)) (local.get 1)) (call $dropc (local.get 0)))
    (func (export "borrow-own") (param i32 i32) (result i32)
      (i32.add (local.get 0) (call $rep (local.get 1))) (call $dropc (local.get 1)))
    (func (export "own-borrow") (param i32 i32) (result i32)
      (i32.add (call $rep (local.get 0)) (local.get 1)) (call $dropc (local.get 0)))
    (func $both (export "both") (param i32 i32) (result i32)
      (i32.add (call $look (local.get 0)) (call $look (local.get 1)))
      (call $drop (local.get 0)) (call $drop (local.get 1))))
  (core instance $c (instantiate $code (with "h" (instance
    (export "make" (func $lmake)) (export "take" (func $ltake)) (export "look" (func $llook))
    (export "add" (func $ladd)) (export "drop" (func $dropbucket)) (export "new" (func $newcounter))
    (export "rep" (func $repcounter)) (export "dropc" (func $dropcounter))
    (export "memory" (memory $s "memory"))))))
  (func (export "fetch") (param "n" u32) (result (own $bucket)) (canon lift (core func $c "fetch")))
  (func (export "give") (param "b" (own $bucket)) (result u32) (canon lift (core func $c "give")))
  (func (export "lend") (param "a" (borrow $bucket)) (result u32) (canon lift (core func $c "lend")))
  (func (export "sum") (param "a" (borrow $bucket)) (param "b" (borrow $bucket)) (result u32)
    (canon lift (core func $c "sum")))
  (func (export "own-sum") (param "n" u32) (result u32) (canon lift (core func $c "own-sum")))
  (func (export "keep") (param "n" u32) (canon lift (core func $c "keep")))
  (func (export "drop") (param "b" (own $bucket)) (canon lift (core func $c "drop")))
  (func (export "crash") (param "b" (own $bucket)) (canon lift (core func $c "crash")))
  (func (export "new") (param "n" u32) (result (own $counter)) (canon lift (core func $c "new")))
  (func (export "many") (param "n" u32) (result (list (own $counter)))
    (canon lift (core func $c "many") (memory (core memory $s "memory"))))
  (func (export "value") (param "c" (borrow $counter)) (result u32) (canon lift (core func $c "value")))
  (func (export "consume") (param "c" (own $counter)) (result u32) (canon lift (core func $c "consume")))
  (func (export "pair") (param "c" (own $counter)) (param "n" u32) (result u32) (canon lift (core func $c "pair")))
  (func (export "borrow-own") (param "a" (borrow $counter)) (param "b" (own $counter)) (result u32)
    (canon lift (core func $c "borrow-own")))
  (func (export "own-borrow") (param "a" (own $counter)) (param "b" (borrow $counter)) (result u32)
    (canon lift (core func $c "own-borrow")))
  (func (export "two-owns") (param "a" (own $bucket)) (param "b" (own $bucket)) (result u32)
    (canon lift (core func $c "both")))
  (func (export "own-and-lent") (param "a" (own $bucket)) (param "b" (borrow $bucket)) (result u32)
    (canon lift (core func $c "both")))
  (func (export "dropped") (result u32) (canon lift (core func $s "dropped"))))
"""
