"""``vqd.Client``, which waits."""
