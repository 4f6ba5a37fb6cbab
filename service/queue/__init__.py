"""The job queue in Redis: at-least-once execution, exactly one recorded result, nothing accepted is lost.

A job is a hash; what is to be done is an entry in one of its model's streams, which stays until the job has ended:

    enqueue ─▶ stream ─take─▶ lease ─renew, progress─▶ complete | fail | cancelled
                 ▲              └─────────release────────┐  (a stopping worker)
                 └── recover: silent for lease_ms        └▶ hand-over stream ─take─▶ lease …

Every change of state is one script that checks the lease's epoch, and every script may be repeated. Gateways use
``Submissions`` and ``Figures``, workers ``Leases``, both ``Registrations``: each over the process's one ``Store``.
"""
