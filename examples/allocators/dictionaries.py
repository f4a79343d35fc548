"""Dictionaries and JSON, all in small objects: what CPython's pymalloc was made for."""

import json

TEXT = json.dumps(
    [{"id": number, "name": f"item{number}", "tags": ["a", "b", str(number % 97)]} for number in range(200)]
)

index = {}
total = 0
for turn in range(1500):
    rows = json.loads(TEXT)
    for row in rows:
        row["turn"] = turn
        index[row["name"]] = row
        total += len(row["tags"])
counts = {}
for row in index.values():
    for tag in row["tags"]:
        counts[tag] = counts.get(tag, 0) + 1
print(total, len(index), sorted(counts.items())[:3])
