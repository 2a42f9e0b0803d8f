"""results/growth.md from the record of growth.py: the table of exponents, and a plan on paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Assumed:
    """What the plan takes for granted: none of it was measured here."""

    shapes: int = 1_000_000
    points: int = 8192  # of a stored cloud, as in ShapeNet55; float32
    devices: int = 64
    batch: int = 128  # clouds a device and step
    epochs: int = 300
    peak_flops: float = 989e12  # an H100's bfloat16, dense, as its maker says
    bytes_per_second: float = 50e9  # of the network, for each device (400 Gbit/s)
    backward: float = 2 / 3  # the part of a step in which gradients can travel meanwhile


def plan(record: dict, utilisation: float, a: Assumed = Assumed()) -> dict[str, float]:
    """What an epoch takes where the devices reach this share of their peak.

    Gradients go round a ring in float32: each device sends 2 (P - 1) / P times the model a step.
    Efficiency is the time of computing over that of the step, the exposed traffic included.
    """
    one = record["single_device"]
    computing = one["flops_per_cloud"] * a.batch / (a.peak_flops * utilisation)  # seconds a step
    sent = 2 * (a.devices - 1) / a.devices * 4 * one["parameters"]  # bytes a device and step
    travelling = sent / a.bytes_per_second
    exposed = max(0.0, travelling - a.backward * computing)
    clouds_per_second = a.devices * a.batch / (computing + exposed)
    return {
        "utilisation": utilisation,
        "computing_ms": 1000 * computing,
        "sent_bytes": sent,
        "travelling_ms": 1000 * travelling,
        "efficiency": computing / (computing + exposed),
        "efficiency_no_overlap": computing / (computing + travelling),
        "clouds_per_second": clouds_per_second,
        "epoch_bytes": 12.0 * a.points * a.shapes,
        "read_per_second": 12 * a.points * clouds_per_second,
        "cores_to_make": clouds_per_second / record["workers"]["shapes_per_second"][0],
        "hours": a.shapes * a.epochs / clouds_per_second / 3600,
    }


def order(exponent: float) -> str:
    return "constant" if exponent == 0 else f"{exponent:g}"


def fitted(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def size(number: float) -> str:
    """Bytes as kB, MB or GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def exponents(record: dict) -> list[str]:
    """The table: a line a series."""
    lines = [
        "| work | against | from, to | ms | exponent | theory | peak memory | exponent | theory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in record["series"]:
        sizes, ms, peak = r["sizes"], r["ms"], r["peak_bytes"]
        cells = [r["work"], r["against"], f"{sizes[0]:,}, {sizes[-1]:,}"]
        cells += [f"{ms[0]:.2f}, {ms[-1]:.2f}", fitted(r["time_slope"]), order(r["time_order"])]
        cells += [f"{size(peak[0])}, {size(peak[-1])}", fitted(r["memory_slope"])]
        lines.append(f"| {' | '.join([*cells, order(r['memory_order'])])} |")
    return lines


def planned(record: dict, a: Assumed = Assumed()) -> list[str]:
    """The plan: one column for the share of the peak reached here, one for a quarter of that."""
    one = record["single_device"]
    here = one["flops_per_second"] / record["rates"]["flops_per_second"]
    columns = [plan(record, share, a) for share in (here, here / 4)]
    rows = {
        "share of the peak that the model reaches": ("utilisation", "{:.0%}"),
        "computing, ms a step": ("computing_ms", "{:.1f}"),
        "gradients that a device sends, MB a step": ("sent_bytes", "{:,.0f}"),
        "their way, ms a step": ("travelling_ms", "{:.1f}"),
        "efficiency, gradients travelling during the backward pass": ("efficiency", "{:.0%}"),
        "efficiency, gradients travelling afterwards": ("efficiency_no_overlap", "{:.0%}"),
        "clouds a second": ("clouds_per_second", "{:,.0f}"),
        "read an epoch, GB": ("epoch_bytes", "{:,.0f}"),
        "read by all, GB a second": ("read_per_second", "{:.1f}"),
        "cores that would make as many procedural shapes": ("cores_to_make", "{:,.0f}"),
        f"hours for {a.epochs} epochs": ("hours", "{:.1f}"),
    }
    units = {"sent_bytes": 1e6, "epoch_bytes": 1e9, "read_per_second": 1e9}
    lines = ["| | the share reached here | a quarter of it |", "| --- | --- | --- |"]
    for title, (key, form) in rows.items():
        shown = [form.format(column[key] / units.get(key, 1)) for column in columns]
        lines.append(f"| {title} | {' | '.join(shown)} |")
    return lines


def page(record: dict, a: Assumed = Assumed()) -> str:
    """The whole page, in Markdown."""
    about, one, made = record["environment"], record["single_device"], record["workers"]
    rates = record["rates"]
    speeds = ", ".join(
        f"{count}: {rate:,.0f}" for count, rate in zip(made["workers"], made["shapes_per_second"])
    )
    machine = (
        f"copies {rates['bytes_per_second'] / 1e9:.1f} GB a second and multiplies matrices at "
    )
    machine += f"{rates['flops_per_second'] / 1e9:,.0f} GFLOP a second"
    return f"""# How cost grows

Written by `make growth` from its record; nothing is typed in. Measured on {about["device"]},
{about["cores"]} cores, {about["threads"]} threads, torch {about["packages"]["torch"]}, revision
{str(about["git"]["revision"])[:10]}. The machine {machine}.

Time is the least of many calls in three sittings, memory the most that torch's tensors held at once
above the inputs (compiled loops hold a few rows of their own, which do not count). An exponent is
the slope in log-log coordinates over the larger half of the sizes; "theory" is the order in the
limit. A slope below it says that fixed costs still count; one above, that a cache is full.

{chr(10).join(exponents(record))}

The step of SeRP-Transformer grows with N through its searches alone: the network sees c patches.

Worker processes that each make {made["shapes_each"]:,} procedural shapes, shapes a second of all:
{speeds}.

## A plan on paper: {a.shapes:,} shapes, {a.devices} GPUs

Nothing here was run. SeRP-Transformer of the preset `paper` has {one["parameters"]:,}
parameters and takes {one["flops_per_cloud"] / 1e9:.1f} GFLOP a cloud, forward and backward, as
counted here; this machine trains on {one["clouds_per_second"]:.2f} clouds a second. Assumed:

- {a.batch} clouds a device and step, {a.points:,} points of float32 a stored cloud;
- {a.peak_flops / 1e12:.0f} TFLOP a second of each device at most (bfloat16);
- {a.bytes_per_second / 1e9:.0f} GB a second of network for each, gradients in float32 round a ring.

{chr(10).join(planned(record, a))}

The share of the peak is the open question: small layers and FPS, whose steps wait for each other,
keep a GPU from its peak more than a CPU. Hence the second column.
"""
