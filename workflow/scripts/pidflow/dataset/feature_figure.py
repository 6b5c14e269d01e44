"""The figure of the feature ranking: importance with its spread, and where it comes from."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import shap

from pidflow.dataset.ranking import Ranking
from pidflow.files import replacing
from pidflow.physics import symbol
from pidflow.tracks import BY_NAME

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

_SHOWN_CLASSES = 4
_SHOWN_FEATURES = 14


def plot_ranking(ranking: Ranking, chosen: list[str], output: str | Path, *, title: str) -> None:
    """Draw mean |SHAP| per feature with its spread over folds, and beeswarms of the first species.

    Parameters
    ----------
    ranking
        The ranking.
    chosen
        Features that were kept; drawn in colour.
    output
        Image; its suffix sets the format.
    title
        Title of the figure.
    """
    mean, spread = ranking.share.mean(axis=0), ranking.share.std(axis=0, ddof=1)
    order = np.argsort(-mean)[:_SHOWN_FEATURES]
    names = [_label(ranking.features[n]) for n in order]
    shown = [n for n, code in enumerate(ranking.classes) if code != 0][:_SHOWN_CLASSES]
    with plt.rc_context({"font.size": 11}):
        figure, axes = plt.subplots(
            1, 1 + len(shown), figsize=(5.5 + 4.6 * len(shown), 0.42 * len(order) + 2.2), layout="constrained"
        )
        colours = ["#0072B2" if ranking.features[n] in chosen else "#BBBBBB" for n in order]
        position = np.arange(len(order))
        axes[0].barh(position, mean[order], xerr=spread[order], color=colours, error_kw={"lw": 1.2, "capsize": 2})
        axes[0].set_yticks(position, names)
        axes[0].invert_yaxis()
        axes[0].xaxis.set_major_locator(MaxNLocator(5))
        axes[0].set_xlabel("share of mean |SHAP|")
        axes[0].set_title("importance (blue: kept)")
        for axis, number in zip(axes[1:], shown, strict=True):
            explanation = shap.Explanation(
                values=ranking.values[:, order, number], data=ranking.inputs[:, order], feature_names=names
            )
            plt.sca(axis)
            shap.plots.beeswarm(
                explanation, max_display=len(order), show=False, ax=axis, plot_size=None,
                order=np.arange(len(order)), color_bar=number == shown[-1], s=6,
            )  # fmt: skip
            axis.set_title(symbol(ranking.classes[number], signed=False))
            axis.set_xlabel("SHAP value (log odds)", fontsize=11)
            axis.tick_params(labelsize=10)
            axis.set_yticklabels([])
        figure.suptitle(title)
        with replacing(output) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)


def _label(name: str) -> str:
    unit = BY_NAME[name].unit
    return f"{name} ({unit})" if unit else name
