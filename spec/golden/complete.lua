-- The families in which luatape meets every case; the suite holds these. LUATAPE_GOLDEN_FAMILY
-- names others to try.
return {
  "elementwise_unary", "elementwise_binary", "reduce", "linalg", "shape", "loss", "nn", "tape",
}
