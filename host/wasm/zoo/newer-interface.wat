;; F72: asks for an interface in a version from the future
;; ends: refused, this host speaks 0.1
@imports
(import "levada:handler/logging@0.9.0" (instance))
