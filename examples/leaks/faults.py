"""Five ways to need too much memory, in Python: python faults.py leak|spike|growth|fragmentation|storm."""

import sys

kept = []
index = {}


def answer(number):
    return [number, str(number) * 20]


def leak(turns=6000):
    for number in range(turns):
        answer(number)
        kept.append(bytes(1500))  # planted: leak


def spike(turns=4000):
    for number in range(turns):
        answer(number)
        if number == turns // 2:
            rows = [bytes(60_000) for _ in range(300)]  # planted: spike
            del rows


def growth(turns=40_000):
    for number in range(turns):
        answer(number)
        index[number] = str(number) * 60  # planted: growth
    index.clear()


def fragmentation(blocks=20_000):
    live = [bytes(2000) for _ in range(blocks)]  # planted: fragmentation
    for place in range(blocks):
        if place % 8:
            live[place] = None
    for number in range(150_000):
        answer(number)


def storm(turns=40_000):
    for _ in range(turns):
        bytes(700)  # planted: storm


if __name__ == "__main__":
    globals()[sys.argv[1]]()
