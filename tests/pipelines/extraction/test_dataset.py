"""The pipeline's resources: what the plan of stages asks Ray for. `test_run.py` runs it."""

from pipelines.extraction.config import ExtractResources
from pipelines.extraction.dataset import Stages, extraction_dataset
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.resources import EncoderPool, EncoderThreads
from pipelines.extraction.work import WORK_SCHEMA


def test_the_stages_stand_in_order(ray_cluster: None) -> None:
    stages = Stages(
        decoder=Decoder(backend="pyav", segment_s=60.0, views={}),
        encoders={"a": None, "b": None},  # type: ignore[dict-item]
        store_uri="/none",
        run_id="r",
        staged={},
        pool=EncoderPool(
            min_actors=1, max_actors=1, num_cpus=0.0, num_gpus=0.0, threads=EncoderThreads(least=1, most=1)
        ),
        resources=ExtractResources(),
    )
    described = repr(extraction_dataset(WORK_SCHEMA.empty_table(), stages))
    assert described.index("Stager") < described.index("EncodeStage") < described.index("Decoder")
    assert described.count("EncodeStage") == 2
