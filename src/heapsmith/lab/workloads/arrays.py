"""NumPy temporaries: `a * b + c * b - a` on arrays of so many bytes, as array programs write it."""

import sys

import numpy as np
from measured import run_measured


def main(array_bytes: int, rounds: int) -> None:
    a, b, c = (np.full(array_bytes // 8, value) for value in (1.0, 2.0, 3.0))

    def compute() -> None:
        for _ in range(rounds):
            result = a * b + c * b - a
            assert result[0] == 7.0

    compute()
    run_measured(compute)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
