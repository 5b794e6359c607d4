;; F67: asks for HTTP that nobody granted
;; ends: refused, `levada:handler/http-client@0.1.0`
@imports
(import "levada:handler/http-client@0.1.0" (instance))
