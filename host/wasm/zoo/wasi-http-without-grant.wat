;; F67: asks for HTTP of WASI that nobody granted
;; ends: refused, `wasi:http/outgoing-handler@0.2.6`
@imports
(import "wasi:http/outgoing-handler@0.2.6" (instance))
