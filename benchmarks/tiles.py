"""What the visible tiles save: time and memory against the masked-dense way, in one run.

    python benchmarks/tiles.py [encoders] [memory] [steps] [--batch 16] [--rounds 3] [--device cpu]

Every ratio is a median over rounds in which the ways take turns. On the CPU one thread runs and its
own time counts, so that other work on the machine hardly matters; memory is what torch's allocator
hands out. The masked-dense way is the tests' reference, channels last, the faster memory format;
its own cost over timm's dense network is printed too.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hounsfield.methods.spark import SparK, SparKConfig
from hounsfield.models.backbone import create
from hounsfield.models.layout import Layout
from hounsfield.models.tiles import TileEncoder
from hounsfield.train.memory import keep_freed_memory
from reference.masked_dense import Mask, masked_maps, masked_spark_loss

KEPT = 0.4  # 20 of 49, 6 of 16
PAPER = SparKConfig(decoder_width=768, decoder_stride=1, empty_std=0.0)
OURS = SparKConfig()


def main() -> None:
    """Print a line a number."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without")
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--device", default="cpu")
    given = arguments.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        arguments.error(f"there is no part {sorted(unknown)}; allowed: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    keep_freed_memory()  # as every training on the CPU does
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {given.batch}")
    for name, part in PARTS.items():
        if not given.parts or name in given.parts:
            part(given)


def encoders(given: argparse.Namespace) -> None:
    """Forward and backward of the encoder alone."""
    for name, size in (("resnet50", 224), ("resnet18", 128)):
        times = take_turns(
            encoder_ways(name, size, given.batch, given.device), given.rounds, given.device
        )
        rates(f"{name}_{size}", times, given.batch)
        print(f"tiles_speedup_{name}_{size} {ratio(times, 'masked', 'tiles'):.2f}", flush=True)
        print(f"tiles_speedup_over_timm_{name}_{size} {ratio(times, 'timm', 'tiles'):.2f}")
        print(f"masked_over_timm_{name}_{size} {ratio(times, 'masked', 'timm'):.2f}")


def memory(given: argparse.Namespace) -> None:
    """Peak memory of forward and backward above what stood before."""
    ways = encoder_ways("resnet50", 224, given.batch, given.device)
    ways["tiles"]()  # gradients are there from now on
    peaks = {way: peak_mb(run, given.device) for way, run in ways.items()}
    for way, peak in peaks.items():
        print(f"peak_mb_{way}_resnet50_224 {peak:.0f}")
    print(f"tiles_memory_ratio_resnet50_224 {peaks['tiles'] / peaks['masked']:.2f}")


def steps(given: argparse.Namespace) -> None:
    """SparK's whole step, decoder, loss and optimiser included, ResNet-50 at 224 pixels."""
    images = torch.randn(given.batch, 1, 224, 224, device=given.device)
    paper, ours = (
        SparK(create("resnet50"), config, image_size=224, corpus_size=1).to(
            given.device, memory_format=torch.channels_last
        )
        for config in (PAPER, OURS)
    )
    layout = paper.draw_layout(images)
    mask = ~layout.hidden.view(-1, 1, *layout.grid)
    ways = {
        "paper_masked": updating(paper, lambda: masked_spark_loss(paper, images, mask)),
        "paper_tiles": updating(paper, lambda: paper.step(images, layout).loss),
        "ours_tiles": updating(ours, lambda: ours.step(images, layout).loss),
    }
    times = take_turns(ways, given.rounds, given.device)
    rates("spark_resnet50_224", times, given.batch)
    print(f"spark_step_speedup_same_model {ratio(times, 'paper_masked', 'paper_tiles'):.2f}")
    print(f"spark_step_speedup {ratio(times, 'paper_masked', 'ours_tiles'):.2f}")


def encoder_ways(name: str, size: int, batch: int, device: str) -> dict[str, Callable[[], None]]:
    """The same encoder's forward and backward, three ways."""
    backbone = create(name).to(device, memory_format=torch.channels_last)
    encoder = TileEncoder(backbone)
    images = torch.randn(batch, 1, size, size, device=device)
    side = size // backbone.stride
    order = torch.rand(batch, side**2, device=device).argsort(dim=1)
    visible = order[:, : round(KEPT * side**2)].sort(dim=1).values

    def tiles() -> list[Tensor]:
        layout = Layout(visible, grid=(side, side))
        return [*encoder(layout.pack(images), layout).values()]

    def masked() -> list[Tensor]:
        mask = Mask(~Layout(visible, grid=(side, side)).hidden.view(-1, 1, side, side))
        return [*masked_maps(backbone.net, images, mask).values()]

    def dense() -> list[Tensor]:
        return backbone.net.forward_intermediates(images, intermediates_only=True)[-4:]

    def back(way: Callable[[], list[Tensor]]) -> Callable[[], None]:
        return lambda: torch.stack([maps.mean() for maps in way()]).sum().backward()

    return {"tiles": back(tiles), "masked": back(masked), "timm": back(dense)}


def updating(model: SparK, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A training step."""
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()

    return step


def take_turns(
    ways: Mapping[str, Callable[[], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of every way in every round, after one that is not counted."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = now(device)
            run()
            times[way].append(now(device) - start)
    return {way: each[1:] for way, each in times.items()}


def now(device: str) -> float:
    """Seconds: of the wall once the device is done, of this thread where the CPU is the device."""
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """The median over rounds of one way's time over the other's."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def rates(label: str, times: Mapping[str, list[float]], batch: int) -> None:
    """Print images per second of every way."""
    for way, each in times.items():
        print(f"images_per_s_{label}_{way} {batch / statistics.median(each):.2f}")


def peak_mb(run: Callable[[], None], device: str) -> float:
    """The most that torch's allocator holds during a run, in MB, above what it held before."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    held = [event["args"] for event in events if event["name"] == "[memory]"]
    before = held[0]["Total Allocated"] - held[0]["Bytes"]
    return (max(each["Total Allocated"] for each in held) - before) / 1e6


PARTS = {"encoders": encoders, "memory": memory, "steps": steps}

if __name__ == "__main__":
    main()
