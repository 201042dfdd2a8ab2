"""What is found of accelerators and cores, with tools that only pretend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.pool.devices import UNKNOWN_USAGE, Devices, Gauge, count_cpus, find_devices, responds

NVIDIA = """
case "$*" in
  *utilization*)
    printf 'asked\\n' >> "$0.calls"
    printf 'utilization.gpu [%%], utilization.memory [%%], memory.used [MiB]\\n%s %%, 0 %%, 11 MiB\\n' "$2";;
  *) printf '0\\n1\\n2\\n3\\n';;
esac
"""


def tool(directory: Path, name: str, script: str) -> str:
    """A program for PATH; returns the PATH."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}")
    (directory / name).chmod(0o755)
    return f"{directory}:/bin:/usr/bin"


def found(directory: Path, **variables: str) -> Devices:
    return find_devices({"PATH": tool(directory, "nvidia-smi", NVIDIA), **variables})


def test_a_machine_without_tools_has_no_gpus(tmp_path: Path) -> None:
    assert find_devices({"PATH": str(tmp_path)}).count == 0
    assert find_devices({"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0"}).count == 0


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "printf 'index\\n'"])
def test_a_tool_that_finds_nothing(tmp_path: Path, script: str) -> None:
    path = tool(tmp_path, "nvidia-smi", script)
    assert find_devices({"PATH": path}).count == 0
    assert find_devices({"PATH": path, "CUDA_VISIBLE_DEVICES": "0,1"}).count == 0


