"""The report: one self-contained page made from findings and the pictures and curves beside them."""
