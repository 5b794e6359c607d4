;; F62: loops for ever in a call
;; ends: limit, cpu
@misdeed
(loop $ever (br $ever))
