"""Five ways to need too much memory, through NumPy: python faults_numpy.py leak|spike|growth|fragmentation|storm."""

import sys

import numpy as np

kept = []


def leak(turns=3000):
    for number in range(turns):
        kept.append(np.full(500, number, np.float64))  # planted: leak


def spike(turns=3000):
    total = 0.0
    for number in range(turns):
        total += float(np.arange(2000).sum())
        if number == turns // 2:
            table = np.ones((2000, 1500))  # planted: spike
            total += float(table.sum())
            del table
    return total


def growth(turns=800):
    history = []
    for number in range(turns):
        history.append(np.full(2500, number))  # planted: growth
        for _ in range(6):
            np.sort(np.arange(5000) % (number + 7))
    total = sum(int(row[0]) for row in history)
    history.clear()
    return total


def fragmentation(blocks=20_000):
    live = [np.ones(300) for _ in range(blocks)]  # planted: fragmentation
    for place in range(blocks):
        if place % 8:
            live[place] = None
    for number in range(3000):
        np.sort(np.arange(20_000) % (number + 7))
    return len(live)


def storm(turns=40_000):
    column = np.arange(300.0)
    for _ in range(turns):
        column.copy()  # planted: storm
    return column


if __name__ == "__main__":
    globals()[sys.argv[1]]()
