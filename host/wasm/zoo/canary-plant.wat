;; Fills 256 KiB of memory of its own with a canary that another handler must never see.
@misdeed
(local.set $a (i32.mul (memory.grow (i32.const 4)) (i32.const 65536)))
(local.set $b (i32.add (local.get $a) (i32.const 0x40000)))
(loop $fill
  (i64.store (local.get $a) (i64.const 0x5952414e41435f5f))
  (local.set $a (i32.add (local.get $a) (i32.const 8)))
  (br_if $fill (i32.lt_u (local.get $a) (local.get $b))))
