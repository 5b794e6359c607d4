;; F74: asks for secrets that nobody granted
;; ends: refused, `levada:handler/secrets@0.1.0`: not granted
@imports
(import "levada:handler/secrets@0.1.0" (instance
  (export "get" (func (param "name" string) (result (option string))))))