def test_the_tool_counts(tmp_path: Path) -> None:
    assert found(tmp_path).names == ("0", "1", "2", "3")
    assert found(tmp_path).first(2).names == ("0", "1")
    assert found(tmp_path).first(0).count == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("3, 1", ("3", "1")),
        ("1,,2,", ("1", "2")),
        ("2,0,2", ("2", "0")),
        ("", ()),
        ("-1", ()),
        ("1,4,0", ("1",)),  # as the driver has it
        ("GPU-8932f937-d72c,MIG-GPU-8932/1/0", ("GPU-8932f937-d72c", "MIG-GPU-8932/1/0")),
    ],
)
def test_the_visible_ones_count_under_their_names(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    devices = found(tmp_path, CUDA_VISIBLE_DEVICES=text)
    assert devices.names == names
    assert devices.variable == "CUDA_VISIBLE_DEVICES"
    assert len(devices.warnings) == (text == "2,0,2")


def test_other_forms_are_refused(tmp_path: Path) -> None:
    form = "Invalid format: The env defining visible devices must be integers separated by commas: CUDA_VISIBLE_DEVICES"
    for text in ("all", "0;1", "1.5", "cuda:0"):
        with pytest.raises(ConfigurationError, match=f"{form}={text}"):
            found(tmp_path, CUDA_VISIBLE_DEVICES=text)


def test_the_first_vendor_counts(tmp_path: Path) -> None:
    path = tool(tmp_path, "system_profiler", "printf 'Graphics:\\n  Total Number of Cores: 16\\n'")
    assert (find_devices({"PATH": path}).count, find_devices({"PATH": path}).variable) == (1, "")
    tool(tmp_path, "xpu-smi", "printf 'Device ID\\n0\\n1\\n'")
    intel = find_devices({"PATH": path, "XPU_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"})
    assert (intel.names, intel.variable) == (("1",), "XPU_VISIBLE_DEVICES")
    tool(tmp_path, "nvidia-smi", NVIDIA)
    assert find_devices({"PATH": path}).variable == "CUDA_VISIBLE_DEVICES"
    tool(tmp_path, "rocm-smi", "printf 'device,GUID\\ncard0,x\\ncard1,y\\n'")
    amd = find_devices({"PATH": path, "HIP_VISIBLE_DEVICES": "1,0"})
    assert (amd.names, amd.variable) == (("1", "0"), "HIP_VISIBLE_DEVICES")


def test_usage_of_the_device_that_a_number_stands_for(tmp_path: Path) -> None:
    devices = found(tmp_path, CUDA_VISIBLE_DEVICES="3,GPU-x")

    async def main() -> None:
        usage = await Gauge(devices).read([0, 1])
        columns = "utilization.memory [%]::0 % memory.used [MiB]::11 MiB"
        assert usage == {
            0: f"gpuId::0 utilization.gpu [%]::3 % {columns}",
            1: f"gpuId::1 utilization.gpu [%]::GPU-x % {columns}",
        }

    asyncio.run(main())


def test_answers_are_shared_for_a_moment(tmp_path: Path) -> None:
    async def main() -> None:
        gauge = Gauge(found(tmp_path))
        await asyncio.gather(gauge.read([0]), gauge.read([0]))
        await gauge.read([0])

    asyncio.run(main())
    assert (tmp_path / "nvidia-smi.calls").read_text() == "asked\n"


@pytest.mark.parametrize("script", ["exit 9", "echo broken", "printf 'a, b\\n1\\n'"])
def test_a_tool_that_fails_is_told(tmp_path: Path, script: str) -> None:
    path = tool(tmp_path, "tool", script)

    async def main() -> None:
        gauge = Gauge(Devices("V", ("0",), (path.partition(":")[0] + "/tool", "{}")))
        assert await gauge.read([0]) == {0: UNKNOWN_USAGE}
        assert await Gauge(Devices("V", ("0",))).read([0]) == {0: UNKNOWN_USAGE}, "no tool is known"

    asyncio.run(main())


def test_a_tool_that_hangs_is_not_waited_for_and_not_started_again(tmp_path: Path) -> None:
    """The reader goes on as soon as its patience ends; the tool is killed later, if it can be."""
    fifo = tmp_path / "calls"
    path = tool(tmp_path, "tool", f"echo asked >> {fifo}; exec sleep 600").partition(":")[0]

    async def main() -> None:
        gauge = Gauge(Devices("V", ("0",), (f"{path}/tool", "{}")), limit=0.5)
        reads = [asyncio.create_task(gauge.read([0])) for _ in range(3)]
        assert await asyncio.gather(*reads) == [{0: UNKNOWN_USAGE}] * 3

    asyncio.run(main())
    assert fifo.read_text() == "asked\n"


def test_cores_by_the_quota_of_the_groups_around_us(tmp_path: Path) -> None:
    free = count_cpus(tmp_path, tmp_path / "absent")
    membership = tmp_path / "membership"
    membership.write_text("0::/outer/inner\n")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert count_cpus(tmp_path, membership) == free
    (inner.parent / "cpu.max").write_text("50000 100000\n")
    assert count_cpus(tmp_path, membership) == 1
    (inner.parent / "cpu.max").write_text(f"{free * 100000 + 1} 100000\n")
    assert count_cpus(tmp_path, membership) == free


def test_cores_by_the_quota_of_the_older_kind_of_groups(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("3:cpuset:/\n2:cpuacct,cpu:/inner\n")
    (tmp_path / "cpu" / "inner").mkdir(parents=True)
    (tmp_path / "cpu" / "inner" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "inner" / "cpu.cfs_period_us").write_text("100000\n")
    assert count_cpus(tmp_path, membership) == count_cpus(tmp_path, tmp_path / "absent")
    (tmp_path / "cpu" / "inner" / "cpu.cfs_quota_us").write_text("100000\n")
    assert count_cpus(tmp_path, membership) == 1


def test_a_trial_run(tmp_path: Path) -> None:
    assert responds(["true"], {"PATH": "/bin:/usr/bin"})
    assert not responds(["false"], {"PATH": "/bin:/usr/bin"})
    assert not responds([str(tmp_path / "absent")], {})
    assert not responds(["sleep", "600"], {"PATH": "/bin:/usr/bin"}, limit=0.1)
