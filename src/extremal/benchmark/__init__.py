"""The evaluation: what is judged, by which measures, worked through and told."""
