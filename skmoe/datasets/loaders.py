"""Loaders: ``load_*``, real tables that are part of the package.

Contract. A loader has scikit-learn's form: a `Bunch`, ``return_X_y``, ``as_frame``. Its table
is a CSV file in ``data/``: one line of column names, the target last. Nothing is downloaded.

To add one, put its file there and copy the nearest loader.
"""

from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import Bunch

AIRFOIL_DESCR = """\
Airfoil self-noise
==================

Noise of NACA 0012 airfoil sections of various sizes in a wind tunnel, at various speeds and
angles of attack (NASA).

:Number of rows: 1503
:Number of features: 5, numeric, none missing
:Target: scaled sound pressure level, in decibels

========================================  ====  ==============
column                                    unit  mean (removed)
========================================  ====  ==============
frequency                                 Hz    2886.3806
attack_angle                              deg   6.7823021
chord_length                              m     0.13654824
free_stream_velocity                      m/s   50.860745
suction_side_displacement_thickness       m     0.01113988
scaled_sound_pressure_level (the target)  dB    124.83594
========================================  ====  ==============

**The values are centred.** The mean of each column, the target's included, has been subtracted
and the result rounded to five significant digits; scales are as measured. To have the units of
the original table add the means, which the Bunch holds as ``feature_means`` and
``target_mean``. Rows are in another order than in the original. Columns were matched to the
original table by their values, row by row.

:Source: T. F. Brooks, D. S. Pope and M. A. Marcolini (1989), Airfoil self-noise and prediction,
    NASA RP-1218. UCI Machine Learning Repository, doi 10.24432/C5VW2C,
    https://archive.ics.uci.edu/dataset/291/airfoil+self+noise
:Licence: Creative Commons Attribution 4.0 International (CC BY 4.0),
    https://creativecommons.org/licenses/by/4.0/. Changes: centred, rounded, reordered.
"""

CONCRETE_DESCR = """\
Concrete compressive strength
=============================

Compressive strength of concrete by its mixture and its age.

:Number of rows: 1030
:Number of features: 8, numeric, none missing
:Target: compressive strength, in MPa

=================================  ======  ==============
column                             unit    mean (removed)
=================================  ======  ==============
cement                             kg/m^3  281.16786
blast_furnace_slag                 kg/m^3  73.895825
fly_ash                            kg/m^3  54.188350
water                              kg/m^3  181.56728
superplasticizer                   kg/m^3  6.2046602
coarse_aggregate                   kg/m^3  972.91893
fine_aggregate                     kg/m^3  773.58049
age                                day     45.662136
compressive_strength (the target)  MPa     35.817961
=================================  ======  ==============

**The values are centred.** The mean of each column, the target's included, has been subtracted
and the result rounded to five significant digits; scales are as measured. To have the units of
the original table add the means, which the Bunch holds as ``feature_means`` and
``target_mean``. Rows are in the original order, with its 25 repeated rows. Columns were
matched to the original table by their values, row by row.

:Source: I.-C. Yeh (1998), Modeling of strength of high-performance concrete using artificial
    neural networks, Cement and Concrete Research 28(12). UCI Machine Learning Repository,
    doi 10.24432/C5PK67, https://archive.ics.uci.edu/dataset/165/concrete+compressive+strength
:Licence: Creative Commons Attribution 4.0 International (CC BY 4.0),
    https://creativecommons.org/licenses/by/4.0/. Changes: centred, rounded.
"""

# Means of the original tables, the target's last.
AIRFOIL_MEANS = (2886.3806, 6.7823021, 0.13654824, 50.860745, 0.01113988, 124.83594)
CONCRETE_MEANS = (
    *(281.16786, 73.895825, 54.188350, 181.56728, 6.2046602, 972.91893, 773.58049, 45.662136),
    35.817961,
)


def load_airfoil(*, return_X_y: bool = False, as_frame: bool = False) -> Any:
    """Airfoil self-noise: 1503 rows, 5 features, one smooth physical law with regimes.

    The values are centred: every column, the target included, has mean 0.

    Parameters
    ----------
    return_X_y : bool, default=False
        True for ``(data, target)`` instead of a `Bunch`.
    as_frame : bool, default=False
        True for a pandas DataFrame and Series instead of arrays.

    Returns
    -------
    Bunch
        data : ndarray or DataFrame of shape (1503, 5); target : ndarray or Series of shape
        (1503,), in decibels; feature_names, target_names : lists; feature_means : ndarray of
        shape (5,) and target_mean : float, what was subtracted; frame : DataFrame of shape
        (1503, 6), or None without `as_frame`; DESCR : description, source and licence;
        filename : name of the CSV file.

    Raises
    ------
    ImportError
        If `as_frame` is True and pandas is not installed.

    References
    ----------
    Brooks, Pope & Marcolini (1989), UCI Machine Learning Repository, doi 10.24432/C5VW2C,
    CC BY 4.0.

    Examples
    --------
    >>> from skmoe.datasets import load_airfoil
    >>> X, y = load_airfoil(return_X_y=True)
    >>> X.shape, y.shape
    ((1503, 5), (1503,))
    """
    return _load("airfoil.csv", AIRFOIL_DESCR, AIRFOIL_MEANS, return_X_y, as_frame)


def load_concrete(*, return_X_y: bool = False, as_frame: bool = False) -> Any:
    """Concrete compressive strength: 1030 rows, 8 features.

    The values are centred: every column, the target included, has mean 0.

    Parameters
    ----------
    return_X_y : bool, default=False
        True for ``(data, target)`` instead of a `Bunch`.
    as_frame : bool, default=False
        True for a pandas DataFrame and Series instead of arrays.

    Returns
    -------
    Bunch
        data : ndarray or DataFrame of shape (1030, 8); target : ndarray or Series of shape
        (1030,), in MPa; feature_names, target_names : lists; feature_means : ndarray of shape
        (8,) and target_mean : float, what was subtracted; frame : DataFrame of shape
        (1030, 9), or None without `as_frame`; DESCR : description, source and licence;
        filename : name of the CSV file.

    Raises
    ------
    ImportError
        If `as_frame` is True and pandas is not installed.

    References
    ----------
    Yeh (1998), UCI Machine Learning Repository, doi 10.24432/C5PK67, CC BY 4.0.

    Examples
    --------
    >>> from skmoe.datasets import load_concrete
    >>> data = load_concrete()
    >>> data.data.shape, data.feature_names[:2]
    ((1030, 8), ['cement', 'blast_furnace_slag'])
    """
    return _load("concrete.csv", CONCRETE_DESCR, CONCRETE_MEANS, return_X_y, as_frame)


def _load(
    filename: str, descr: str, means: tuple[float, ...], return_X_y: bool, as_frame: bool
) -> Any:
    with (files("skmoe.datasets") / "data" / filename).open(encoding="utf-8") as lines:
        names = next(lines).strip().split(",")
        table = np.loadtxt(lines, delimiter=",")
    data, target, frame = table[:, :-1].copy(), table[:, -1].copy(), None
    if as_frame:
        frame = _pandas().DataFrame(table, columns=names)
        data, target = frame[names[:-1]], frame[names[-1]]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=names[:-1],
        target_names=names[-1:],
        feature_means=np.array(means[:-1]),
        target_mean=means[-1],
        DESCR=descr,
        filename=filename,
    )


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "as_frame=True needs pandas. Install it with `pip install pandas`, or leave "
            "as_frame=False."
        ) from error
    return pd
