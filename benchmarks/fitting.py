"""`fit_dictionary` beside other libraries: the time that it takes to their held-out error."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import PROBLEMS, size_name, unit
from benchmarks.streaming import ScikitLearn, squared_error_left
from benchmarks.timing import installed, print_table
from laser_jax import sparse

SIZES = ((16, 64, 4, 16384), (64, 256, 6, 16384), (144, 512, 8, 16384))  # d, m, k, n
HELD_OUT = 4096
SECONDS = 8  # that each of the others learns
ALPHAS = (0.03, 0.1)  # scikit-learn's penalty: the best of these by held-out error
MOST_ITERATIONS = 100


def fit_table(options):
    """Prints each library's seconds and held-out error, and our seconds to the same error.

    All start from the same atoms and learn from the same signals. Every dictionary codes the
    held-out signals by `omp`. The time of compilation is a column of its own.
    """
    rows = []
    for d, m, k, n in SIZES:
        signals, _ = PROBLEMS[options.kind](d, m, n + HELD_OUT)
        train, test = signals[:-HELD_OUT], signals[-HELD_OUT:]
        start, energy = unit(train[:m]), np.sum(test**2)
        error = functools.partial(squared_error_left, test=test, k=k)
        learn, compile_seconds = _ours(train, start, k)
        for name, (seconds, atoms) in _others(train, start, k, error).items():
            target = error(atoms)
            ours, reached = _seconds_to(target, learn, start, error)
            ratio = f"{seconds / ours:.1f}" if reached <= target else "not reached"
            rows.append([
                size_name((d, m, k, n)), name, f"{seconds:.2f}", f"{100 * target / energy:.2f}%",
                f"{ours:.2f}", f"{100 * reached / energy:.2f}%", ratio, f"{compile_seconds:.1f}",
            ])  # fmt: skip
    header = ["d, m, k, n", "library", "its s", "its error", "fit_dictionary, s", "its error"]
    header += ["library / this", "compile, s"]
    print_table(f"Learning a dictionary of {options.signals} to the same error", header, rows)


def _ours(train, start, k):
    """Returns a function that makes an iteration, and the seconds of its first call."""
    train = jnp.asarray(train)

    def learn(dictionary, iteration):
        fit = sparse.fit_dictionary(
            train, num_atoms=len(dictionary), sparsity=k, iterations=1, dictionary=dictionary,
            key=jax.random.key(iteration),
        )  # fmt: skip
        return jax.block_until_ready(fit.dictionary)

    begin = time.perf_counter()
    learn(jnp.asarray(start), 0)
    return learn, time.perf_counter() - begin


def _seconds_to(target, learn, start, error):
    """Returns the seconds of learning until the error is the target, and the error."""
    dictionary, seconds, reached = jnp.asarray(start), 0.0, np.inf
    for iteration in range(MOST_ITERATIONS):
        begin = time.perf_counter()
        dictionary = learn(dictionary, iteration)
        seconds += time.perf_counter() - begin
        reached = error(np.asarray(dictionary))
        if reached <= target:
            break
    return seconds, reached


def _others(train, start, k, error):
    """Returns name -> seconds and atoms of the installed libraries."""
    results = {}
    if installed("spams"):
        import spams

        begin = time.perf_counter()
        atoms = spams.trainDL(
            np.asfortranarray(train.T), D=np.asfortranarray(start.T), lambda1=k, mode=3,
            iter=-SECONDS, batchsize=512, verbose=False,
        )  # fmt: skip
        results["spams.trainDL"] = time.perf_counter() - begin, atoms.T
    if installed("sklearn"):
        learners = [ScikitLearn(len(start), alpha, start) for alpha in ALPHAS]
        for learner in learners:
            while learner.seconds < SECONDS:
                learner.advance(train, until=SECONDS)
        best = min(learners, key=lambda learner: error(learner.atoms()))
        results["MiniBatchDictionaryLearning"] = best.seconds, best.atoms()
    return results
