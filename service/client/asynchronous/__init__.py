"""``vqd.AsyncClient``, which is awaited. What each name does, its twin in ``blocking`` says."""
