;; Grows its memory by 256 KiB and traps on the first byte in them that is not zero.
@misdeed
(local.set $a (i32.mul (memory.grow (i32.const 4)) (i32.const 65536)))
(local.set $b (i32.add (local.get $a) (i32.const 0x40000)))
(loop $seek
  (if (i64.ne (i64.load (local.get $a)) (i64.const 0)) (then unreachable))
  (local.set $a (i32.add (local.get $a) (i32.const 8)))
  (br_if $seek (i32.lt_u (local.get $a) (local.get $b))))
