;; A greeter as a core module. Memory: 0 to 15 return area, 16 "Hello, ", 32 the arguments and results of one call.
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "Hello, ")
  (global $next (mut i32) (i32.const 32))

  ;; Bump allocation; the only caller places one text, so alignment and old blocks do not matter.
  (func $take (param $size i32) (result i32)
    (local $start i32) (local $missing i32)
    (local.set $start (global.get $next))
    (global.set $next (i32.add (local.get $start) (local.get $size)))
    (if (i32.lt_u (global.get $next) (local.get $start)) (then (unreachable)))
    (local.set $missing
      (i32.sub
        (i32.add (i32.shr_u (global.get $next) (i32.const 16)) (i32.const 1))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then (unreachable)))))
    (local.get $start))

  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (call $take (local.get $size)))

  (func (export "cloche:example/greeter@1.0.0#greet") (param $name i32) (param $length i32) (result i32)
    (local $text i32)
    (local.set $text (call $take (i32.add (local.get $length) (i32.const 8))))
    (memory.copy (local.get $text) (i32.const 16) (i32.const 7))
    (memory.copy (i32.add (local.get $text) (i32.const 7)) (local.get $name) (local.get $length))
    (i32.store8 (i32.add (i32.add (local.get $text) (i32.const 7)) (local.get $length)) (i32.const 33))
    (i32.store (i32.const 0) (local.get $text))
    (i32.store (i32.const 4) (i32.add (local.get $length) (i32.const 8)))
    (i32.const 0))

  (func (export "cabi_post_cloche:example/greeter@1.0.0#greet") (param i32)
    (global.set $next (i32.const 32)))
)
