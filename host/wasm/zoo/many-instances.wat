;; F63: has 200 core instances
;; ends: refused, core-instances
@more
(core module $empty)
@200 (core instance (instantiate $empty))
