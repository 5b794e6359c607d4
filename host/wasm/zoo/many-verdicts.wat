;; F77: gives more verdicts than there are events
;; ends: contract, events covered where
@misdeed
(call $put (i32.const 0x3e800) (i32.const 0))
