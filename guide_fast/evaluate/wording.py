"""What the report says: plain sentences for the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from guide_fast.evaluate.metrics import MAX_STRANGER_DEVIATIONS, forgotten_limit


class Row(NamedTuple):
    """One metric: its name in the metrics, a title, an explanation."""

    name: str
    title: str
    explanation: str


ROWS = (
    Row(
        "forgotten",
        "The person, before to after",
        "Similarity of the same latent rendered by both generators, averaged over the person and the neighbours. Lower "
        "is more forgotten; at the score of two strangers the judge sees no more likeness than between any two people.",
    ),
    Row("forgotten_person", "The person alone", "The same for the person's own latent."),
    Row(
        "forgotten_neighbours",
        "The neighbours",
        "The same for latents close to the person: a face just beside the forgotten one must not bring it back.",
    ),
    Row(
        "stranger_mean",
        "Two strangers, mean",
        "Similarity of random pairs of different people made by the untouched generator: the scale for what is above.",
    ),
    Row("stranger_std", "Two strangers, standard deviation", "How much that similarity varies from pair to pair."),
    Row(
        "match_threshold_fmr_1e3",
        "Match threshold",
        "Above this similarity the judge calls two images the same person, set so that it errs for at most one pair of "
        "strangers in a thousand, over all pairs of the untouched generator's people.",
    ),
    Row(
        "forgotten_person_match",
        "Do before and after match?",
        "Whether the person's two images lie above that threshold. They should not.",
    ),
    Row(
        "retained",
        "Other people, before to after",
        "Average similarity of bystanders. Higher is better, 1 is untouched.",
    ),
    Row("retained_p05", "Other people, worst 5 %", "Nineteen of twenty bystanders kept at least this similarity."),
    Row(
        "fd_pre",
        "Frechet distance of all images (FD-EffNetLite0)",
        "How far the images of both generators lie apart as a whole, for the same random inputs; 0 is no change. It is "
        "no FID: another network, fewer images. For few images it reads too high, so compare it only at equal number.",
    ),
    Row("fd_pre_n", "Images behind it", "The number of images of each generator in that distance."),
)

INCEPTION_ROW = Row(  # where its weights were brought
    "fid_inception",
    "Frechet inception distance of all images (FID)",
    "The same distance in the 2048 features of FID's Inception-v3, whose weights were brought by whoever ran this. "
    "Published figures take 5,000 images or more; for as few as here it reads too high.",
)

THIRD_OPINION_ROWS = (
    Row("forgotten", "The person, before to after", "Averaged over the person and the neighbours."),
    Row("stranger_mean", "Two strangers, mean", "The scale for the number above."),
    Row("stranger_std", "Two strangers, standard deviation", "How much it varies from pair to pair."),
    Row("retained", "Other people, before to after", "Average over the bystanders."),
)

VIEWS_ROW = Row(  # of 3D generators
    "forgotten_person_over_views", "The person alone, over the views", "Averaged over the evaluation cameras."
)

CURVE_BY_JUDGE = (
    "The lines are proxies, measured while forgetting at low resolution; the marks at the end are the judge's numbers "
    "at full resolution, the band is what two strangers score."
)
CURVE_BY_ANOTHER = (
    "The lines are proxies, measured while forgetting by another network than the judge: their scale is not that of "
    "the measurements above, so no band of strangers is drawn."
)
CHANGES = (
    "Forgetting left a delta: the changed parameters only. Applying it to the weights before gives the weights after; "
    "applying it once more gives the weights before, bit for bit."
)
LICENCES = (
    "guide-fast is under the Apache License 2.0. The weights of the generator and of the networks that measured it are "
    "third-party work under their own licences; guide-fast neither includes nor relicenses them.",
    "Face generators of the StyleGAN family trained on FFHQ descend from non-commercial releases: use the weights for "
    "research and evaluation unless their licence allows you more.",
)


def verdict(
    metrics: Mapping[str, Any],
    *,
    people: int,
    held: bool,
    max_stranger_deviations: float = MAX_STRANGER_DEVIATIONS,
) -> list[str]:
    """The result in a few sentences; `people` bystanders, `held` when nothing fell short."""
    forgotten = metrics["forgotten"] <= forgotten_limit(metrics, max_stranger_deviations=max_stranger_deviations)
    start = "The generator no longer produces this person" if forgotten else "The generator still produces this person"
    neighbours = len(metrics["forgotten_neighbours"])
    match = "still recognises" if metrics["forgotten_person_match"] else "does not recognise"
    sentences = [
        f"{start}, at the measured latent with {neighbours} neighbours: similarity before to after is "
        f"{metrics['forgotten']:.2f}, two strangers score {_spread(metrics)}.",
        f"Other people: {people} bystanders kept a similarity of {metrics['retained']:.2f} on average, "
        f"nineteen of twenty kept at least {metrics['retained_p05']:.2f}.",
        f"At a threshold that mistakes one pair of strangers in a thousand, the judge {match} "
        "the person before in the image after.",
    ]
    third = metrics.get("third_opinion")
    if third is not None:
        agrees = third["forgotten"] <= forgotten_limit(third, max_stranger_deviations=max_stranger_deviations)
        opinion = "agrees that the person is gone" if agrees else "does not agree that the person is gone"
        sentences.append(
            f"A third opinion, {third['name']}, {opinion}: {third['forgotten']:.2f} where two strangers score "
            f"{_spread(third)} on its scale."
        )
    if held:
        sentences.append("Read “What this does not show” below before relying on it.")
    return sentences


def limitations(metrics: Mapping[str, Any]) -> list[str]:
    """What the numbers cannot say."""
    return [
        "The evidence is relative: it compares the generator before with the generator after, at this latent, its "
        "neighbours and a sample of other people. It does not search for other latents that still show the person.",
        "A face generator can be fitted to almost any face. Somebody with a photo of the person, the weights and time "
        "can train it to make that face again, so “unrecoverable” is not claimed, for this or any generator.",
        f"The judge, {metrics['judge']}, is one network with its own blind spots; people may see a likeness where it "
        "sees none, or the other way round. Its scale was set on generated faces, not on photos.",
        "The Frechet distance uses the network that may also serve as perceptual loss, so it is not independent; "
        "the judge's numbers are.",
        "Strangers and bystanders are samples of fixed size and seed: the numbers carry sampling error, and rare "
        "people may have changed more than the sample shows.",
        "This file shows the forgotten person, and the weights before hold that face too: both are personal data. Keep "
        "them no longer than needed.",
        "The weights serve research and evaluation; nothing here makes a generator fit for another use.",
    ]


def shown(value: object) -> str:
    """A metric as the tables print it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        numbers = [item for item in value if isinstance(item, int | float)]
        if numbers and len(numbers) == len(value):
            return f"{min(numbers):.3f} to {max(numbers):.3f}"
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def _spread(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['stranger_mean']:.2f} ± {metrics['stranger_std']:.2f}"
