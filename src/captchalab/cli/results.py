"""What git keeps: networks, and what is known of several trainings."""

from typing import TYPE_CHECKING

import click

from captchalab.cli.group import KIND, main, open_project

if TYPE_CHECKING:
    from captchalab.reading.captcha import Kind


@main.command()
@click.argument("name")
@click.option("--kind", type=KIND, help="One network, instead of both.")
@click.option("--force", is_flag=True, help="Replace results/NAME.")
def keep(name: str, kind: "Kind | None", force: bool) -> None:
    """Keep the finished networks, with journals and reports, in results/NAME, for git."""
    project, _ = open_project()
    from captchalab.reading.captcha import KINDS
    from captchalab.results import keep
    from captchalab.tracking.store import Store

    written = keep.keep(project, name, Store.of(project), force, (kind,) if kind else KINDS)
    size = sum(path.stat().st_size for path in written.folder.rglob("*") if path.is_file())
    networks = ", ".join(str(network) for network in written.networks)
    print(f"keep: {networks}; {size / 1e6:.1f} MB in {written.folder}, to commit")


@main.command()
@click.option(
    "-n", "--count", default=3, show_default=True, type=click.IntRange(1), help="Seeds, the base seed included."
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Experiments side by side.")
def seeds(count: int, jobs: int) -> None:
    """Train the networks with several seeds, and say how much of a figure is luck."""
    project, params = open_project()
    from captchalab.results import seeds

    table = seeds.train(project, params, count, jobs)
    print("\n".join(seeds.lines(table)))
    print(f"seeds: {project.seeds} and {project.seeds.with_suffix('.png').name}, to commit")


@main.command()
@click.option(
    "--train-images", "sizes", multiple=True, type=click.IntRange(1), help="Also with a train split this big."
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Experiments side by side.")
def cost(sizes: tuple[int, ...], jobs: int) -> None:
    """Draw what accuracy costs: images seen, seconds, size of the train split."""
    project, params = open_project()
    from captchalab.results import cost

    table = cost.measure(project, params, sizes, jobs)
    for network in table["networks"]:
        last, test = network["epochs"][-1], network["test"]
        print(
            f"{network['kind']} {network['name']}: {last['images_seen']:,} images, {last['seconds'] / 60:.1f} min on "
            f"{network['device']}, test exact {test['exact']:.2%} ({test['exact_low']:.2%} - {test['exact_high']:.2%})"
        )
    print(f"cost: {project.results / 'cost.json'} and cost.png, to commit")
