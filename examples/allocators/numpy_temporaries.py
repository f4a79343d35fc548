"""NumPy temporaries: `python numpy_temporaries.py BYTES` evaluates a*b + c*b - a on such arrays."""

import sys

import numpy

BYTES_TOUCHED = 12 << 30

array_bytes = int(sys.argv[1])
count = array_bytes // 8
a, b, c = (numpy.full(count, value) for value in (1.5, 2.5, 3.5))
for _ in range(max(3, BYTES_TOUCHED // (array_bytes * 4))):
    result = a * b + c * b - a
print(float(result[0]))
