"""What is counted by API key: exact, and never of more keys than are shown."""

from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry.metrics import KEY_LIMITS, KEYS_SHOWN, GatewayMetrics


def lines_of(metrics: GatewayMetrics) -> list[str]:
    text = generate_latest(metrics.registry).decode()
    return [line for line in text.splitlines() if line.startswith("vqd_key_") and "_created" not in line]


def test_a_key_s_jobs_passes_and_refusals_are_counted() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.by_key.accept("k1", "web", 24)
    metrics.by_key.accept("k1", "web", 6)
    metrics.by_key.refuse("k1", "web", "jobs")
    lines = lines_of(metrics)
    assert 'vqd_key_jobs_total{key="k1",name="web"} 2.0' in lines
    assert 'vqd_key_passes_total{key="k1",name="web"} 30.0' in lines
    refused = {limit: f'vqd_key_refused_total{{key="k1",limit="{limit}",name="web"}}' for limit in KEY_LIMITS}
    assert f"{refused['jobs']} 1.0" in lines
    assert f"{refused['crowd']} 0.0" in lines, "a counter that begins with its first event hides that event"


def test_where_nobody_says_who_they_are_nothing_is_counted_by_key() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.by_key.accept("", "", 24)
    assert lines_of(metrics) == []


def test_only_the_keys_used_last_are_shown() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    for number in range(3 * KEYS_SHOWN):
        metrics.by_key.accept("busy", "always", 1)
        metrics.by_key.accept(f"k{number}", "once", 1)
        if number % 2:
            metrics.by_key.refuse(f"k{number}", "once", "jobs")
    lines = lines_of(metrics)
    shown = {line.split('key="')[1].split('"')[0] for line in lines}
    assert shown == {"busy", *(f"k{number}" for number in range(2 * KEYS_SHOWN + 1, 3 * KEYS_SHOWN))}
    assert len(lines) == KEYS_SHOWN * (2 + len(KEY_LIMITS))
    assert f'vqd_key_jobs_total{{key="busy",name="always"}} {3.0 * KEYS_SHOWN}' in lines
