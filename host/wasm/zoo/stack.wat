;; F64: calls itself until the stack is full
;; ends: limit, wasm-stack
@module
(func $deep (param i64 i64 i64) (result i64)
  (i64.add (local.get 0)
    (call $deep (local.get 1) (local.get 2) (i64.add (local.get 0) (i64.const 1)))))
@misdeed
(drop (call $deep (i64.const 1) (i64.const 2) (i64.const 3)))
