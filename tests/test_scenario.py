"""Scenarios: what ships loads, what is wrong is refused in one line that names field, value and allowed range."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import simulator

from sat_env.compression.table import load_table, save_table
from sat_env.env import SatEnv
from sat_env.network.chain import RULES
from sat_env.plan import Plan
from sat_env.scenario import (
    FAULT_LEVELS,
    Elements,
    Ground,
    ScenarioError,
    Station,
    Walker,
    load_scenario,
    scenario_from_dict,
    scenario_names,
)
from sat_env.world import prepare


@pytest.mark.parametrize("name", scenario_names())
def test_round_trip_through_plain_data(name):
    scenario = load_scenario(name)
    again = scenario_from_dict(scenario.to_dict())
    assert again == scenario and again.hash() == scenario.hash()
    assert scenario.description


def test_hash_sees_every_change_and_ignores_rounding_noise():
    scenario = load_scenario("WalkerOutage")
    assert scenario.replace(epoch_s=21.0).hash() != scenario.hash()
    assert scenario.replace(**{"faults.reboot_s": 91.0}).hash() != scenario.hash()
    assert scenario.replace(epoch_s=20.0 * (1 + 1e-13)).hash() == scenario.hash()


def test_hash_sees_what_the_compression_table_says(tmp_path):
    path, table = tmp_path / "mine.json", load_table("digits-vit")
    scenario = load_scenario("WalkerOutage").replace(**{"model.compression": str(path)})
    save_table(table, path)
    before = scenario.hash()
    save_table(dataclasses.replace(table, provenance={"command": "another"}), path)
    assert scenario.hash() == before
    save_table(dataclasses.replace(table, errors=2.0 * table.errors), path)
    assert scenario.hash() != before


@pytest.mark.parametrize(
    ("field", "suffix"),
    [
        ("motion.file", "tle"),
        ("faults.outage_log", "csv"),
        ("model.profile", "json"),
        ("model.profile", "csv"),
        ("model.compression", "json"),
    ],
)
def test_hash_sees_what_a_file_holds_and_not_where_it_lies(tmp_path, field, suffix):
    scenario = load_scenario("WalkerOutage").replace(motion=Elements(file=str(tmp_path / "shell")))
    (tmp_path / "shell").write_text("a shell", encoding="utf-8")
    here, there = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    table = load_table("digits-vit")
    for path in (here, there):
        save_table(table, path)
    one, other = (scenario.replace(**{field: str(path)}) for path in (here, there))
    assert one.hash() == other.hash() != scenario.hash()
    save_table(dataclasses.replace(table, errors=2.0 * table.errors), there)
    assert one.hash() != other.hash()
    there.unlink()
    with pytest.raises(ValueError, match=r"other\.") as caught:
        other.hash()
    assert "\n" not in str(caught.value)


BAD = [
    ({"epoch_s": -1}, "epoch_s = -1"),
    ({"epoch_s": "20"}, "epoch_s = '20': must be a finite number"),
    ({"epoch_s": float("inf")}, "epoch_s = inf: must be a finite number"),
    ({"windows": 20.5}, "windows = 20.5: must be a whole number"),
    ({"jobs": {"kind": "llm", "prompt_tokens": 512.5}}, "prompt_tokens = 512.5: must be a whole number"),
    ({"jobs": {"kind": "llm", "prompt_tokens": 0}}, "jobs.prompt_tokens = 0: must be greater than 0"),
    ({"jobs": {"kind": "llm", "generated_tokens": 0}}, "jobs.generated_tokens = 0: must be greater than 0"),
    ({"links": {"grazing_height_km": -3000.0}}, "links.grazing_height_km = -3000.0: must be at least 0"),
    ({"jobs": {"deadline_s": 86400.0}}, "jobs.deadline_s = 86400.0: must be at most"),
    ({"colour": "red"}, "colour"),
    ({"faults": {"link_tail_share": 1.5}}, "link_tail_share = 1.5"),
    (
        {
            "faults": {
                "link_up_mean_s": 1e-9,
                "link_down_min_s": 0,
                "link_down_mean_s": 1e-9,
                "link_down_max_s": 1,
            }
        },
        "faults.link_up_mean_s = 1e-09: must be 0, or at least 1 s with the mean outage of 1e-09 s",
    ),
    ({"faults": {"link_tail_min_s": -9.0}}, "faults.link_tail_min_s = -9.0: must be at least 0"),
    ({"links": {"sun_exclusion_deg": 270}}, "links.sun_exclusion_deg = 270.0: must be 0..180"),
    ({"motion": {"kind": "surface", "altitude_km": -0.1}}, "motion.altitude_km = -0.1: must be at least 0"),
    ({"faults": {"anomaly_factor": 1e300}}, "faults.anomaly_factor = 1e+300: must be 1..1000"),
    (
        {"faults": {"reset_mtbf_s": 1e-9}},
        "faults.reset_mtbf_s = 1e-09: must be 0, or at least anomaly_factor = 7 s",
    ),
    ({"faults": {"mtbf": 3}}, "scenario.faults.mtbf"),
    ({"faults": {"level": ["harsh"]}}, "faults.level = ['harsh']: must be one of none, nominal, harsh"),
    ({"motion": {"kind": "moon"}}, "motion.kind = 'moon'"),
    ({"motion": [1]}, "motion.kind = [1]: must be one of 'walker', 'elements', 'surface'"),
    ({"motion": {"kind": ["walker"]}}, "motion.kind = ['walker']: must be one of 'walker'"),
    ({"motion": {"kind": "surface", "center_longitude_deg": 400.0}}, "center_longitude_deg = 400.0"),
    ({"motion": {"kind": "walker", "altitude_km": 20}}, "altitude_km = 20"),
    (
        {"motion": {"kind": "walker", "planes": 1, "per_plane": 4, "phasing": 0}, "chain": {"slots": 6}},
        "at most the 4 satellites",
    ),
    ({"jobs": {"kind": "films"}}, "jobs.kind = 'films'"),
    (
        {"ground": {"stations": [{"name": "X", "latitude_deg": 1.0}]}},
        "ground.stations[0] = {'name': 'X', 'latitude_deg': 1.0}: must be a table that holds longitude_deg",
    ),
    (
        {"payload": {"modes": [{"power_w": 3}]}},
        "modes[0] = {'power_w': 3}: must be a table that holds flops_per_s",
    ),
    ({"payload": {"slot_modes": [0]}}, "slot_modes"),
    ({"ground": {"hosts": "some"}}, "ground.hosts = 'some'"),
    (
        {"ground": {"contact": "always", "fade_sigma": 0.2}},
        "ground.fade_sigma = 0.2: must be 0 where ground.contact",
    ),
    (
        {"ground": {"contact": "always", "downlink": "ka"}, "faults": {"rain": True}},
        "faults.rain = True: must be",
    ),
    ({"name": "../out"}, "scenario.name = '../out': must be text without /"),
    ({"name": ""}, "scenario.name = ''"),
    ({"name": ".."}, "scenario.name = '..'"),
    ({"jobs": {"items": 0.5}}, "jobs.items = 0.5: must be at least 1"),
    ({"reward": {"latency": -1.0}}, "reward.latency = -1.0: must be at least 0"),
    ({"model": {"levels": ["none", "none"]}}, "model.levels = ('none', 'none'): must be different levels"),
    ({"chain": {"exit_slot": 3}}, "chain.exit_slot = 3: must be 0, or ground.contact"),
    (
        {
            "ground": {
                "stations": [{"name": "X", "latitude_deg": y, "longitude_deg": 0.0} for y in (1.0, 2.0)]
            }
        },
        "ground.stations = ['X', 'X']: must be of different names",
    ),
    ({"chain": {"targets": [[1.0]]}}, "a list of 2"),
    ({"chain": {"targets": [[48.0, 11.0], [500.0, 0.0]]}}, "chain.targets = (500.0, 0.0): must be (latitude"),
    ({"chain": {"targets": [[48.0, -200.0]]}}, "chain.targets = (48.0, -200.0)"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_fields_are_named(change, message):
    base = {"name": "bad", "motion": {"kind": "walker", "phasing": 0}, **change}
    with pytest.raises(ScenarioError) as caught:
        scenario_from_dict(base)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ground.contact": "sometimes"}, "ground.contact = 'sometimes': must be one of 'visible', 'always'"),
        ({"jobs.items": "abc"}, "jobs.items = 'abc': must be a finite number"),
        ({"links.backup": 1}, "links.backup = 1: must be true or false"),
        ({"ground": Station("Boston", 42.36, -71.06)}, "scenario.ground = Station("),
        ({"ground": Ground(contact="never", stations=(Station("B", 0.0, 0.0),))}, "ground.contact = 'never'"),
        ({"motion": Walker(planes=8.5)}, "motion.planes = 8.5: must be a whole number"),
        ({"motion.colour": "red"}, "scenario.motion.colour = 'red'"),
        ({"epoch_s.colour": "red"}, "scenario.epoch_s.colour = 'red'"),
        ({"colour": "red"}, "scenario.colour = 'red'"),
    ],
)
def test_a_variant_is_checked_as_data_is(change, message):
    with pytest.raises(ScenarioError) as caught:
        load_scenario("WalkerOutage").replace(**change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_variant_takes_instances_numpy_numbers_and_fields_of_a_part_given_whole():
    scenario = load_scenario("WalkerOutage")
    elements = Elements(file="shell.tle")
    assert scenario.replace(motion=elements).motion == elements
    assert scenario.replace(**{"motion.altitude_km": 550, "motion": elements}).motion == dataclasses.replace(
        elements, altitude_km=550.0
    )
    assert scenario.replace(**{"chain.targets": ((1, 2.0),)}).chain.targets == ((1.0, 2.0),)
    variant = scenario.replace(windows=np.int64(5), epoch_s=np.float32(30))
    assert (type(variant.windows), type(variant.epoch_s)) == (int, float)
    assert variant == dataclasses.replace(scenario, windows=5, epoch_s=30.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payload.memory_bytes": 1e6}, "largest block"),
        ({"energy.idle_w": 20.0}, "energy.idle_w = 20.0: must be at most 15, the least power_w"),
        ({"model.profile": "vit-x"}, "vit-x"),
        ({"model.units": 100}, "model.units = 100"),
        ({"model.levels": ("zip",)}, "model.levels = 'zip'"),
        (
            {"model.profile": "llama-3.2-1b"},
            "'llama-3.2-1b': must be a vision model for jobs.kind = 'images'",
        ),
        ({"jobs.kind": "llm"}, "model.profile = 'vit-g': must be a language model for jobs.kind = 'llm'"),
        ({"model.compression": "nothing"}, "nothing"),
    ],
)
def test_contradictions_are_refused_before_work(change, message):
    with pytest.raises(ValueError) as caught:
        prepare(load_scenario("WalkerOutage").replace(**change))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_toml_file(tmp_path):
    path = tmp_path / "Mine.toml"
    path.write_text('description = "x"\n[motion]\nkind = "walker"\n', encoding="utf-8")
    assert load_scenario(str(path)).name == "Mine"
    (tmp_path / "Marked.toml").write_text('description = "x"\n', encoding="utf-8-sig")  # as some editors do
    assert load_scenario(tmp_path / "Marked.toml").description == "x"
    assert load_scenario(path) == SatEnv(path).scenario == load_scenario(str(path))
    with pytest.raises(
        ScenarioError, match=r"^scenario = 3: must be one of .*, or the path of a \.toml file$"
    ):
        load_scenario(3)
    path.write_text("# nothing yet\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match="must be a TOML file that sets at least one field"):
        load_scenario(path)
    path.write_text("epoch_s = ", encoding="utf-8")
    with pytest.raises(ScenarioError, match="valid TOML"):
        load_scenario(str(path))
    with pytest.raises(ScenarioError, match="existing TOML file"):
        load_scenario(str(tmp_path / "none.toml"))


MEASURED = """# flops_per_s = 1e12
block,seconds,weight_bytes,output_bytes
0,0,0,150528
1,0.02,4000,800
2,0.03,6000,40
"""
MEASURED_WORLD = """
windows = 5
episode_epochs = 3
[motion]
kind = "walker"
[chain]
slots = 2
[payload]
modes = [{ power_w = 30.0, flops_per_s = 2e12, memory_bandwidth_bytes_per_s = 2e11 }]
efficiency = 0.5
[energy]
enabled = false
[faults]
level = "none"
[model]
profile = "PATH"
dtype_bytes = 4
[jobs]
items = 16
micro_batches = 4
"""


def test_a_measured_model_takes_its_seconds_on_a_satellite_like_the_one_it_was_measured_on(tmp_path):
    (tmp_path / "mine.csv").write_text(MEASURED, encoding="utf-8")
    (tmp_path / "Mine.toml").write_text(
        MEASURED_WORLD.replace("PATH", (tmp_path / "mine.csv").as_posix()), encoding="utf-8"
    )
    env = SatEnv(str(tmp_path / "Mine.toml"))
    env.reset(seed=0)
    *_, info = env.step(env.encode(Plan((1, 2), (0, 0))))
    assert info["failed"] == 0.0 and info["reload_bytes"] == 10000.0
    times = env.timeline()
    taken_s = (times["compute_end_s"] - times["compute_start_s"])[:2]
    items = env.prepared.world.items_mean / 4
    np.testing.assert_allclose(taken_s, items * np.array([[0.02], [0.03]]).repeat(4, axis=1))


def test_an_outage_log_out_of_a_spreadsheet_is_read(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("subject,a,b,start_s,end_s\nsatellite,P00-S00,,30,50\n", encoding="utf-8-sig")
    prepare(load_scenario("WalkerOutage").replace(**{"faults.outage_log": str(log)}))


def test_a_measured_model_is_no_language_model(tmp_path):
    (tmp_path / "mine.csv").write_text(MEASURED, encoding="utf-8")
    measured = {"model.profile": str(tmp_path / "mine.csv"), "jobs.kind": "llm"}
    with pytest.raises(ScenarioError, match=r"model\.profile = .*mine\.csv.: must be a language model"):
        prepare(load_scenario("WalkerOutage").replace(**measured))


def test_a_file_that_changed_is_read_again(tmp_path):
    (tmp_path / "mine.csv").write_text(MEASURED, encoding="utf-8")
    text = MEASURED_WORLD.replace("PATH", (tmp_path / "mine.csv").as_posix())
    (tmp_path / "Mine.toml").write_text(text, encoding="utf-8")
    scenario = load_scenario(str(tmp_path / "Mine.toml"))
    first = prepare(scenario)
    assert prepare(scenario) is first
    (tmp_path / "mine.csv").write_text(MEASURED.replace("0.02", "0.025"), encoding="utf-8")
    again = prepare(scenario)
    assert again.world.block_flops[0] == pytest.approx(1.25 * first.world.block_flops[0])


def test_a_rule_that_changed_names_the_slots(monkeypatch):
    scenario = load_scenario("WalkerDynamic").replace(windows=5, episode_epochs=3)
    before = prepare(scenario).contacts.chain
    monkeypatch.setitem(RULES, "ladder", lambda view, source: reversed(view.reached.tolist()))
    assert not np.array_equal(prepare(scenario).contacts.chain, before)
    monkeypatch.undo()
    assert np.array_equal(prepare(scenario).contacts.chain, before)


@pytest.mark.parametrize(("items", "burst"), [(1.0, 0.0), (1.7, 0.0), (2.0, 0.3), (6.0, 0.6)])
def test_memory_is_kept_for_the_keys_and_values_of_the_largest_job_a_trace_holds(items, burst):
    llm = {"jobs.kind": "llm", "model.profile": "llama-3.2-1b", "payload.memory_bytes": 8e9}
    short = {"windows": 5, "episode_epochs": 20, "jobs.items": items, "jobs.burst": burst}
    prepared = prepare(load_scenario("WalkerDynamic").replace(**llm, **short))
    largest = simulator(prepared, worlds=4).trace.items.max()
    tokens = prepared.scenario.jobs.prompt_tokens + prepared.scenario.jobs.generated_tokens
    needed = prepared.profile.weight_bytes + prepared.profile.kv_bytes_per_token * largest * tokens
    assert (prepared.world.block_memory_bytes >= needed).all()


def test_fault_levels_are_a_base_that_fields_change():
    base = {"name": "x", "motion": {"kind": "walker"}}
    harsh = scenario_from_dict({**base, "faults": {"level": "harsh", "reboot_s": 60.0}}).faults
    assert harsh == dataclasses.replace(FAULT_LEVELS["harsh"], reboot_s=60.0)
    assert scenario_from_dict({**base, "faults": {"level": "none"}}).faults.link_up_mean_s == 0.0
    with pytest.raises(ScenarioError, match=r"faults\.level = .mild."):
        scenario_from_dict({**base, "faults": {"level": "mild"}})


def test_power_modes_by_name():
    base = {"name": "x", "motion": {"kind": "walker"}}
    payload = scenario_from_dict({**base, "payload": {"modes": ["15W", "MAXN"]}}).payload
    assert [mode.power_w for mode in payload.modes] == [15.0, 60.0]
    assert payload.modes[1].flops_per_s == 42.6e12
    with pytest.raises(ScenarioError, match=r"modes\[0\] = '90W'"):
        scenario_from_dict({**base, "payload": {"modes": ["90W"]}})
