;; F64: panics
;; ends: trap, unreachable
@misdeed
unreachable
