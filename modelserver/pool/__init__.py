"""The frontend's side of workers: it has them made, talks to them, reads what they print, certifies their deaths."""
