"""Eight kills of a real extraction; `python -m jobs.chaos --config jobs/configs/chaos.yaml` does fifty."""

from pathlib import Path

import pytest
import yaml

from jobs.chaos import ChaosConfig, job
from tests.pipelines.extraction.conftest import write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a dozen whole jobs: 4 min alone, 10 on a busy machine


def test_kills_leave_no_trace_in_the_store(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(12):
        write_video(videos / f"v{number}.mp4", seconds=4.0 + number, seed=number)
    (videos / "empty.mp4").write_bytes(b"")
    # Two encoders, as kills between their columns matter; both C3D, whose workers start in half of CLIP's time.
    values = yaml.safe_load(Path("jobs/configs/extract_smoke.yaml").read_text(encoding="utf-8"))
    c3d = values["encoders"]["c3d"]
    values["encoders"] = {"c3d": c3d, "slow": c3d | {"fps": 4.0}}
    (tmp_path / "extract.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    config = ChaosConfig(
        extract_config=str(tmp_path / "extract.yaml"),
        source_uri=str(videos),
        output_path=str(tmp_path / "stores"),
        overrides=(
            "source.annotations_uri=null",
            "cluster.num_cpus=2",
            "cluster.object_store_memory_bytes=150000000",
            "resources.encoder_threads=1",
            "resources.segments_per_batch=1",
            "resources.segments_per_tar=1",
            "commit_interval_s=0.2",
        ),
        num_kills=8,
        seed=4,
    )
    code = job(config)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "kills        8 in" in printed and "byte for byte" in printed
    hit = {line.partition(" × ")[2] for line in printed.splitlines() if " × " in line}
    assert len(hit) == 8 and {"driver at the snapshot", "driver at publishing"} < hit, printed  # of nine
    changes = int(printed.partition(" of them over a source")[0].rpartition(" ")[2])
    assert changes >= 1, printed
