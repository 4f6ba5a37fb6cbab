"""The Python client of a service; people import it as ``vqd``.

``Dialogue`` says what to ask and reads the answers, without input or output of its own. ``blocking`` and
``asynchronous`` carry it out: each is as much as differs between the two.
"""
