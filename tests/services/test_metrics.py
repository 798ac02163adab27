"""Metrics: what is under /metrics, and what a real Prometheus makes of it."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("prometheus_client")

from streamtwl.config import MetricsSettings
from streamtwl.errors import UsageError
from streamtwl.services import server
from streamtwl.services.metrics import address, make
from tests.example_messages import event, hello, label, status
from tests.services.conftest import free_port, wait_until

PACKAGING = Path(__file__).parents[2] / "packaging" / "prometheus"


def fetched(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def value(text: str, name: str) -> float | None:
    found = re.search(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@pytest.fixture
def served(listener, running):
    """A service, and the port that it answers at."""
    port = free_port()
    running([make(MetricsSettings(address=f"127.0.0.1:{port}"))], listener.feed)

    def up() -> bool:
        try:
            return value(fetched(port), 'streamtwl_up{source="mic"}') == 1
        except OSError:
            return False

    wait_until(up)
    return port


def test_events_delays_and_states_are_there(listener, served):
    hostile = 'Dog"} 1\nup 0'
    for number, name in enumerate(["Dog", "Dog", hostile]):
        listener.sounds(name, number=number)
        listener.sounds(name, "offset", number=number)
    dogs = 'streamtwl_events_total{label="Dog",source="mic"}'
    wait_until(lambda: value(fetched(served), dogs) == 2)
    wait_until(lambda: "up 0" in fetched(served))
    text = fetched(served)
    assert value(text, "up") is None  # a label is escaped
    assert value(text, 'streamtwl_level_dbfs{source="mic"}') == -20
    assert value(text, 'streamtwl_service_total{figure="lost",service="metrics"}') == 0
    assert value(text, 'streamtwl_arrival_delay_seconds_bucket{kind="event",le="+Inf"}') >= 5


def figures_of(*messages) -> dict[str, float]:
    """Return the samples of the metrics after these messages."""
    one = make(MetricsSettings(address="127.0.0.1:1"))
    for message in messages:
        one._take(message)
    found: dict[str, float] = {}
    for family in one._registry.collect():
        for sample in family.samples:
            labels = ",".join(sample.labels[each] for each in sorted(sample.labels))
            found[f"{sample.name} {labels}"] = sample.value
    return found


def test_a_muted_microphone_is_up_and_silent():
    figures = figures_of(msgspec.structs.replace(status(0), state="silent"))
    assert (figures["streamtwl_up mic"], figures["streamtwl_silent mic"]) == (1, 1)
    figures = figures_of(msgspec.structs.replace(status(0), state="lost"))
    assert (figures["streamtwl_up mic"], figures["streamtwl_silent mic"]) == (0, 0)


def test_a_source_that_the_newest_session_does_not_have_is_forgotten(monkeypatch):
    monkeypatch.setattr("streamtwl.services.roll.GONE_S", -1.0)
    gone = [hello(0, "a"), status(0, "a"), event(0, "a"), label(0, "a")]
    figures = figures_of(*gone, msgspec.structs.replace(status(0, "b"), source="hall"))
    assert "streamtwl_up hall" in figures
    assert not [name for name in figures if "mic" in name]
    assert "streamtwl_up mic" in figures_of(*gone, status(1, "a"))


def test_levels_and_memory_are_in_the_units_of_their_names():
    figures = figures_of(msgspec.structs.replace(status(0), level_dba=52.5, memory_mb=3.5))
    assert figures["streamtwl_level_dba mic"] == 52.5
    assert figures["streamtwl_memory_bytes mic"] == 3.5e6
    assert figures["streamtwl_bad_samples_total mic"] == 0
    assert "streamtwl_level_dba mic" not in figures_of(status(0))


def test_a_label_is_counted_from_zero_as_far_as_there_is_room():
    figures = figures_of(hello(0), event(0))
    assert figures["streamtwl_events_total Dog,mic"] == 1
    assert figures["streamtwl_events_total Cat,mic"] == 0
    many = tuple(f"label {number}" for number in range(521))
    figures = figures_of(*(hello(0, source=name, labels=many) for name in ("a", "b", "c")))
    assert sum(name.startswith("streamtwl_events_total") for name in figures) == 521


def test_a_source_that_says_nothing_is_down(served, monkeypatch):
    monkeypatch.setattr("streamtwl.services.metrics.GONE_S", -1.0)
    assert value(fetched(served), 'streamtwl_up{source="mic"}') == 0


def test_a_port_in_use_is_said_in_one_line(listener, served, running, caplog, monkeypatch):
    monkeypatch.setattr(server, "BACK_OFF_S", (0.05,))
    running([make(MetricsSettings(address=str(served)))], listener.feed)
    wait_until(lambda: "in use" in caplog.text)
    assert f"cannot listen at 127.0.0.1:{served}" in caplog.text


def test_an_address():
    assert address("9765", "--metrics") == ("127.0.0.1", 9765)
    assert address("[::1]:9765", "--metrics") == ("::1", 9765)
    for wrong in ("", "x", "1:", "h:0", "h:70000", "h:²", "a..b:9000", f"{'a' * 70}:9000"):
        with pytest.raises(UsageError, match=r"\[HOST:\]PORT"):
            address(wrong, "--metrics")


def names_in(expressions: str) -> set[str]:
    return set(re.findall(r"\bstreamtwl_\w+", expressions))


def test_the_dashboard_and_the_rules_name_what_is_there(listener, served):
    listener.sounds("Dog")
    wait_until(lambda: "streamtwl_events_total{" in fetched(served))
    there = set(re.findall(r"^# \w+ (\w+)", fetched(served), re.MULTILINE))
    there |= {f"{name}_bucket" for name in there}
    dashboard = json.loads((PACKAGING / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    for text in (" ".join(expressions), (PACKAGING / "alerts.yml").read_text()):
        assert names_in(text) <= there | {"streamtwl"}


def promtool(*arguments, **more) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, **more)
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_prometheus_has_no_objection_to_the_names(listener, served):
    listener.sounds("Dog")
    wait_until(lambda: "streamtwl_events_total{" in fetched(served))
    promtool("check", "metrics", input=fetched(served).encode())


def test_the_rules_act_on_what_they_are_for(tmp_path):
    shutil.copy(PACKAGING / "alerts.yml", tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    promtool("test", "rules", tmp_path / "alerts_test.yml")


@pytest.mark.slow
def test_a_real_prometheus_scrapes_it_and_takes_the_rules(listener, served, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    shutil.copy(PACKAGING / "alerts.yml", tmp_path)
    config = (PACKAGING / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:9765", f"127.0.0.1:{served}").replace("15s", "1s")
    config += "global: {evaluation_interval: 1s}\n"
    (tmp_path / "prometheus.yml").write_text(config)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)
    listener.sounds("Dog")
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", "--web.enable-lifecycle",
         f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def result(query: str) -> list:
            path = f"/api/v1/query?query={urllib.parse.quote(query)}"
            try:
                return json.loads(fetched(port, path))["data"]["result"]
            except urllib.error.HTTPError as error:  # 503 while it starts
                if error.code == 400:  # it is no query
                    raise
                return []
            except OSError:
                assert process.poll() is None, "prometheus ended"
                return []

        wait_until(lambda: result('streamtwl_events_total{label="Dog"} == 1'))
        assert result("streamtwl_up == 1")
        rules = json.loads(fetched(port, "/api/v1/rules"))["data"]["groups"][0]["rules"]
        assert len(rules) == 10
        dashboard = json.loads((PACKAGING / "grafana.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                result(target["expr"].replace("$source", ".*"))
        wait_until(
            lambda: all(
                rule["health"] == "ok"
                for rule in json.loads(fetched(port, "/api/v1/rules"))["data"]["groups"][0]["rules"]
            )
        )
    finally:
        process.terminate()
        process.wait()
