"""Webhooks: the end of a job, posted to the URL that its request named.

request ─▶ Targets.check ─▶ job ─ its end ─▶ service.queue.webhooks ─▶ Postman ─▶ Post ─▶ receiver
"""
