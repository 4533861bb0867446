import torch
from monai.engines import SupervisedEvaluator

from monai_flowssn.handlers import SamplingTime, sampling_time


def test_the_draws_are_timed_and_neither_loading_nor_what_follows(monkeypatch):
    clock = 0.0

    def advance(seconds):
        nonlocal clock
        clock += seconds

    def batches():
        for _ in range(5):
            advance(100.0)
            yield {"image": torch.zeros(2, 1, 4, 4)}

    seconds = iter([50.0, 4.0, 6.0, 6.0, 7.0])  # the first batch is slow
    monkeypatch.setattr(sampling_time.time, "perf_counter", lambda: clock)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches(),
        epoch_length=5,
        network=torch.nn.Identity(),
        inferer=lambda inputs, network, *args, **kwargs: advance(next(seconds)) or inputs,
        postprocessing=lambda item: advance(1000.0) or item,
        val_handlers=[SamplingTime("test_seconds_per_image_n1")],
    )
    evaluator.run()
    assert evaluator.state.metrics["test_seconds_per_image_n1"] == 3.0  # median of the batches, two images each
