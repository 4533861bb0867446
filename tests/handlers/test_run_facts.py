import shutil
import subprocess

import pytest
import yaml
from ignite.engine import Engine
from monai.bundle import ConfigParser
from torch import nn

from monai_flowssn.handlers.run_facts import calling_config, run_facts, to_yaml


def engine_of(network=None):
    engine = Engine(lambda engine, batch: None)
    engine.network = network
    return engine


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_and_whether_tracked_files_differ_from_it(tmp_path, monkeypatch):
    def git(*command):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    assert "git_commit" not in run_facts(engine_of())
    (tmp_path / "a").write_text("1")
    git("init")
    git("add", "a")
    git("commit", "-m", "a")
    (tmp_path / "result").write_text("untracked files are no change of the code")
    facts = run_facts(engine_of())
    assert len(facts["git_commit"]) == 40
    assert facts["git_dirty"] is False
    (tmp_path / "a").write_text("2")
    assert run_facts(engine_of())["git_dirty"] is True


def test_parameters_in_total_and_of_the_direct_children():
    network = nn.ModuleDict({"base": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), "flow": nn.Linear(3, 1)})
    facts = run_facts(engine_of(network))
    assert {k: v for k, v in facts.items() if k.startswith("parameters")} == {
        "parameters_total": 13,
        "parameters_base": 9,
        "parameters_flow": 4,
    }


def test_the_config_that_an_object_is_built_from():
    parser = ConfigParser({"a": 1, "b": {"_target_": "monai_flowssn.handlers.run_facts.calling_config"}})
    assert parser.get_parsed_content("b") == parser.get()
    assert calling_config() is None
    assert to_yaml(None) is None
    assert yaml.safe_load(to_yaml({"b": 1, "a": nn.Identity()})) == {"b": 1, "a": "Identity()"}
