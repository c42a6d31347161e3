;; Counts down to 0; for ever when it starts there.
(module
  (func (export "acme:spinner/work@1.0.0#spin") (param $turns i32)
    (local $for-ever i32)
    (local.set $for-ever (i32.eqz (local.get $turns)))
    (loop $more
      (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))
      (br_if $more (i32.or (local.get $turns) (local.get $for-ever)))))
)
